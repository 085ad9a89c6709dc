"""The published networks with random weights: what they cost does not depend on what they know.

``python -m heatnet_ros.training.untrained --objects config/objects/linemod.yaml --out runs/bench``
writes ``full_yolo`` and ``full_heatnet``, model folders that ``bench`` measures where no trained
networks of that size are at hand. Their manifests say that nothing was trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.training.heatnet import DeployedHeatNet, HeatNet, HeatNetConfig
from heatnet_ros.training.model_folder import write_model_folder
from heatnet_ros.training.onnx_graph import build_onnx, fuse_batchnorm, store_weights_as_fp16
from heatnet_ros.training.yolo import DeployedYolo, build_yolo

DETECTOR, ESTIMATOR = "full_yolo", "full_heatnet"
YOLO_SIZE = "m"
# an image of 640x480 at its own size
YOLO_HW = (480, 640)
MARGIN = 1.3
_UNTRAINED = {"samples_seen": 0, "command": "none: random weights, to measure time only"}


def build_full_yolo(library: ObjectLibrary) -> torch.nn.Module:
    """YOLOv10m for these objects, as it is used: uint8 image in, detections out."""
    torch.manual_seed(0)
    model: Any = build_yolo(len(library.objects), YOLO_SIZE, 1)
    return DeployedYolo(model.eval()).eval()


def build_full_heatnet(library: ObjectLibrary, rgbd: bool) -> torch.nn.Module:
    """The published HeatNet for these objects (paper 3.5, 3.7)."""
    torch.manual_seed(0)
    keypoints = len(next(iter(library.objects.values())).keypoints_m)
    config = HeatNetConfig(len(library.objects), keypoints, rgbd)
    return DeployedHeatNet(HeatNet(config)).eval()


def write_untrained(library: ObjectLibrary, out: Path, rgbd: bool = True) -> tuple[Path, Path]:
    """Both model folders, detector and estimator. Raises DataError when they cannot be written."""
    names = list(library.objects)
    detector: Any = build_full_yolo(library)
    detector.model.fuse(verbose=False)
    detector.model.model[-1].export = True
    # anchors become constants of the graph
    detector.model.model[-1].format = "onnx"
    image = {"image": torch.zeros(1, *YOLO_HW, 3, dtype=torch.uint8)}
    common: dict[str, Any] = {"training": _UNTRAINED, "accuracy": {}}
    entries = {
        "estimator": "yolo", "objects": names, "objects_hash": "", "input_hw": list(YOLO_HW),
        "stride": 0, "keypoints": 0, "crop_margin": 1.0,
        "inputs": {"image": "image"}, "outputs": {"detections": "detections"}, **common,
    }  # fmt: skip
    _write(out / DETECTOR, detector, image, ("detections",), False, entries)
    network: Any = build_full_heatnet(library, rgbd)
    config = network.net.config
    inputs = {
        "rgb": torch.zeros(2, config.crop_px, config.crop_px, 3, dtype=torch.uint8),
        "object_index": torch.zeros(2, dtype=torch.int64),
    }
    if rgbd:
        inputs["depth"] = torch.zeros(2, 2, config.crop_px, config.crop_px)
    entries = {
        "estimator": "heatnet", "objects": names, "objects_hash": library.keypoints_hash(names),
        "input_hw": [config.crop_px] * 2, "stride": config.stride, "keypoints": config.keypoints,
        "crop_margin": MARGIN, "inputs": {key: key for key in inputs},
        "outputs": {"heatmaps": "heatmaps"}, **common,
    }  # fmt: skip
    _write(out / ESTIMATOR, network, inputs, ("heatmaps",), True, entries)
    return out / DETECTOR, out / ESTIMATOR


def _write(
    folder: Path,
    network: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: tuple[str, ...],
    batched: bool,
    entries: dict[str, Any],
) -> None:
    fused = fuse_batchnorm(network, inputs)
    with torch.no_grad():  # anchors are made in the first run
        fused(**inputs)
    model = build_onnx(fused, inputs, outputs, dynamic=batched)
    store_weights_as_fp16(model)
    write_model_folder(folder, model.SerializeToString(), entries)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=Path, required=True, help="object library")
    parser.add_argument("--out", type=Path, required=True, help="folder for both model folders")
    parser.add_argument("--rgb", action="store_true", help="HeatNet without depth")
    args = parser.parse_args(arguments)
    for folder in write_untrained(load_objects(args.objects), args.out, not args.rgb):
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
