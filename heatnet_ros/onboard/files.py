"""The files that steps read: scenes, trainings, and the node's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros.datasets.statistics import ViewStatistics, measure_views
from heatnet_ros.files import write_whole
from heatnet_ros.machine import count_cores
from heatnet_ros.onboard.budget import IMAGES_PER_SCENE, Plan
from heatnet_ros.onboard.check import ONE_COLOR, CheckedObject
from heatnet_ros.onboard.options import Options, Places

DEFAULT_CAMERA = (615.0, 615.0, 319.5, 239.5, 640, 480)
NEAR_DIAMETERS, FAR_DIAMETERS = 2.5, 7.0
NEAREST_M, FAR_M, FARTHEST_M = 0.25, 1.5, 9.9
# a farther object has too few pixels for a pose
SMALLEST_PX = 40
HELD_OUT_SHARDS = 1
MOST_LOADERS = 8
# the sensor's noise is in the images already; a training adds some to it
_AUGMENT = {
    "rotate_deg": 30.0, "zoom": 0.15, "box_noise": 0.05, "sensor": 0.7, "depth_sensor": 0.0,
    "hue": 0.04, "contrast": 0.2, "cutout": 0.3,
}  # fmt: skip
# nothing is known about the real colours of a mesh without any
_AUGMENT_UNCOLORED = {"hue": 0.15, "gray": 0.2, "contrast": 0.3}
_UNBOUNDED = 1_000_000_000

# of detections: a short training is unsure of much that it sees; what is no object the gate rejects
# (13 LINEMOD objects, held-out renders: 90 instead of 85 of 100 objects found, with the default)
SCORE_THRESHOLD = 0.1


@dataclasses.dataclass(frozen=True)
class Views:
    """Camera (fx, fy, cx, cy, width, height), ranges of distance and elevation, and remarks."""

    camera: tuple[float, ...]
    distance_m: tuple[float, float]
    elevation_deg: tuple[float, float]
    remarks: tuple[str, ...]


def choose_views(options: Options, objects: Sequence[CheckedObject]) -> Views:
    """Where the camera may stand. Raises as ``measure_views`` does."""
    remarks = []
    like: ViewStatistics | None = None
    if options.like:
        folder, _, split = options.like.partition(":")
        like = measure_views(Path(folder), split or "test")
        remarks.append(f"camera, distances and elevations like {options.like}")
    camera = options.camera or (like.camera if like else DEFAULT_CAMERA)
    distance = options.distance_m or (like.distance_m if like else choose_distance(objects))
    smallest = min(objects, key=lambda item: item.diameter_m)
    pixels = camera[0] * smallest.diameter_m / distance[1]
    if pixels < SMALLEST_PX:
        remarks.append(
            f"{smallest.name} is only {pixels:.0f} pixels large at {distance[1]:g} m, expected at "
            f"least {SMALLEST_PX}: poses will be poor there (--distance, or a camera of more "
            "pixels)"
        )
    elevation = like.elevation_deg if like else (18.0, 75.0)
    return Views(tuple(camera), distance, elevation, tuple(remarks))


def choose_distance(objects: Sequence[CheckedObject]) -> tuple[float, float]:
    """From 2.5 diameters of the largest object to 7 of the mean one, usually up to 1.5 m."""
    diameters = [item.diameter_m for item in objects]
    mean_m = sum(diameters) / len(diameters)
    near = max(NEAREST_M, NEAR_DIAMETERS * max(diameters))
    far = max(1.6 * near, min(FAR_M, FAR_DIAMETERS * mean_m))
    far = min(far, FARTHEST_M)
    return round(min(near, 0.7 * far), 3), round(far, 3)


def write_scenes_file(options: Options, objects: Sequence[CheckedObject], places: Places) -> Views:
    """What ``synthesize`` renders. Raises DataError when it cannot be written."""
    views = choose_views(options, objects)
    count = len(objects)
    mean_m = sum(item.diameter_m for item in objects) / count
    uncolored = any(item.colors == ONE_COLOR for item in objects)
    content = {
        "objects_file": str(places.library),
        "camera": list(views.camera),
        "images_per_scene": IMAGES_PER_SCENE,
        "cameras_per_layout": 2,
        "settings": {
            "objects": [min(count, 3), min(count, 5)],
            "distractors": [0, 5],
            "spread_m": round(min(max(1.7 * mean_m, 0.1), 3.0), 3),
            "aim_m": round(0.7 * mean_m, 3),
            "distance_m": list(views.distance_m),
            "elevation_deg": list(views.elevation_deg),
            "roll_deg": 15.0,
            "color_jitter": 0.5 if uncolored else 0.2,
            "light_range": [0.4, 1.2],
            "poses": options.poses,
        },
    }
    _write_yaml(places.scenes_file, content, "Scenes of the rendering (python -m heatnet_ros "
                "synthesize).")  # fmt: skip
    return views


def training_content(
    network: str, options: Options, objects: Sequence[CheckedObject], places: Places, plan: Plan
) -> dict[str, Any]:
    """A training file's keys for ``yolo`` or ``heatnet``."""
    minutes = plan.yolo_minutes if network == "yolo" else plan.heatnet_minutes
    uncolored = any(item.colors == ONE_COLOR for item in objects)
    content: dict[str, Any] = {
        "network": network,
        "objects_file": str(places.library),
        "data": str(places.data),
        "validation_shards": HELD_OUT_SHARDS,
        "samples": plan.samples or _UNBOUNDED,
        "minutes": minutes,
        "workers": choose_loaders(),
        "seed": options.seed,
    }
    if network == "yolo":
        hue = _AUGMENT_UNCOLORED["hue"] if uncolored else _AUGMENT["hue"]
        return content | {"size": plan.detector_size, "hue": hue}
    return content | {
        "preset": "lite",
        "width": plan.width,
        "rgbd": not options.rgb,
        "stem": "light",
        "batch": 32,
        "optimizer": "muon",
        "learning_rate": 0.002,
        "init": "".join(options.init),
        "augment": _AUGMENT | (_AUGMENT_UNCOLORED if uncolored else {}),
    }


def choose_loaders() -> int:
    """Processes that make a training's batches: half of the cores this process may use, up to 8.

    One does not keep a GPU busy; the batches do not depend on their number.
    """
    # the calibration writes training files, so it imports this module

    return max(1, min(MOST_LOADERS, count_cores() // 2))


def write_training_file(path: Path, content: dict[str, Any]) -> None:
    """Raises DataError when it cannot be written."""
    _write_yaml(path, content, "Written by `onboard`; python -m heatnet_ros train --config.")


def write_params_file(places: Places) -> None:
    """What the node, ``predict`` and ``evaluate`` read. Raises DataError."""
    parameters = {
        "objects_file": str(places.library),
        "detector": {
            "model": str(places.model("yolo")),
            "score_threshold": SCORE_THRESHOLD,
        },
        "estimator": {"model": str(places.model("heatnet"))},
    }
    comment = (
        f"Parameters of pose_node for {places.name}, written by `onboard`. `ros2 param describe "
        "/pose_node NAME`\n# explains every option and its default."
    )
    _write_yaml(places.params, {"/**": {"ros__parameters": parameters}}, comment)


def _write_yaml(path: Path, content: dict[str, Any], comment: str) -> None:
    text = f"# {comment}\n" + yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    write_whole(path, text)
