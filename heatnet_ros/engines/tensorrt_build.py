"""ONNX file -> plan of TensorRT, for the GPU at hand.

Not run on hardware so far; docs/engines.md tells what was checked.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from heatnet_ros.engines import Check
from heatnet_ros.engines.batching import BATCHES, choose_shapes
from heatnet_ros.engines.cuda import Buffer, Gpu, copy_to
from heatnet_ros.errors import DataError, EngineError, ModelError
from heatnet_ros.files import write_whole

# what has no kernel in int8 runs in fp16
_FLAGS = {"fp32": (), "bf16": ("BF16",), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
_BF16_CAPABILITY = (8, 0)
_log = logging.getLogger(__name__)


def build_plan(
    onnx_path: Path, precision: str, check: Check | None, gpu: Gpu, log: Any, cache_folder: Path
) -> bytes:
    """Build the plan; minutes. INT8 is calibrated on the check's recorded samples.

    Raises EngineError when version, GPU or missing samples do not allow the precision or the
    build fails, ModelError when TensorRT cannot read the ONNX file.
    """
    _require_possible(precision, check, gpu)
    with gpu.active():
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(onnx_path)):
            reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise ModelError(
                f"TensorRT {trt.__version__} cannot load {onnx_path}: {reasons}. Restore the file, "
                "export the model again or set engine.backend to onnxruntime."
            )
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: TF32 has 10 bits of mantissa
        for flag in _FLAGS[precision]:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        _add_profile(builder, network, config)
        if precision == "int8" and check is not None:
            # held here: the builder only borrows it
            calibrator = _calibrate(check)
            config.int8_calibrator = calibrator
            config.set_calibration_profile(_profile(builder, network, (1, 1, 1)))
        # a name per version and GPU: timings of another are wrong here
        name = f"timing-{trt.__version__}-{gpu}".replace(" ", "_").replace("/", "_")
        timing_path = cache_folder / name
        _read_timings(config, timing_path)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(
                f"TensorRT {trt.__version__} could not build {onnx_path} in {precision}; its own "
                "message stands above. Set engine.precision to fp32 or engine.backend to "
                "onnxruntime."
            )
        _write_timings(config, timing_path)
        return bytes(plan)


def _require_possible(precision: str, check: Check | None, gpu: Gpu) -> None:
    missing = [flag for flag in _FLAGS[precision] if not hasattr(trt.BuilderFlag, flag)]
    if missing:
        raise EngineError(
            f"TensorRT {trt.__version__} cannot build in {precision}: from version 11 on the file "
            "alone says how it computes. Install 'tensorrt<11' or set engine.precision to fp32."
        )
    if precision == "bf16" and gpu.capability < _BF16_CAPABILITY:
        raise EngineError(
            f"engine.precision asks for bf16, which {gpu} does not compute in (8.0 or newer "
            "does). Set engine.precision to auto, fp16 or fp32."
        )
    if precision == "int8" and (check is None or not check.real):
        raise EngineError(
            "engine.precision asks for int8, which is calibrated on recorded samples; the model's "
            "folder has no calibration.npz. Record one (docs/engines.md) or set engine.precision "
            "to auto, fp16 or fp32."
        )


def _add_profile(builder: Any, network: Any, config: Any) -> None:
    """Sizes that the plan must serve, where the network leaves its batch open."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if all(-1 not in tuple(item.shape) for item in inputs):
        return
    config.add_optimization_profile(_profile(builder, network))


def _profile(builder: Any, network: Any, batches: tuple[int, ...] = BATCHES) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        item = network.get_input(i)
        profile.set_shape(item.name, *choose_shapes(item.name, tuple(item.shape), batches))
    return profile


def _calibrate(check: Check) -> Any:
    """What feeds the builder the samples, one by one, to measure the ranges of all layers."""

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self._samples = iter(check.samples)
            # they must live while the builder runs
            self._buffers = {
                name: Buffer(array.shape, array.dtype) for name, array in check.samples[0].items()
            }

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            sample = next(self._samples, None)
            if sample is None:
                return None
            for name in names:
                copy_to(self._buffers[name], np.ascontiguousarray(sample[name]))
            return [self._buffers[name].address for name in names]

        def read_calibration_cache(self) -> bytes | None:
            return None  # the plan's key has the samples' hash; an older calibration is another's

        def write_calibration_cache(self, cache: Any) -> None:
            pass

    return Calibrator()


def _read_timings(config: Any, path: Path) -> None:
    """Start from what earlier builds measured; a cache that does not fit is left out."""
    kept = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(kept)
    if not config.set_timing_cache(cache, False):  # of another version or GPU
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timings(config: Any, path: Path) -> None:
    try:
        write_whole(path, bytes(config.get_timing_cache().serialize()))
    except DataError as error:
        _log.warning("Timings are not kept, the next build takes as long: %s", error)
