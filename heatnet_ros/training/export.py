"""Checkpoint -> ONNX + manifest, checked against the network: what differs is refused.

``python -m heatnet_ros export --run runs/X --out models/Y``. Weights are rounded to float16 first
(half the file; ``--weights fp32`` keeps them); the rounded network, computed by PyTorch in float32,
is the reference of everything that follows, and what the rounding costs is measured by itself.
The file must agree with the reference on every float32 backend; what lossy arithmetic costs (bf16,
``--precision fp16``) is measured, bounded and written into the manifest as a loss. A network that
does not bear bf16 is exported all the same; the manifest then keeps the node from using it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from heatnet_ros.config import EngineConfig, build_config
from heatnet_ros.engines import Engine, load_engine
from heatnet_ros.errors import ModelError
from heatnet_ros.files import write_whole
from heatnet_ros.machine import describe_commit
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.training import parity
from heatnet_ros.training.checkpoint import load_checkpoint
from heatnet_ros.training.crops import load_crops
from heatnet_ros.training.evaluate_heatnet import evaluate_crops
from heatnet_ros.training.export_samples import (
    held_out_crops,
    held_out_frames,
    keep_samples,
)
from heatnet_ros.training.frames import index_boxes, load_frames
from heatnet_ros.training.heatnet import DeployedHeatNet, HeatNet, HeatNetConfig
from heatnet_ros.training.model_folder import ROOM_FOR_MODEL, staging_folder, write_model_folder
from heatnet_ros.training.onnx_graph import (
    HalfCompute,
    HalfDetector,
    build_onnx,
    fuse_batchnorm,
    round_weights,
    store_weights_as_fp16,
)
from heatnet_ros.training.real_samples import (
    CropShape,
    RealImages,
    Sample,
    real_crops,
    real_frames,
)
from heatnet_ros.training.train_heatnet import TrainConfig
from heatnet_ros.training.train_yolo import UPDATES, YoloTrainConfig, evaluate_frames
from heatnet_ros.training.trained_objects import check_trained_objects, describe_objects
from heatnet_ros.training.yolo import DeployedYolo, build_yolo

BACKENDS = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "auto"))
BATCH = 8
STATE_KEYS = ("net", "config", "command", "commit", "seen")

Outputs = dict[str, np.ndarray]
Compare = Callable[[Sequence[Outputs], Sequence[Outputs]], dict[str, float]]


@dataclass(frozen=True)
class ExportOptions:
    """precision: arithmetic of the graph. weights: how they are stored. images: real ones.

    input_hw: a detector's input in pixels, None for the training's. samples: how many of the inputs
    that were compared stay in the model folder.
    """

    precision: str = "fp32"
    weights: str = "fp16"
    images: RealImages | None = None
    input_hw: tuple[int, int] | None = None
    samples: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network about to be exported, and how its answers are judged.

    trained: as the checkpoint has it. shipped: fused and rounded, computing in float32. graph: what
    the file contains. batched: the file takes several samples at once. losses: by precision.
    """

    trained: nn.Module
    shipped: nn.Module
    graph: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    batched: bool
    samples: Sequence[Sample]
    compare: Compare
    parity: parity.Limits
    losses: Mapping[str, parity.Limits]
    entries: dict[str, Any]


def export(run: Path, out: Path, options: ExportOptions | None = None) -> Path:
    """Export ``run/final.pt`` (or its checkpoint) to the model folder ``out``.

    Returns the ONNX file's path. Raises ModelError when the run has no checkpoint, a checkpoint is
    not this package's or was trained for other objects than its library now defines, or the file
    differs from the network; DataError when data is missing or
    the disk is full. ``out`` then is as it was.
    """
    options = options or ExportOptions()
    source = run / "final.pt" if (run / "final.pt").exists() else run / "checkpoint.pt"
    if not source.exists():
        raise ModelError(f"Run {run} has neither final.pt nor checkpoint.pt. Train it first.")
    state = load_checkpoint(source, STATE_KEYS)
    library = load_objects(Path(str(state["config"].get("objects_file", ""))))
    is_heatnet = "network" in state
    expected = describe_objects(library, keypoints=is_heatnet)
    check_trained_objects(state, expected, source, str(library.path))
    progress = Progress("export", 3 + len(BACKENDS))
    candidate = (build_heatnet if is_heatnet else build_detector)(state, library, options)
    progress.step("network, data and accuracy on held-out data")
    with staging_folder(out) as folder:
        draft = folder / "model.onnx"
        model = build_onnx(
            candidate.graph, candidate.inputs, candidate.outputs, dynamic=candidate.batched
        )
        if options.weights == "fp16":
            store_weights_as_fp16(model)
        onnx.checker.check_model(model)
        write_whole(draft, model.SerializeToString(), ROOM_FOR_MODEL)
        progress.step("graph")
        measured = check(candidate, draft, options, progress)
        entries = candidate.entries
        entries["accuracy"] |= measured
        entries["bf16"] = _bears_bf16(measured)
        entries["training"] = _provenance(state, source, run, out, options)
        path = write_model_folder(out, draft.read_bytes(), entries)
    print(f"{out}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    if options.samples:
        kept = keep_samples(out, candidate.samples, options.samples)
        print(f"{kept}: {kept.stat().st_size / 1e6:.1f} MB", flush=True)
    for title, values in measured.items():
        print(f"  {title}: {values}", flush=True)
    return path


def build_heatnet(
    state: dict[str, Any], library: ObjectLibrary, options: ExportOptions
) -> Candidate:
    """HeatNet, the crops to compare on and the manifest's entries."""
    if options.input_hw is not None:
        raise ModelError(
            "--input-size is a detector's; HeatNet's crops have the size that it was trained with. "
            "Leave it out."
        )
    config = build_config(TrainConfig, state["config"], "checkpoint")
    try:
        net = HeatNet(HeatNetConfig(**state["network"]))
        net.load_state_dict(state["net"])
    except (RuntimeError, TypeError, KeyError) as error:
        raise _foreign(error) from error
    size, stride = net.config.crop_px, net.config.stride
    inputs = {
        "rgb": torch.randint(0, 255, (2, size, size, 3), dtype=torch.uint8),
        "object_index": torch.zeros(2, dtype=torch.int64),
    }
    if net.config.rgbd:
        inputs["depth"] = torch.rand(2, 2, size, size)
    trained = DeployedHeatNet(net).eval()
    shipped = fuse_batchnorm(trained, inputs)
    graph = _finish(shipped, shipped.net, HalfCompute, options)
    crops = load_crops(Path(config.data), 0, config.validation_shards)
    samples = held_out_crops(crops, library, net.config, config.margin)
    if options.images is not None:
        shape = CropShape(size, net.config.rgbd, config.margin)
        samples += real_crops(options.images, library, shape)
    outputs = ("heatmaps", "confidence")[: _count_outputs(shipped, inputs)]
    accuracy = evaluate_crops(shipped.net, crops, library, config.margin)
    shipped.eval()
    return Candidate(
        trained, shipped, graph, inputs, outputs, True, samples,
        lambda a, b: parity.compare_keypoints(a, b, samples, stride),
        parity.PARITY, parity.LOSS,
        {
            "estimator": "heatnet",
            "objects": state["objects"],
            "objects_hash": state["objects_hash"],
            "input_hw": [size, size],
            "stride": stride,
            "keypoints": net.config.keypoints,
            "crop_margin": float(config.margin),
            "inputs": {key: key for key in inputs},
            "outputs": {key: key for key in outputs},
            "accuracy": {"held_out_crops_pnp_only": accuracy},
        },
    )  # fmt: skip


def build_detector(
    state: dict[str, Any], library: ObjectLibrary, options: ExportOptions
) -> Candidate:
    """YOLOv10, the frames to compare on and the manifest's entries."""
    config = build_config(YoloTrainConfig, state["config"], "checkpoint")
    names = list(library.objects)
    model = build_yolo(len(names), config.size, UPDATES)
    try:
        model.load_state_dict(state["net"])
        height, width = state["input_hw"]
    except (RuntimeError, TypeError, KeyError) as error:
        raise _foreign(error) from error
    data = index_boxes(load_frames(Path(config.data), 0, config.validation_shards))
    accuracy = evaluate_frames(model, data)
    model = model.eval().fuse(verbose=False)
    model.model[-1].export = True
    height, width = options.input_hw or (height, width)
    # the mode without a dynamic input: anchors become constants of the graph
    model.model[-1].format = "onnx"
    trained = DeployedYolo(model).eval()
    inputs = {"image": torch.zeros(1, height, width, 3, dtype=torch.uint8)}
    shipped = fuse_batchnorm(trained, inputs)
    graph = _finish(shipped, shipped.model, HalfDetector, options)
    with torch.no_grad():  # anchors are made in the first run, in the run's type
        graph(**inputs)
    samples = held_out_frames(data, (height, width))
    if options.images is not None:
        samples += real_frames(options.images, (height, width))
    return Candidate(
        trained, shipped, graph, inputs, ("detections",), False, samples,
        parity.compare_boxes, parity.BOX_PARITY, parity.BOX_LOSS,
        {
            "estimator": "yolo",
            "objects": names,
            "objects_hash": "",
            "input_hw": [height, width],
            "stride": 0,
            "keypoints": 0,
            "crop_margin": 1.0,
            "inputs": {"image": "image"},
            "outputs": {"detections": "detections"},
            "accuracy": {"held_out_frames": accuracy},
        },
    )  # fmt: skip


def check(
    candidate: Candidate, path: Path, options: ExportOptions, progress: Progress
) -> dict[str, Any]:
    """Measure rounding, parity and losses; the manifest's entries. Raises ModelError."""
    expected = run_module(candidate.shipped, candidate)
    itself = candidate.compare(expected, expected)
    compared = parity.count_compared(itself, len(expected), refuse=options.images is not None)
    origins = Counter(sample.origin for sample in candidate.samples)
    result: dict[str, Any] = {
        "compared_samples": dict(origins),
        "parity": {"limits": _told(candidate.parity), "compared": compared},
        "precision_loss": {},
    }
    if options.weights == "fp16":
        found = candidate.compare(run_module(candidate.trained, candidate), expected)
        limits = candidate.losses["rounding"]
        parity.require(found, limits, "Rounding the weights to float16", "Try --weights fp32.")
        result["rounding"] = {"limits": _told(limits), **parity.tell(found)}
    if options.precision == "fp16":
        _judge_loss(candidate, expected, run_module(candidate.graph, candidate), "fp16",
                    "PyTorch CPU fp16", result)  # fmt: skip
    progress.step("reference")
    seen: set[str] = set()
    for backend, precision in BACKENDS:
        engine = load_engine(path, EngineConfig(backend, precision, device="cpu"))
        name, arithmetic = engine.description, engine.description.split()[-1]
        progress.step(name)
        if name in seen:  # auto is what was asked for by name already
            continue
        seen.add(name)
        got = run_engine(engine, candidate)
        if options.precision == "fp16" or arithmetic != "fp32":
            kind = arithmetic if arithmetic != "fp32" else "fp16"
            label = f"{name}, fp16 file" if options.precision == "fp16" else name
            # nobody asked for bf16: the manifest forbids it instead
            _judge_loss(candidate, expected, got, kind, label, result, kind == "bf16")
            continue
        found = candidate.compare(expected, got)
        remedy = "The backend or the exporter computes something else; report it with both versions"
        parity.require(found, candidate.parity, f"Parity of {path.name} on {name}", f"{remedy}.")
        result["parity"][name] = parity.tell(found)
    return result


def _judge_loss(
    candidate: Candidate, expected: Sequence[Outputs], got: Sequence[Outputs], kind: str,
    label: str, result: dict[str, Any], may_fail: bool = False,
) -> None:  # fmt: skip
    found, limits = candidate.compare(expected, got), candidate.losses[kind]
    if not may_fail:
        remedy = f"The network does not bear {kind}; use fp32."
        parity.require(found, limits, f"Precision of {label}", remedy)
    result["precision_loss"][label] = {
        "limits": _told(limits), "over": parity.find_excess(found, limits), **parity.tell(found)
    }  # fmt: skip


def _bears_bf16(measured: dict[str, Any]) -> bool:
    """Whether bf16 was measured and kept its limits."""
    losses = [loss for name, loss in measured["precision_loss"].items() if "bf16" in name]
    return bool(losses) and not any(loss["over"] for loss in losses)


def run_module(module: nn.Module, candidate: Candidate) -> list[Outputs]:
    """The module's answers to each sample, by PyTorch."""
    answers = []
    with torch.no_grad():
        for sample in candidate.samples:
            tensors = {key: torch.from_numpy(value) for key, value in sample.feed.items()}
            values = module(**tensors)
            values = values if isinstance(values, tuple) else (values,)
            named = zip(candidate.outputs, values, strict=True)
            answers.append({name: value.float().numpy() for name, value in named})
    return answers


def run_engine(engine: Engine, candidate: Candidate) -> list[Outputs]:
    """The file's answers to each sample; in batches, the last one smaller, where it takes them."""
    lost = set(candidate.outputs) - {spec.name for spec in engine.outputs}
    if lost:
        raise ModelError(
            f"{engine.description} gives {', '.join(map(str, engine.outputs))}, expected "
            f"{', '.join(candidate.outputs)}. Not exported: the node would not find its outputs. "
            "Use another version of the backend."
        )
    step = BATCH if candidate.batched else 1
    feeds = [sample.feed for sample in candidate.samples]
    answers: list[Outputs] = []
    for start in range(0, len(feeds), step):
        group = feeds[start : start + step]
        batch = {key: np.concatenate([feed[key] for feed in group]) for key in group[0]}
        values = engine.run(batch)
        answers += [
            {name: values[name][i : i + 1] for name in candidate.outputs} for i in range(len(group))
        ]
    return answers


def _finish(
    shipped: nn.Module, inner: nn.Module, half_kind: type[HalfCompute], options: ExportOptions
) -> nn.Module:
    """Round the shipped network as the options say; returns the module that the graph is of."""
    half = options.precision == "fp16"
    if half and options.weights != "fp16":
        raise ModelError("--precision fp16 stores float16 weights: leave --weights fp32 out.")
    if options.weights == "fp16":
        round_weights(shipped, everything=half)
    if not half:
        return shipped
    return type(shipped)(half_kind(inner)).eval()


def _count_outputs(module: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    with torch.no_grad():
        values = module(**inputs)
    return len(values) if isinstance(values, tuple) else 1


def _told(limits: parity.Limits) -> dict[str, float]:
    return {name: value for name, value in asdict(limits).items() if value is not None}


def _foreign(error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(
        f"The checkpoint's weights do not fit the network it describes: {' '.join(lines)[:300]}. "
        "It was written by another version or damaged; train again with this one."
    )


def _provenance(
    state: dict[str, Any], source: Path, run: Path, out: Path, options: ExportOptions
) -> dict[str, Any]:
    command = f"python -m heatnet_ros export --run {run} --out {out}"
    command += f" --precision {options.precision} --weights {options.weights}"
    if options.images is not None:
        command += f" --images {options.images.dataset} --split {options.images.split}"
    if options.samples:
        command += f" --samples {options.samples}"
    if options.input_hw is not None:
        command += f" --input-size {options.input_hw[1]}x{options.input_hw[0]}"
    return {
        "command": state["command"],
        "commit": state["commit"],
        "exported_by": command,
        "exported_at": describe_commit(),
        "samples_seen": int(state["seen"]),
        "checkpoint": source.name,
        "weights": f"stored as {options.weights}, computed in {options.precision}",
        "config": state["config"],
    }
