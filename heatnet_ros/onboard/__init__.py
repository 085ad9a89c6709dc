"""From CAD files to a model that the node runs: the parts of ``python -m heatnet_ros onboard``.

Every step is a command of its own in a process of its own: rendering and training must not share
one. Here is what is between them: options, plan, state, and the report.
"""
