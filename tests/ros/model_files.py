"""Complete object and model files of a world: real ONNX networks that answer with the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes import DETECTOR_HW, INPUT_PX, MARGIN, MESHES, SIGMA, SIZE_HW, STRIDE, K, World, pose
from onnx_models import save_detector, save_heatnet, save_manifest

from heatnet_ros.estimators.heatnet import encode_heatmaps
from heatnet_ros.estimators.yolo import encode_detections
from heatnet_ros.geometry.camera import crop_around_box, fit_letterbox, project
from heatnet_ros.geometry.se3 import transform
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import describe_object, load_objects, save_objects

KEYPOINTS = 16
# one instance each: the network answers by object
TRUTH = (("wedge", pose(-0.15, 0.0, 0.8)), ("brick", pose(0.1, -0.1, 0.7)))
OBJECTS = [name for name, _ in TRUTH]


def write_files(folder: Path) -> dict[str, str]:
    """Write objects.yaml, detector/ and estimator/; returns the node's parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name in OBJECTS:
        path = folder / f"{name}.ply"
        write_ply(path, MESHES[name])
        entries.append(describe_object(name, path, "m", [], KEYPOINTS) | {"mesh": path.name})
    save_objects(folder / "objects.yaml", "two", entries)
    write_detector(folder / "detector")
    write_estimator(folder / "estimator", folder / "objects.yaml")
    return {
        "objects_file": str(folder / "objects.yaml"),
        "detector.model": str(folder / "detector"),
        "estimator.model": str(folder / "estimator"),
        "engine.backend": "onnxruntime",
        "engine.precision": "fp32",
    }


def write_detector(folder: Path, output: str = "output0") -> None:
    """``output``: what the manifest says; the network's output is output0."""
    folder.mkdir(exist_ok=True)
    letterbox = fit_letterbox(SIZE_HW, DETECTOR_HW)
    rows = encode_detections(World(*TRUTH).detections(), letterbox, OBJECTS, 8)
    path = save_detector(folder / "network.onnx", rows, DETECTOR_HW)
    save_manifest(
        folder, path, estimator="yolo", input_hw=list(DETECTOR_HW), objects=OBJECTS,
        inputs={"image": "images"}, outputs={"detections": output},
    )  # fmt: skip


def write_estimator(folder: Path, objects: Path) -> None:
    folder.mkdir(exist_ok=True)
    library, maps = load_objects(objects), []
    for (name, T), seen in zip(TRUTH, World(*TRUTH).detections(), strict=True):
        pixels = project(transform(T, library[name].keypoints_m), K)
        points = crop_around_box(seen.bbox_xyxy_px, INPUT_PX, MARGIN).to_crop(pixels)
        maps.append(encode_heatmaps(points, (INPUT_PX // STRIDE,) * 2, STRIDE, SIGMA))
    path = save_heatnet(folder / "network.onnx", np.stack(maps), INPUT_PX)
    save_manifest(
        folder, path, estimator="heatnet", input_hw=[INPUT_PX, INPUT_PX], objects=OBJECTS,
        stride=STRIDE, keypoints=KEYPOINTS, crop_margin=MARGIN,
        objects_hash=library.keypoints_hash(OBJECTS), outputs={"heatmaps": "heatmaps"},
        inputs={"rgb": "rgb", "object_index": "object_index", "depth": "depth"},
    )  # fmt: skip
