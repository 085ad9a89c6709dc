"""Batches of augmented crops from rendered shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset

from heatnet_ros.datasets.synthetic import DEPTH_STEP_M, load_shards
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.rendering.sensor import apply_color_sensor, apply_depth_sensor

KEYS = ("rgb", "depth", "keypoints", "object", "box", "T_camera_object", "K")


@dataclass(frozen=True)
class AugmentConfig:
    """How far an augmented crop may lie from the rendered one. Angles in degrees."""

    rotate_deg: float = 20.0
    zoom: float = 0.15
    shift: float = 0.08
    sensor: float = 1.0
    hue: float = 0.0
    cutout: float = 0.2
    drop_depth: float = 0.0


def load_crops(folder: Path, first: int, last: int | None) -> dict[str, Any]:
    """Crops of some shards in memory: about 135 kB each."""
    return dict(load_shards(folder, KEYS, first, last))


def crop_sample(
    crops: dict[str, Any],
    i: int,
    diameters_m: list[float],
    crop_px: int,
    margin: float,
    config: AugmentConfig | None,
    rng: np.random.Generator,
    rgbd: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One network input: rgb SxSx3 u8, depth 2xSxS, keypoints Kx2 in it, and the 2x3 warp.

    Without augmentation the crop is the one the estimator would cut around the true box.
    """
    x0, y0, x1, y1 = crops["box"][i]
    side = max(x1 - x0, y1 - y0) * margin
    center = np.array([x0 + x1, y0 + y1]) / 2
    angle = 0.0
    if config is not None:
        side *= np.exp(rng.uniform(-config.zoom, config.zoom))
        center = center + side * rng.uniform(-config.shift, config.shift, 2)
        angle = np.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    scale = crop_px / side
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (crop_px - 1) / 2
    warp = np.column_stack([rotation, middle - rotation @ center])
    size = (crop_px, crop_px)
    rgb = cv2.warpAffine(crops["rgb"][i], warp, size, flags=cv2.INTER_LINEAR)
    depth = crops["depth"][i].astype(np.float32) * np.float32(DEPTH_STEP_M)
    depth = cv2.warpAffine(depth, warp, size, flags=cv2.INTER_NEAREST)
    keypoints = crops["keypoints"][i] @ rotation.T.astype(np.float32) + warp[:, 2]
    strength = 0.5 if config is None else config.sensor * rng.uniform(0, 1.5)
    rgb = apply_color_sensor(rng, rgb, strength)
    encoded = np.zeros((2, crop_px, crop_px), np.float32)
    if rgbd and not (config is not None and rng.random() < config.drop_depth):
        encoded = encode_depth(apply_depth_sensor(rng, depth), diameters_m[crops["object"][i]])
    if config is not None:
        rgb = shift_hue(rgb, config.hue, rng)
        if rng.random() < config.cutout:
            _cut_out(rgb, encoded, rng)
    return rgb, encoded, keypoints.astype(np.float32), warp


def shift_hue(rgb: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Turn colours by up to ``amount`` of the circle, and sometimes take some colour away."""
    if amount <= 0:
        return rgb
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    turn = int(rng.uniform(-amount, amount) * 180)
    saturation = rng.uniform(0.3, 1.3) if rng.random() < 0.7 else 1.0
    hue_table = ((np.arange(256) + turn) % 180).astype(np.uint8)
    saturation_table = np.clip(np.arange(256) * saturation, 0, 255).astype(np.uint8)
    value_table = (255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6)).astype(np.uint8)
    table = np.stack([hue_table, saturation_table, value_table], axis=1).reshape(1, 256, 3)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)


def _cut_out(rgb: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> None:
    """Cover a random rectangle with noise or one colour, and lose its depth or put it nearer."""
    size = rgb.shape[0]
    w, h = rng.integers(size // 8, size // 2, 2)
    x, y = rng.integers(0, size - w), rng.integers(0, size - h)
    region = (slice(y, y + h), slice(x, x + w))
    fill = rng.integers(0, 256, 3) if rng.random() < 0.6 else rng.integers(0, 256, (h, w, 3))
    rgb[region] = fill
    if depth[1].any():
        depth[0][region] = -rng.uniform(0, 1)
        depth[1][region] = 1.0 if rng.random() < 0.7 else 0.0
        depth[0][region] *= depth[1][region]


class CropBatches(IterableDataset):
    """Endless batches: rgb NxSxSx3 u8, depth Nx2xSxS, keypoints NxKx2, object index N."""

    def __init__(
        self,
        crops: dict[str, Any],
        diameters_m: list[float],
        batch: int,
        crop_px: int,
        margin: float,
        augment: AugmentConfig,
        rgbd: bool,
        seed: int,
    ) -> None:
        self.arguments = (diameters_m, crop_px, margin, augment)
        self.crops, self.batch, self.rgbd, self.seed = crops, batch, rgbd, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        cv2.setNumThreads(0)
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        count = len(self.crops["object"])
        diameters, crop_px, margin, augment = self.arguments
        while True:
            picks = rng.integers(0, count, self.batch)
            samples = [
                crop_sample(self.crops, i, diameters, crop_px, margin, augment, rng, self.rgbd)
                for i in picks
            ]
            yield (
                torch.from_numpy(np.stack([s[0] for s in samples])),
                torch.from_numpy(np.stack([s[1] for s in samples])),
                torch.from_numpy(np.stack([s[2] for s in samples])),
                torch.from_numpy(self.crops["object"][picks]),
            )
