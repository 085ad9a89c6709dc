"""Float model folder -> the same network with INT8 convolutions, if its answers stay the same.

``python -m heatnet_ros quantize --model models/X --dataset data/Y --out models/X_int8``.
The result is ONNX with QuantizeLinear and DequantizeLinear, calibrated by nncf on the data set's
crops (HeatNet) or frames (detector), and compared with the float network on others. Nothing here
needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from heatnet_ros.config import EngineConfig, load_yaml
from heatnet_ros.engines import load_engine
from heatnet_ros.engines.hidden import without_module
from heatnet_ros.errors import ConfigError, ModelError
from heatnet_ros.files import write_whole
from heatnet_ros.machine import describe_commit
from heatnet_ros.manifest import Manifest, check_objects, load_manifest
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.resources import find_resource
from heatnet_ros.training import parity
from heatnet_ros.training.model_folder import ROOM_FOR_MODEL, staging_folder, write_model_folder
from heatnet_ros.training.quantized_graph import (
    find_float_layers,
    fold_quantized_weights,
    is_quantized,
    unpack_weights,
)
from heatnet_ros.training.real_samples import (
    CropShape,
    RealImages,
    Sample,
    real_crops,
    real_frames,
)

CHECKED = 96  # samples that are compared, besides those that calibrate
# Not a pixel at the 99th percentile: linemod_heatnet_rgbd loses 4.7 px there and 0.1 points of
# recall (3175 objects), since RANSAC drops such keypoints. The percentile may reach RANSAC's
# threshold, and a pose from keypoints alone half of what ADD 0.1 d allows of small objects.
LIMITS = parity.Limits(p99_px=6.0, median_pose_mm=5.0)
# the detector's boxes are widened by 30 % before they are cut
BOX_LIMITS = parity.Limits(p99_px=4.0)


@dataclass(frozen=True)
class QuantizeOptions:
    """images: what calibrates and what is compared. objects: empty for the training's library.

    force: write the folder although the loss is over the limit.
    """

    images: RealImages
    samples: int = 300
    objects: str | None = None
    force: bool = False


def quantize(model: Path, out: Path, options: QuantizeOptions) -> Path:
    """Write the INT8 edition of the model folder ``model`` to ``out``; returns the network's path.

    Raises ModelError when the model is quantized already, nothing can be compared, or answers
    change by more than ``LIMITS`` allow; DataError when the data set does not show its objects.
    ``out`` then is as it was.
    """
    manifest = load_manifest(model)
    network = onnx.load(str(manifest.onnx_path))
    if is_quantized(network):
        raise ModelError(
            f"Model '{manifest.name}' is in INT8 already. Quantize the float model that it was "
            "made from."
        )
    calibration, checked = _collect(manifest, options)
    progress = Progress("quantize", 3)
    progress.step(f"{len(calibration)} samples to calibrate, {len(checked)} to compare")
    quantized = _calibrate(network, manifest, calibration)
    progress.step("calibration")
    content = quantized.SerializeToString()
    with staging_folder(out) as folder:
        draft = folder / "model.onnx"
        write_whole(draft, content, ROOM_FOR_MODEL)
        precision = _choose_rest(manifest, draft)
        found = _compare(manifest, draft, precision, checked)
    progress.step("comparison")
    limits = BOX_LIMITS if manifest.estimator == "yolo" else LIMITS
    parity.count_compared(found, len(checked), refuse=not options.force)
    over = parity.find_excess(found, limits)
    if over and not options.force:
        raise ModelError(
            f"INT8 changes the answers of model '{manifest.name}' too much: {over}; found "
            f"{parity.tell(found)}. Nothing was written. Stay with the float model, calibrate on "
            "more images of your camera, or give --force and measure with evaluate."
        )
    entries = _describe(manifest, model, out, options, len(calibration), len(checked))
    entries["bf16"] = precision == "auto"
    entries["accuracy"]["int8"]["loss"] = {"over": over, **parity.tell(found)}
    path = write_model_folder(out, content, entries)
    print(f"{out}: {path.stat().st_size / 1e6:.1f} MB, {parity.tell(found)}", flush=True)
    return path


def _collect(
    manifest: Manifest, options: QuantizeOptions
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Samples that calibrate and samples that are compared, both from all over the split."""
    wanted = options.samples + CHECKED
    found: Sequence[Sample]
    if manifest.estimator == "yolo":
        found = real_frames(options.images, manifest.input_hw, wanted)
    else:
        library = _find_library(manifest, options.objects)
        shape = CropShape(manifest.input_hw[0], "depth" in manifest.inputs, manifest.crop_margin)
        found = real_crops(options.images, library, shape, wanted)
    if len(found) < 2:
        raise ModelError(
            f"{options.images.dataset / options.images.split} gives {len(found)} samples, expected "
            "at least one to calibrate and one to compare. Give a larger data set."
        )
    # of few samples a quarter is compared
    count = min(CHECKED, max(1, len(found) // 4))
    picked = set(np.linspace(0, len(found) - 1, count).round().astype(int).tolist())
    checked = [sample for i, sample in enumerate(found) if i in picked]
    return [sample for i, sample in enumerate(found) if i not in picked], checked


def _find_library(manifest: Manifest, objects: str | None) -> ObjectLibrary:
    """The library the model was trained with, checked."""
    name = objects or manifest.training.get("config", {}).get("objects_file")
    if not name:
        raise ConfigError(
            f"The manifest of model '{manifest.name}' does not name its object library. Give it "
            "with --objects."
        )
    library = load_objects(find_resource(name, "Object library"))
    check_objects(manifest, library)
    return library


def _calibrate(
    network: onnx.ModelProto, manifest: Manifest, samples: Sequence[Sample]
) -> onnx.ModelProto:
    # before nncf imports OpenVINO by itself
    from heatnet_ros.engines import openvino_package  # noqa: F401

    # takes seconds, and its libraries and OpenVINO's in one process have crashed
    with without_module("torch"):
        import nncf

    unpack_weights(network)
    dataset = nncf.Dataset(samples, lambda sample: _name_tensors(manifest, sample))
    quantized = nncf.quantize(
        network,
        dataset,
        # activations are rarely symmetric: SiLU's are not, and the encoded depth is not
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=True,
        # nncf's graph lacks the nodes that compute shapes
        ignored_scope=nncf.IgnoredScope(names=find_float_layers(network), validate=False),
    )
    fold_quantized_weights(quantized)
    onnx.checker.check_model(quantized)
    return quantized


def _name_tensors(manifest: Manifest, sample: Sample) -> dict[str, np.ndarray]:
    return {manifest.inputs[role]: array for role, array in sample.feed.items()}


def _choose_rest(manifest: Manifest, draft: Path) -> str:
    """The precision of what stays float: OpenVINO 2026.4 refuses some networks beside bf16."""
    if not manifest.bf16:
        return "fp32"
    try:
        load_engine(draft, EngineConfig(backend="openvino"))
    except ModelError:
        return "fp32"
    return "auto"


def _compare(
    manifest: Manifest, draft: Path, precision: str, samples: Sequence[Sample]
) -> dict[str, float]:
    """Differences of the draft's answers, as the node would run it, from float32's."""
    config = EngineConfig(backend="openvino", precision="fp32")
    running = replace(config, precision=precision)
    answers = []
    for path, engine_config in ((manifest.onnx_path, config), (draft, running)):
        engine = load_engine(path, engine_config)
        outputs = [engine.run(_name_tensors(manifest, sample)) for sample in samples]
        answers.append(
            [{role: o[name] for role, name in manifest.outputs.items()} for o in outputs]
        )
    expected, got = answers
    if manifest.estimator == "yolo":
        return parity.compare_boxes(expected, got)
    return parity.compare_keypoints(expected, got, samples, manifest.stride)


def _describe(
    manifest: Manifest,
    model: Path,
    out: Path,
    options: QuantizeOptions,
    calibrated: int,
    checked: int,
) -> dict[str, Any]:
    """The float model's entries, and what was done to it."""
    entries = load_yaml(model / "manifest.yaml", "Manifest")
    entries = {k: v for k, v in entries.items() if k not in ("onnx_file", "onnx_sha256")}
    images = options.images
    limits = BOX_LIMITS if manifest.estimator == "yolo" else LIMITS
    entries["accuracy"]["int8"] = {
        "calibration": {
            "dataset": str(images.dataset), "split": images.split, "samples": calibrated,
        },
        "compared_samples": checked,
        "limits": {k: v for k, v in asdict(limits).items() if v is not None},
    }  # fmt: skip
    entries["training"]["quantized_from"] = manifest.onnx_sha256
    entries["training"]["quantized_by"] = (
        f"python -m heatnet_ros quantize --model {model} --dataset {images.dataset} "
        f"--split {images.split} --out {out} --samples {options.samples}"
        + (f" --objects {options.objects}" if options.objects else "")
        + (" --force" if options.force else "")
    )
    entries["training"]["quantized_at"] = describe_commit()
    return entries
