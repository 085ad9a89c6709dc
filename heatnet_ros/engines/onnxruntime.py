"""ONNX Runtime on the CPU, in the precision that the file stores (fp32)."""

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
# they have no common base but Exception
_BACKEND_ERRORS = (
    errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
    errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException, ValueError,
)  # fmt: skip


class OnnxruntimeEngine:
    """An ONNX Runtime session. Raises EngineError or ModelError as ``load_engine`` says."""

    def __init__(self, onnx_path: Path, config: EngineConfig) -> None:
        if config.precision == "bf16":
            raise EngineError(
                "ONNX Runtime on the CPU computes in fp32, engine.precision asks for bf16. Set "
                "engine.precision to auto or fp32, or engine.backend to openvino."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads
        # waiting threads that spin take a quarter more CPU time and gain none: the camera, the
        # other network and the node need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(onnx_path), options, providers=["CPUExecutionProvider"]
            )
        except _BACKEND_ERRORS as error:
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {onnx_path}: {error}. Restore "
                "the file or export the model again."
            ) from error
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())
        self.description = "onnxruntime CPU fp32"

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """See ``Engine.run``."""
        names = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(names, dict(tensors))
        except _BACKEND_ERRORS as error:
            raise EngineError(f"ONNX Runtime could not run the network: {error}") from error
        return dict(zip(names, values, strict=True))


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    if value.type not in _DTYPES:
        raise ModelError(
            f"Tensor '{value.name}' has type {value.type}; expected one of {', '.join(_DTYPES)}. "
            "Export the model again."
        )
    return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))
