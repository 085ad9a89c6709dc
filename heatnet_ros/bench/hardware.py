"""What a measurement was made on: the machine and the versions that matter for speed."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from heatnet_ros import __version__
from heatnet_ros.machine import count_cores, describe_processor, total_memory_gb

_VERSIONS = ("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch", "opencv-python",
             "opencv-python-headless", "numpy")  # fmt: skip


def describe_hardware() -> dict[str, Any]:
    """Processor, cores, memory, system."""
    return {
        "processor": describe_processor(),
        "cores": count_cores(),
        "memory_gb": round(total_memory_gb(), 1),
        "system": platform.platform(),
    }


def list_versions() -> dict[str, str]:
    """What is installed of all that matters for speed."""
    found = {"heatnet_ros": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
