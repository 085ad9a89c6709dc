"""Crops whose truth is known in closed form: one sphere before a wall, as a data set of crops."""

from typing import Any

import numpy as np

from heatnet_ros.datasets.crop_cache import DEPTH_STEP_M
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.symmetry import NO_SYMMETRY
from heatnet_ros.objects import ObjectModel

SIZE, RADIUS_M, WALL_M = 160, 0.05, 1.0
K = np.array([[600.0, 0, 79.5], [0, 600.0, 79.5], [0, 0, 1]])


def sphere_model(name: str = "ball") -> ObjectModel:
    directions = np.array(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float
    )
    surface = np.hstack([directions * RADIUS_M, directions])
    bounds = np.array([[-RADIUS_M] * 3, [RADIUS_M] * 3])
    keypoints = directions * RADIUS_M
    return ObjectModel(name, 2 * RADIUS_M, bounds, keypoints, surface, NO_SYMMETRY, None, "m")


def make_crops(count: int = 4, masks: bool = True, seed: int = 0) -> dict[str, Any]:
    """Spheres at about 0.7 m, turned and shifted at random, each of a colour of its own."""
    rng = np.random.default_rng(seed)
    rows = [_crop(rng, i) for i in range(count)]
    crops = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    if not masks:
        del crops["mask"]
    return crops


def _crop(rng: np.random.Generator, i: int) -> dict[str, Any]:
    T = np.eye(4)
    T[:3, :3] = se3.exp_so3(rng.normal(size=3))
    center = np.array([rng.uniform(-0.01, 0.01), rng.uniform(-0.01, 0.01), 0.7])
    T[:3, 3] = center
    ys, xs = np.mgrid[:SIZE, :SIZE]
    rays = np.stack([(xs - K[0, 2]) / K[0, 0], (ys - K[1, 2]) / K[1, 1], np.ones(xs.shape)], -1)
    a, b = (rays**2).sum(-1), rays @ center
    inside = b**2 - a * (center @ center - RADIUS_M**2)
    mask = inside > 0
    depth_m = np.where(mask, (b - np.sqrt(np.maximum(inside, 0))) / a, WALL_M)
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    rgb = np.full((SIZE, SIZE, 3), 128, np.uint8)
    rgb[mask] = (20 + 40 * (i % 6), 200, 30)
    return {
        "rgb": rgb,
        "depth": np.rint(depth_m / DEPTH_STEP_M).astype(np.uint16),
        "mask": mask.astype(np.uint8),
        "keypoints": project(se3.transform(T, sphere_model().keypoints_m), K).astype(np.float32),
        "object": np.int64(0),
        "T_camera_object": T,
        "K": K,
        "box": np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32),
    }
