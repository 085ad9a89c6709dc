"""What a measurement was made on: the machine and the versions that matter for speed."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from typing import Any

from heatnet_ros import __version__
from heatnet_ros.machine import count_cores, describe_processor, total_memory_gb

_VERSIONS = ("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "pycuda", "torch",
             "opencv-python", "opencv-python-headless", "numpy")  # fmt: skip


def describe_hardware() -> dict[str, Any]:
    """Processor, cores, memory, system."""
    return {
        "processor": describe_processor(),
        "cores": count_cores(),
        "memory_gb": round(total_memory_gb(), 1),
        "system": platform.platform(),
        **describe_gpu(),
    }


def describe_gpu() -> dict[str, str]:
    """Name and driver of the GPUs, as the driver's own tool tells them; empty without one."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"gpu": "; ".join(done.stdout.strip().splitlines())}


def list_versions() -> dict[str, str]:
    """What is installed of all that matters for speed."""
    found = {"heatnet_ros": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
