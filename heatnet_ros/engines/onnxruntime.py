"""ONNX Runtime on the CPU or on an NVIDIA GPU, in the precision that the file stores (fp32).

The GPU's part was not run on hardware so far; docs/engines.md tells what was checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import Tensors, TensorSpec
from heatnet_ros.errors import EngineError, ModelError

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}  # fmt: skip
_CUDA = "CUDAExecutionProvider"
# they have no common base but Exception
_BACKEND_ERRORS = (
    errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
    errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException, ValueError,
)  # fmt: skip


class OnnxruntimeEngine:
    """An ONNX Runtime session. Raises EngineError or ModelError as ``load_engine`` says."""

    def __init__(self, onnx_path: Path, config: EngineConfig, device: str = "cpu") -> None:
        if config.precision not in ("auto", "fp32"):
            other = "openvino" if config.precision == "bf16" else "tensorrt"
            raise EngineError(
                f"ONNX Runtime computes in fp32, engine.precision asks for {config.precision}. Set "
                f"engine.precision to auto or fp32, or engine.backend to {other}."
            )
        on_gpu = device == "cuda"
        if on_gpu and _CUDA not in onnxruntime.get_available_providers():
            raise _no_cuda(f"this build has {', '.join(onnxruntime.get_available_providers())}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads
        # waiting threads that spin take a quarter more CPU time and gain none: the camera, the
        # other network and the node need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if on_gpu:
            # session.disable_cpu_ep_fallback would refuse every network here: ONNX Runtime computes
            # shapes (Shape, Gather, Concat of a few integers) on the CPU on purpose
            if hasattr(onnxruntime, "preload_dlls"):  # CUDA from pip's nvidia packages, from 1.21
                onnxruntime.preload_dlls()
            # fp32 means fp32: TF32 has 10 bits of mantissa
            providers = [(_CUDA, {"device_id": "0", "use_tf32": "0"})]
        try:
            self._session = onnxruntime.InferenceSession(
                str(onnx_path), options, providers=providers
            )
            if on_gpu:  # ONNX Runtime tries again on the CPU by itself, and only prints that
                self._session.disable_fallback()
        except _BACKEND_ERRORS as error:
            if on_gpu and onnx_path.is_file():
                raise _no_cuda(" ".join(str(error).split())) from error
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {onnx_path}: {error}. Restore "
                "the file or export the model again."
            ) from error
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        running = self._session.get_providers()
        if on_gpu and running[0] != _CUDA:
            raise _no_cuda(f"the network would run on {running[0]}")
        self._binding: Any = self._session.io_binding() if on_gpu else None
        self.description = f"onnxruntime {'CUDA' if on_gpu else 'CPU'} fp32"

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """See ``Engine.run``."""
        names = [spec.name for spec in self.outputs]
        try:
            if self._binding is not None:
                values = self._run_bound(names, tensors)
            else:
                values = self._session.run(names, dict(tensors))
        except _BACKEND_ERRORS as error:
            raise EngineError(f"ONNX Runtime could not run the network: {error}") from error
        return dict(zip(names, values, strict=True))

    def _run_bound(self, names: list[str], tensors: Tensors) -> list[NDArray[Any]]:
        """On the GPU: each input is copied there once, each output back once."""
        expected = sorted(spec.name for spec in self.inputs)
        if sorted(tensors) != expected:  # a binding would compute with what it held before
            raise ValueError(f"it takes {', '.join(expected)}, got {', '.join(sorted(tensors))}")
        binding = self._binding
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        for name, array in tensors.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", 0)
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, "cuda", 0)
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def _no_cuda(got: str) -> EngineError:
    return EngineError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run the network on CUDA: expected the "
        f"CUDA provider, got: {got}. Install onnxruntime-gpu in place of onnxruntime "
        "(pip uninstall onnxruntime; pip install onnxruntime-gpu) with the CUDA and cuDNN that it "
        "names, or set engine.device to cpu."
    )


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    if value.type not in _DTYPES:
        raise ModelError(
            f"Tensor '{value.name}' has type {value.type}; expected one of {', '.join(_DTYPES)}. "
            "Export the model again."
        )
    return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))
