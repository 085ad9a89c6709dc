"""Inference backends behind one protocol; each backend is imported only when it is used.

A network is a file here: what it means stands in the estimator of the same name.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import EngineConfig
from heatnet_ros.errors import EngineError

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a network's input or output; None is a dimension left open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        """For messages: ``rgb uint8[?,256,256,3]``."""
        sizes = ",".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]"


class Engine(Protocol):
    """A network ready to run. Not for two threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` gives."""

    @property
    def description(self) -> str:
        """Backend, device and precision that really run, for instance ``openvino CPU bf16``."""

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """Compute all outputs by name, as arrays of the caller's own. Raises EngineError."""


@dataclass(frozen=True)
class Difference:
    """How far two answers of a network are apart.

    px: of the decoded points (keypoints, box edges), input pixels; ``compared`` of them were sure
    enough. values: largest difference of the heatmaps or scores, as a part of their range.
    """

    px: float
    compared: int
    values: float


@dataclass(frozen=True, eq=False)
class Check:
    """How to tell whether an arithmetic suits a network; the estimator's layer knows it.

    samples: network inputs, a batch of one each; ``real`` when they were recorded. compare:
    expected and got answers to them. limit_px: a larger difference is refused.
    """

    samples: tuple[Tensors, ...]
    real: bool
    compare: Callable[[Sequence[Tensors], Sequence[Tensors]], Difference]
    limit_px: float


def load_engine(
    onnx_path: Path, config: EngineConfig, make_check: Callable[[], Check] | None = None
) -> Engine:
    """Load an ONNX file into the backend that ``config`` asks for; see ``choose_backend``.

    make_check: makes what judges TensorRT's arithmetic, called only there; without it nothing is
    judged. Raises
    EngineError when the backend is not installed or cannot give the device or the precision,
    ModelError when it cannot read the file.
    """
    backend, device = choose_backend(config)
    if backend == "tensorrt":
        from heatnet_ros.engines.tensorrt import load_tensorrt

        return load_tensorrt(onnx_path, config, make_check)
    if backend == "openvino":
        from heatnet_ros.engines.openvino import OpenvinoEngine

        return OpenvinoEngine(onnx_path, config)
    from heatnet_ros.engines.onnxruntime import OnnxruntimeEngine

    return OnnxruntimeEngine(onnx_path, config, device)


def choose_backend(config: EngineConfig) -> tuple[str, str]:
    """Backend and device (cpu or cuda) that run.

    ``auto`` takes, where there is a GPU, TensorRT, else ONNX Runtime built for CUDA; then OpenVINO,
    then ONNX Runtime (measured on a ResNet-18 at 256 px on a CPU with AMX: 2.4 ms against
    14.5 ms). Raises EngineError when what is asked for is not there; nothing else is taken then.
    """
    if config.backend != "auto":
        require_installed(config.backend)
        return config.backend, _choose_device(config)
    if config.device != "cpu" and has_gpu():
        if is_installed("tensorrt") and is_installed("pycuda"):
            return "tensorrt", "cuda"
        if is_installed("onnxruntime") and _onnxruntime_has_cuda():
            return "onnxruntime", "cuda"
    if config.device == "cuda":
        raise EngineError(
            "engine.device asks for cuda; expected an NVIDIA GPU with its driver and one of "
            f"tensorrt with pycuda or onnxruntime-gpu, got {_tell_gpu()}. Install them "
            "(pip install tensorrt pycuda, or pip install onnxruntime-gpu in place of "
            "onnxruntime), or set engine.device to auto or cpu."
        )
    for backend in ("openvino", "onnxruntime"):
        if is_installed(backend):
            return backend, "cpu"
    raise EngineError(
        "Inference backend 'auto' is not installed; expected the Python package openvino or "
        "onnxruntime. Install it (pip install openvino)."
    )


def list_engines() -> list[tuple[str, str]]:
    """Backend and precision of everything that can run here, the fastest expected first."""
    found = []
    if has_gpu():
        if is_installed("tensorrt") and is_installed("pycuda"):
            found += [("tensorrt", "fp16"), ("tensorrt", "fp32")]
        if is_installed("onnxruntime") and _onnxruntime_has_cuda():
            found.append(("onnxruntime", "fp32"))
    if is_installed("openvino"):
        from heatnet_ros.engines.openvino import list_precisions

        found += [("openvino", precision) for precision in list_precisions()]
    if is_installed("onnxruntime") and ("onnxruntime", "fp32") not in found:
        found.append(("onnxruntime", "fp32"))
    return found


def _choose_device(config: EngineConfig) -> str:
    """The device of a backend that was asked for by name."""
    backend, device = config.backend, config.device
    home = {"openvino": "cpu", "tensorrt": "cuda"}.get(backend)
    if home is not None and device not in ("auto", home):
        raise EngineError(
            f"engine.device asks for {device}, {backend} runs here on {home} only. Set "
            "engine.device or engine.backend to auto."
        )
    if backend == "tensorrt" and not has_gpu():
        raise EngineError(
            f"engine.backend asks for tensorrt; expected an NVIDIA GPU with its driver, got "
            f"{_tell_gpu()}. Install the driver or set engine.backend to auto."
        )
    if home is not None:
        return home
    if device == "auto":
        return "cuda" if has_gpu() and _onnxruntime_has_cuda() else "cpu"
    return device


def require_installed(backend: str) -> None:
    """Raise EngineError unless the Python packages of a backend are installed."""
    packages = [backend, "pycuda"] if backend == "tensorrt" else [backend]
    missing = [name for name in packages if not is_installed(name)]
    if missing:
        raise EngineError(
            f"Inference backend '{backend}' is not installed; expected the Python package "
            f"{' and '.join(missing)}. Install it (pip install {' '.join(missing)}) or set "
            "engine.backend to one that is installed."
        )


def is_installed(package: str) -> bool:
    """Whether a Python package can be imported, without doing so."""
    return importlib.util.find_spec(package) is not None


def _onnxruntime_has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def has_gpu() -> bool:
    """Whether NVIDIA's driver is there and sees a GPU; a container or WSL may have no /dev node."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(ctypes.c_uint(0)) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return False
    return count.value > 0


def _tell_gpu() -> str:
    return "a GPU without those packages" if has_gpu() else "no GPU that the driver sees"
