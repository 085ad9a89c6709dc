"""OpenVINO on the CPU, in bf16 where the CPU computes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import Tensors, TensorSpec
from heatnet_ros.engines.batching import join_batch, split_batch
from heatnet_ros.engines.openvino_package import openvino
from heatnet_ros.errors import EngineError, ModelError

_HINTS = {"bf16": "bf16", "fp32": "f32"}
_INT8 = ("u8", "i8")
# the layers that take the time; what surrounds them may run in another precision
_HEAVY_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


class OpenvinoEngine:
    """A compiled OpenVINO network. Raises EngineError or ModelError as ``load_engine`` says.

    The batch dimension stays dynamic: measured on a ResNet-18 at 256 px this runs as fast as a
    network compiled for each batch size (batch 1: 2.4 ms, batch 3: 6.4 ms both ways), takes
    35 MB less for every size, and the first run of a new size costs 15 ms instead of 60. No
    compiled network is cached on disk: compiling takes 35 ms and a stale cache can be wrong.

    More than ``MAX_BATCH`` objects are run in parts: OpenVINO keeps memory for the largest batch
    that it has seen (the demo's network 182 MB for 4, 262 MB for 16), and one look at a cluttered
    scene would let a node grow for good. Smaller parts cost time: 13 objects take 22 ms in one
    call, 28 in two and 31 in four.
    """

    def __init__(self, onnx_path: Path, config: EngineConfig) -> None:
        if config.precision not in ("auto", "int8", *_HINTS):
            raise EngineError(
                f"OpenVINO runs here in {' or '.join(_HINTS)}, engine.precision asks for "
                f"{config.precision}. Set engine.precision to auto, or engine.backend to tensorrt."
            )
        core = openvino.Core()
        can_bf16 = "bf16" in list_precisions()
        if config.precision == "bf16" and not can_bf16:
            raise EngineError(
                "engine.precision asks for bf16, which this CPU does not compute in (it has "
                "neither avx512_bf16 nor amx_bf16). Set engine.precision to auto or fp32."
            )
        wanted = config.precision
        if wanted in ("auto", "int8"):  # what a quantized file leaves in float
            wanted = "bf16" if can_bf16 else "fp32"
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[wanted],
            # pinned threads cannot move away from a core that another process keeps busy
            "ENABLE_CPU_PINNING": False,
        }
        if config.threads:
            properties["INFERENCE_NUM_THREADS"] = config.threads
        try:
            model = core.read_model(onnx_path)
            # compiling adds the names of what it melts into a port; "any name" may then be one
            inputs, outputs = ([p.get_any_name() for p in q] for q in (model.inputs, model.outputs))
            compiled = core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            version = openvino.__version__.split("-")[0]
            raise ModelError(
                f"OpenVINO {version} cannot load {onnx_path}: {_one_line(error)}. Restore the file "
                "or export the model again."
            ) from error
        precision = _running_precision(compiled)
        if config.precision == "int8" and precision != "int8":
            raise EngineError(
                f"engine.precision asks for int8, {onnx_path} is not quantized. Use the model that "
                "`python -m heatnet_ros quantize` makes of it, or set engine.precision to auto, or "
                "engine.backend to tensorrt."
            )
        # a quantized file says itself what is int8; engine.precision is then about the rest
        if config.precision not in ("auto", precision) and precision != "int8":
            raise EngineError(
                f"engine.precision asks for {config.precision}, OpenVINO runs {onnx_path} in "
                f"{precision}. Set engine.precision to auto or {precision}."
            )
        self.inputs = tuple(map(_spec, inputs, compiled.inputs))
        self.outputs = tuple(map(_spec, outputs, compiled.outputs))
        self.description = f"openvino {','.join(compiled.get_property('EXECUTION_DEVICES'))}"
        self.description += f" {precision}"
        self._request = compiled.create_infer_request()

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """See ``Engine.run``."""
        names = sorted(spec.name for spec in self.inputs)
        if sorted(tensors) != names:  # OpenVINO would compute with what an input held before
            raise EngineError(
                f"OpenVINO could not run the network: it takes the inputs {', '.join(names)}, got "
                f"{', '.join(sorted(tensors)) or 'none'}. Correct the manifest's tensor names."
            )
        parts = split_batch(self.inputs, tensors, self._batch_of(tensors))
        return join_batch([self._run_part(part) for part in parts])

    def _batch_of(self, tensors: Tensors) -> int | None:
        """The batch size that all open inputs share, else None: OpenVINO says what is wrong."""
        sizes = {tensors[s.name].shape[:1] for s in self.inputs if s.shape[:1] == (None,)}
        size = sizes.pop() if len(sizes) == 1 else ()
        return size[0] if size else None

    def _run_part(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        try:
            self._request.infer(dict(tensors), share_inputs=True)
        except (RuntimeError, TypeError, ValueError) as error:
            raise EngineError(f"OpenVINO could not run the network: {_one_line(error)}") from error
        # the next run writes into the same memory
        return {
            spec.name: self._request.get_output_tensor(i).data.copy()
            for i, spec in enumerate(self.outputs)
        }


def list_precisions() -> tuple[str, ...]:
    """What this CPU computes in, the fastest first."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bf16", "fp32") if "BF16" in capabilities else ("fp32",)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _running_precision(compiled: Any) -> str:
    """The precision the heavy layers were compiled to, read from the executable graph.

    The hint alone may be ignored. A network without such layers is judged by all its layers.
    int8: of a quantized file (QuantizeLinear), where at least half of the heavy layers run so.
    """
    layers = [
        (op.rt_info["layerType"].value, op.rt_info["runtimePrecision"].value)
        for op in compiled.get_runtime_model().get_ordered_ops()
    ]
    heavy = [precision for kind, precision in layers if kind in _HEAVY_LAYERS]
    if heavy and 2 * sum(precision in _INT8 for precision in heavy) >= len(heavy):
        return "int8"
    return "bf16" if "bf16" in (heavy or [precision for _, precision in layers]) else "fp32"


def _spec(name: str, port: Any) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    return TensorSpec(name, shape, port.get_element_type().to_dtype())
