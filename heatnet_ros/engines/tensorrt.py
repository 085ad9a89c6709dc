"""TensorRT on an NVIDIA GPU; ``tensorrt_build.py`` makes its plans, ``plan_cache.py`` keeps them.

Not run on hardware so far; docs/engines.md tells what was checked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from heatnet_ros.config import EngineConfig
from heatnet_ros.engines import Check, Difference, Tensors, TensorSpec
from heatnet_ros.engines.batching import BATCHES, check_batch, join_batch, split_batch
from heatnet_ros.engines.cuda import Buffer, CaptureError, Gpu, Graph, allocate
from heatnet_ros.engines.plan_cache import (
    PlanKey,
    PrecisionError,
    compare_with,
    find_cache_folder,
    hash_samples,
    load_plan,
)
from heatnet_ros.errors import EngineError, ModelError

OLDEST = 10  # major version: what is called here came with it
MAX_GRAPHS = 8  # batch sizes that get a CUDA graph; the rest run without
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32",
    "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
_log = logging.getLogger(__name__)
_trt_log = trt.Logger(trt.Logger.WARNING)


class TensorrtEngine:
    """A plan on the GPU. One execution context, and one CUDA graph, per batch size that occurs.

    A graph holds for the shapes, the buffers and the context that it was recorded with, so no two
    share a context. All contexts share one scratch memory: they run one after the other.
    """

    def __init__(self, network: Any, gpu: Gpu, precision: str) -> None:
        self._engine, self._gpu = network, gpu
        names = [network.get_tensor_name(i) for i in range(network.num_io_tensors)]
        specs = [(network.get_tensor_mode(name), _spec(network, name)) for name in names]
        self.inputs = tuple(s for mode, s in specs if mode == trt.TensorIOMode.INPUT)
        self.outputs = tuple(s for mode, s in specs if mode == trt.TensorIOMode.OUTPUT)
        self.description = f"tensorrt {gpu.name} {precision}"
        with gpu.active():
            self._scratch_bytes = int(network.device_memory_size_v2)
            self._scratch = allocate(self._scratch_bytes)
        self._slots: dict[int | None, _Slot] = {}

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """See ``Engine.run``."""
        batch = check_batch(self.inputs, tensors)
        with self._gpu.active():
            parts = split_batch(self.inputs, tensors, batch)
            return join_batch([self._run_part(part) for part in parts])

    def _run_part(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        batch = check_batch(self.inputs, tensors)
        if batch not in self._slots:
            context = self._engine.create_execution_context(
                trt.ExecutionContextAllocationStrategy.USER_MANAGED
            )
            if context is None:
                raise EngineError(
                    "TensorRT cannot make an execution context; expected enough free memory of "
                    "the GPU. End other programs on it or set engine.device to cpu."
                )
            context.set_device_memory(int(self._scratch), self._scratch_bytes)
            may_record = len(self._slots) < MAX_GRAPHS
            self._slots[batch] = _Slot(context, self, tensors, self._gpu.stream, may_record)
        return self._slots[batch].run(tensors)

    def __del__(self) -> None:
        # memory of the GPU is freed with its context current, whichever thread drops the engine
        if not hasattr(self, "_slots"):
            return
        with self._gpu.active():
            while self._slots:
                self._slots.popitem()[1].destroy()
            self._scratch.free()
            self._engine = None


class _Slot:
    """Context, buffers and graph for one batch size."""

    def __init__(
        self, context: Any, engine: TensorrtEngine, tensors: Tensors, stream: Any, may_record: bool
    ) -> None:
        self._context, self._stream, self._may_record = context, stream, may_record
        self._graph: Graph | None = None
        self._inputs = {
            spec.name: Buffer(tensors[spec.name].shape, spec.dtype) for spec in engine.inputs
        }
        for name, buffer in self._inputs.items():
            if not context.set_input_shape(name, buffer.host.shape):
                raise EngineError(
                    f"TensorRT does not take '{name}' in shape {buffer.host.shape}. Delete the "
                    "plans in the cache folder (docs/engines.md) or export the model again."
                )
        self._outputs = {
            spec.name: Buffer(_output_shape(context, spec), spec.dtype) for spec in engine.outputs
        }
        for name, buffer in (self._inputs | self._outputs).items():
            context.set_tensor_address(name, buffer.address)

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, tensors[name], casting="no")
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch()
        self._stream.synchronize()
        outputs = {name: buffer.host.copy() for name, buffer in self._outputs.items()}
        if self._may_record:
            self._record()
        return outputs

    def _enqueue(self) -> None:
        for buffer in self._inputs.values():
            buffer.upload(self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(
                "TensorRT could not run the network; its own message stands above. Configure the "
                "node again or set engine.backend to onnxruntime."
            )
        for buffer in self._outputs.values():
            buffer.download(self._stream)

    def _record(self) -> None:
        """After a first run without a graph, which lets TensorRT finish its preparations."""
        self._may_record = False
        try:
            self._graph = Graph(self._stream, self._enqueue)
        except CaptureError as error:
            _log.warning("Runs without a CUDA graph, which is slower: %s", error)

    def destroy(self) -> None:
        """Free everything; the CUDA context must be current."""
        if self._graph is not None:
            self._graph.destroy()
        self._graph = self._context = None
        self._inputs, self._outputs = {}, {}


def load_tensorrt(
    onnx_path: Path, config: EngineConfig, make_check: Callable[[], Check] | None
) -> TensorrtEngine:
    """The network in the asked precision, from a kept plan or a new one.

    ``auto`` takes fp16 where it passes the check, else fp32, and logs it. Raises EngineError when
    the GPU, TensorRT or the precision asked for does not serve, ModelError when the ONNX file
    cannot be read.
    """
    if int(trt.__version__.split(".")[0]) < OLDEST:
        raise EngineError(
            f"TensorRT {trt.__version__} is installed, expected {OLDEST} or newer. Install it "
            "(pip install tensorrt, on a Jetson JetPack 6.1 or newer) or set engine.backend."
        )
    gpu, check = Gpu(), make_check() if make_check is not None else None
    precisions = choose_precisions(config.precision)
    for precision in precisions:
        try:
            return _load(onnx_path, precision, config, check, gpu)
        except PrecisionError as error:
            if precision == precisions[-1]:
                raise
            _log.warning("%s Next: %s.", error, precisions[precisions.index(precision) + 1])
    raise AssertionError("no precision")  # not reached: there is at least one


def choose_precisions(wanted: str) -> tuple[str, ...]:
    """What to try, best first. TensorRT 11 has no flags for precisions: it obeys the file."""
    if wanted != "auto":
        return (wanted,)
    return ("fp16", "fp32") if hasattr(trt.BuilderFlag, "FP16") else ("fp32",)


def _load(
    onnx_path: Path, precision: str, config: EngineConfig, check: Check | None, gpu: Gpu
) -> TensorrtEngine:
    folder = find_cache_folder(config.cache_dir)
    try:
        onnx_sha256 = hashlib.sha256(onnx_path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"TensorRT cannot load {onnx_path}: {error.strerror}. Restore the file or export the "
            "model again."
        ) from error
    key = PlanKey(
        onnx_sha256, trt.__version__, str(gpu), precision, BATCHES,
        hash_samples(check) if precision == "int8" and check is not None else "",
    )  # fmt: skip
    runtime = trt.Runtime(_trt_log)

    def build() -> bytes:
        # the builder is not part of the lean run time, and a kept plan needs none
        from heatnet_ros.engines.tensorrt_build import build_plan

        return build_plan(onnx_path, precision, check, gpu, _trt_log, folder)

    def open_plan(plan: bytes) -> TensorrtEngine | None:
        with gpu.active():
            network = runtime.deserialize_cuda_engine(plan)
        return None if network is None else TensorrtEngine(network, gpu, precision)

    name, limit_px = f"{onnx_path.parent.name}-{onnx_path.stem}", check.limit_px if check else 0.0
    measure = partial(_measure, onnx_path=onnx_path, config=config, check=check)
    engine: TensorrtEngine = load_plan(key, folder, name, build, open_plan, measure, limit_px)
    return engine


def _measure(
    engine: TensorrtEngine, onnx_path: Path, config: EngineConfig, check: Check | None
) -> Difference | None:
    if check is None:
        return None
    from heatnet_ros.engines import require_installed

    require_installed("onnxruntime")
    from heatnet_ros.engines.onnxruntime import OnnxruntimeEngine

    on_cpu = EngineConfig("onnxruntime", "fp32", config.threads, "cpu")
    difference = compare_with(OnnxruntimeEngine(onnx_path, on_cpu), engine, check)
    if not check.real:
        _log.warning(
            "%s was compared with ONNX Runtime on a drawn pattern, %d points were sure enough; "
            "recorded samples say more (docs/engines.md).", engine.description, difference.compared
        )  # fmt: skip
    return difference


def _spec(network: Any, name: str) -> TensorSpec:
    kind = network.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise ModelError(
            f"Tensor '{name}' has type {kind}; expected one of {', '.join(_DTYPES)}. Export the "
            "model again."
        )
    shape = tuple(None if size < 0 else int(size) for size in network.get_tensor_shape(name))
    return TensorSpec(name, shape, np.dtype(_DTYPES[kind]))


def _output_shape(context: Any, spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple(int(size) for size in context.get_tensor_shape(spec.name))
    if any(size < 0 for size in shape):
        raise ModelError(
            f"Output '{spec.name}' has shape {list(shape)}: its size depends on the values. "
            "Expected sizes that follow from the inputs' shapes. Export the model again."
        )
    return shape
