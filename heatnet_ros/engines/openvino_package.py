"""OpenVINO without its model converter, which sends its vendor a usage event when it is imported.

Also the converter takes a third of the import's time. What is here is a network already: nobody
needs it. Import ``openvino`` from here, before anything imports it by itself.
"""

from heatnet_ros.engines.hidden import without_module

with without_module("openvino.tools.ovc"):
    import openvino

__all__ = ["openvino"]
