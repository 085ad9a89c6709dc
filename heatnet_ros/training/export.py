"""Checkpoint -> ONNX + manifest, with a parity check: what differs from the network is refused.

``python -m heatnet_ros.training.export --run runs/demo_heatnet --out models/demo_heatnet_rgbd``.
Weights are stored as float16 and cast to float32 in the graph (half the file, any backend); the
check compares the file's decoded output on held-out crops, on every backend and precision that a
node may run, with the float32 network's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import numpy_helper

from heatnet_ros.config import EngineConfig, build_config
from heatnet_ros.engines import Engine, load_engine
from heatnet_ros.errors import ModelError
from heatnet_ros.estimators.heatnet import decode_heatmaps
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.training.crops import crop_sample, load_crops
from heatnet_ros.training.evaluate_heatnet import evaluate_crops
from heatnet_ros.training.frames import frame_sample, index_boxes, load_frames
from heatnet_ros.training.heatnet import DeployedHeatNet, HeatNet, HeatNetConfig
from heatnet_ros.training.loop import describe_commit
from heatnet_ros.training.train_heatnet import TrainConfig
from heatnet_ros.training.train_yolo import UPDATES, YoloTrainConfig, evaluate_frames
from heatnet_ros.training.yolo import DeployedYolo, build_yolo

OPSET = 17
# bfloat16 has 8 bits of mantissa; half a crop pixel is a tenth of the RANSAC threshold
MAX_KEYPOINT_PX = {"fp32": 0.1, "bf16": 0.5}
MAX_BOX_PX = {"fp32": 0.5, "bf16": 2.0}
# a flat heatmap's maximum is arbitrary: only keypoints that would be used are compared
USED_CONFIDENCE = 0.3


def export_heatnet(state: dict[str, Any], onnx_path: Path) -> dict[str, Any]:
    """Write the network; returns the manifest's entries. Raises ModelError when parity fails."""
    config = build_config(TrainConfig, state["config"], "checkpoint")
    net = HeatNet(HeatNetConfig(**state["network"]))
    net.load_state_dict(state["net"])
    deployed = DeployedHeatNet(net).eval()
    size = net.config.crop_px
    inputs = {
        "rgb": torch.randint(0, 255, (2, size, size, 3), dtype=torch.uint8),
        "object_index": torch.zeros(2, dtype=torch.int64),
    }
    if net.config.rgbd:
        inputs["depth"] = torch.zeros(2, 2, size, size)
    _write_onnx(deployed, inputs, "heatmaps", onnx_path, dynamic=True)
    library = load_objects(Path(config.objects_file))
    crops = load_crops(Path(config.data), 0, config.validation_shards)
    parity = check_heatnet(deployed, onnx_path, crops, library, config.margin)
    names = list(library.objects)
    return {
        "estimator": "heatnet",
        "objects": names,
        "objects_hash": library.keypoints_hash(names),
        "input_hw": [size, size],
        "stride": net.config.stride,
        "keypoints": net.config.keypoints,
        "crop_margin": float(config.margin),
        "inputs": {key: key for key in inputs},
        "outputs": {"heatmaps": "heatmaps"},
        "accuracy": {
            "held_out_crops_pnp_only": evaluate_crops(net, crops, library, config.margin),
            "parity_keypoint_px": parity,
        },
    }


def check_heatnet(
    deployed: DeployedHeatNet, path: Path, crops: dict[str, Any], library: ObjectLibrary,
    margin: float, count: int = 48,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Difference of used decoded keypoints from PyTorch's, crop pixels, per backend."""
    config = deployed.net.config
    rng = np.random.default_rng(0)
    diameters = [model.diameter_m for model in library.objects.values()]
    samples = []
    for i in range(min(count, len(crops["object"]))):
        rgb, depth, _, _ = crop_sample(
            crops, i, diameters, config.crop_px, margin, None, rng, config.rgbd
        )
        feed = {"rgb": rgb[None], "object_index": crops["object"][i : i + 1]}
        if config.rgbd:
            feed["depth"] = depth[None]
        with torch.no_grad():
            tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
            samples.append((feed, deployed(**tensors).numpy()))

    def differences(feed: dict[str, Any], expected: np.ndarray, engine: Engine) -> list[float]:
        a, confidence = decode_heatmaps(expected, config.stride, "dark")
        b, _ = decode_heatmaps(engine.run(feed)["heatmaps"], config.stride, "dark")
        used = confidence[0] > USED_CONFIDENCE
        return list(np.abs(a[0] - b[0]).max(axis=1)[used])

    return _compare(path, samples, differences, MAX_KEYPOINT_PX, "decoded keypoints")


def _compare(
    path: Path,
    samples: list[tuple[dict[str, Any], np.ndarray]],
    differences: Callable[[dict[str, Any], np.ndarray, Engine], list[float]],
    limits_px: dict[str, float],
    what: str,
) -> dict[str, dict[str, float]]:
    """Backend and precision -> p99 and largest difference from PyTorch, in pixels.

    Every backend that a node may run is asked, in the precision that it really takes. Raises
    ModelError when the 99th percentile is over the limit: where a heatmap has two equal peaks the
    last bit decides between them, however exact the arithmetic, and RANSAC deals with that.
    """
    found: dict[str, dict[str, float]] = {}
    for backend, precision in (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "auto")):
        engine = load_engine(path, EngineConfig(backend=backend, precision=precision))
        all_px = [d for feed, expected in samples for d in differences(feed, expected, engine)]
        p99, largest = float(np.percentile(all_px or [0.0], 99)), max(all_px, default=0.0)
        limit = limits_px[engine.description.split()[-1]]
        if not p99 <= limit:
            raise ModelError(
                f"Parity failed for {path.name} on {engine.description}: {what} differ by "
                f"{p99:.3f} pixels (99th percentile), allowed {limit}. Not exported."
            )
        found[engine.description] = {"p99": round(p99, 4), "max": round(float(largest), 4)}
    return found


def export_yolo(state: dict[str, Any], onnx_path: Path) -> dict[str, Any]:
    """Write the detector; returns the manifest's entries. Raises ModelError when parity fails."""
    config = build_config(YoloTrainConfig, state["config"], "checkpoint")
    library = load_objects(Path(config.objects_file))
    names = list(library.objects)
    model = build_yolo(len(names), config.size, UPDATES)
    model.load_state_dict(state["net"])
    data = index_boxes(load_frames(Path(config.data), 0, config.validation_shards))
    accuracy = evaluate_frames(model, data)
    model = model.eval().fuse(verbose=False)
    model.model[-1].export = True
    # the mode without a dynamic input: anchors become constants of the graph
    model.model[-1].format = "onnx"
    deployed = DeployedYolo(model).eval()
    height, width = state["input_hw"]
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    with torch.no_grad():
        deployed(image)
    _write_onnx(deployed, {"image": image}, "detections", onnx_path, dynamic=False)
    worst = check_yolo(deployed, onnx_path, data)
    return {
        "estimator": "yolo",
        "objects": names,
        "objects_hash": "",
        "input_hw": [height, width],
        "stride": 0,
        "keypoints": 0,
        "crop_margin": 1.0,
        "inputs": {"image": "image"},
        "outputs": {"detections": "detections"},
        "accuracy": {"held_out_frames": accuracy, "parity_box_px": worst},
    }


def check_yolo(
    deployed: Any, path: Path, data: dict[str, Any], count: int = 48
) -> dict[str, dict[str, float]]:
    """Difference of confident boxes from PyTorch's, input pixels, per backend."""
    samples = []
    for i in range(min(count, len(data["frames"]))):
        image = frame_sample(data, i, None, 0.0)[0][None]
        with torch.no_grad():
            samples.append(({"image": image}, deployed(torch.from_numpy(image)).numpy()[0]))

    def differences(feed: dict[str, Any], expected: np.ndarray, engine: Engine) -> list[float]:
        got, found = engine.run(feed)["detections"][0], []
        for row in expected[expected[:, 4] > 0.4]:
            same = got[got[:, 5] == row[5]]
            nearest = np.abs(same[:, :4] - row[:4]).max(axis=1).min() if len(same) else np.inf
            found.append(float(nearest))
        return found

    return _compare(path, samples, differences, MAX_BOX_PX, "boxes")


def _write_onnx(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], output: str, path: Path, dynamic: bool
) -> None:
    axes = {name: {0: "batch"} for name in [*inputs, output]} if dynamic else None
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        # the TorchScript exporter: one file, names as given, no further package needed
        torch.onnx.export(
            module, (), str(raw), kwargs=inputs, input_names=list(inputs), output_names=[output],
            opset_version=OPSET, dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
        model = onnx.load(str(raw))
    store_weights_as_fp16(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def store_weights_as_fp16(model: onnx.ModelProto) -> None:
    """Keep large float32 weights as float16 behind a Cast, which backends fold when loading."""
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < 256:
            continue
        name = tensor.name
        half = numpy_helper.from_array(array.astype(np.float16), name + "_fp16")
        tensor.CopyFrom(half)
        casts.append(
            onnx.helper.make_node("Cast", [name + "_fp16"], [name], to=onnx.TensorProto.FLOAT)
        )
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def export(run: Path, out: Path) -> None:
    """Export ``run/final.pt`` (or its checkpoint) to the model folder ``out``."""
    source = run / "final.pt" if (run / "final.pt").exists() else run / "checkpoint.pt"
    if not source.exists():
        raise ModelError(f"Run {run} has neither final.pt nor checkpoint.pt. Train it first.")
    state = torch.load(source, map_location="cpu", weights_only=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        part = Path(folder)
        onnx_path = part / "model.onnx"
        writer = export_heatnet if "network" in state else export_yolo
        entries = writer(state, onnx_path)
        entries["onnx_file"] = onnx_path.name
        entries["onnx_sha256"] = hashlib.sha256(onnx_path.read_bytes()).hexdigest()
        entries["training"] = {
            "command": state["command"],
            "commit": state["commit"],
            "exported_by": f"python -m heatnet_ros.training.export --run {run} --out {out}",
            "exported_at": describe_commit(),
            "samples_seen": int(state["seen"]),
            "checkpoint": source.name,
            "weights": "float16, computed in float32",
            "config": state["config"],
        }
        (part / "manifest.yaml").write_text(
            "# Written by heatnet_ros.training.export; do not edit.\n"
            + yaml.safe_dump(entries, sort_keys=False)
        )
        out.mkdir(parents=True, exist_ok=True)
        for name in ("model.onnx", "manifest.yaml"):
            shutil.copy2(part / name, out / (name + ".part"))
        for name in ("model.onnx", "manifest.yaml"):
            os.replace(out / (name + ".part"), out / name)
    size = (out / "model.onnx").stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, {entries['accuracy']}")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    args = parser.parse_args(arguments)
    export(args.run, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
