"""What a data set's images are like: camera, distances and elevations, for scenes that match it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.datasets.synthesize import SyntheticConfig
from heatnet_ros.errors import DataError

# room beyond what was seen: the next image of the set is not among those counted
WIDEN = 0.1


@dataclasses.dataclass(frozen=True)
class ViewStatistics:
    """camera: fx, fy, cx, cy, width, height of the first image; ranges are 1 to 99 per cent."""

    camera: tuple[float, float, float, float, int, int]
    distance_m: tuple[float, float]
    elevation_deg: tuple[float, float]


def measure_views(folder: Path, split: str) -> ViewStatistics:
    """Distances of the objects, and how high the camera stands over their z = 0 plane.

    Elevation is meant for objects that stand upright (z up); it is 90 straight from above. Raises
    DataError when the split has no poses or its first image cannot be read.
    """
    scenes = open_dataset(folder, split)
    truths = [t.T_camera_object for s in scenes for i in s.images for t in i.truths]
    if not truths:
        raise DataError(f"{folder / split} has no poses (scene_gt.json): nothing to measure.")
    poses = np.stack(truths)
    distance = np.linalg.norm(poses[:, :3, 3], axis=1)
    # the camera's place in the object's frame, R^T (0 - t), over its distance: sine of elevation
    height = -np.einsum("nij,ni->nj", poses[:, :3, :3], poses[:, :3, 3])[:, 2]
    elevation = np.degrees(np.arcsin(np.clip(height / distance, -1, 1)))
    first = scenes[0].images[0]
    image = cv2.imread(str(first.rgb_path))
    if image is None:
        raise DataError(f"Image {first.rgb_path} cannot be read. Is the folder complete?")
    (fx, _, cx), (_, fy, cy) = first.K[:2]
    low, high = np.percentile(distance, [1, 99])
    down, up = np.percentile(elevation, [1, 99])
    return ViewStatistics(
        (float(fx), float(fy), float(cx), float(cy), image.shape[1], image.shape[0]),
        (float(low * (1 - WIDEN)), float(high * (1 + WIDEN))),
        (float(max(down - 5, 2.0)), float(min(up + 5, 88.0))),
    )


def like_dataset(config: SyntheticConfig, folder: Path, split: str) -> SyntheticConfig:
    """The configuration with camera, distances and elevations as in a data set's split."""
    views = measure_views(folder, split)
    settings = dataclasses.replace(
        config.settings, distance_m=views.distance_m, elevation_deg=views.elevation_deg
    )
    return dataclasses.replace(config, camera=views.camera, settings=settings)
