"""Batches of augmented crops from cached shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from heatnet_ros.datasets.crop_cache import DEPTH_STEP_M
from heatnet_ros.datasets.shards import load_shards, map_shard
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import backproject, scale_points
from heatnet_ros.objects import ObjectModel
from heatnet_ros.rendering.sensor import apply_color_sensor, apply_depth_sensor
from heatnet_ros.training.augment import (
    AugmentConfig,
    change_colors,
    cut_out,
    noise_picture,
    paste_object,
    replace_background,
)

# shards with masks are cut from pictures as cameras give them; those without are clean renders
UNTOUCHED = AugmentConfig(
    rotate_deg=0.0, zoom=0.0, shift=0.0, sensor=0.0, depth_sensor=0.0, cutout=0.0
)
KEYS = ("rgb", "depth", "keypoints", "object", "box", "T_camera_object", "K")
LEAST_VISIBLE = 0.4  # of the visible part, when another object is put in front
CURRICULUM_START = 0.1  # strength of the augmentation at the beginning
ROOM = 0.05  # of the object's extent, that its points may lie outside of its bounds


def load_crops(folder: Path, first: int, last: int | None) -> dict[str, Any]:
    """Crops of shards ``first``..``last``; pictures stay on disk and are mapped (135 kB a crop).

    Shards of today have the visible ``mask`` too. Raises DataError without shards.
    """
    paths = sorted(folder.glob("shard_*.npz"))[first:last]
    masks = bool(paths) and "mask" in map_shard(paths[0])
    return dict(load_shards(folder, (*KEYS, "mask") if masks else KEYS, first, last))


def strength_at(seen: int, curriculum: float) -> float:
    """Strength of the augmentation: from a little, straight up to 1 at ``curriculum`` samples."""
    if seen >= curriculum:
        return 1.0
    return CURRICULUM_START + (1 - CURRICULUM_START) * seen / curriculum


def choose_warp(
    box: np.ndarray,
    crop_px: int,
    margin: float,
    config: AugmentConfig | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """2x3 map from stored pixels to crop pixels, around a box (x0, y0, x1, y1).

    Without augmentation it is the one the estimator would take around the true box.
    """
    x0, y0, x1, y1 = box
    if config is not None and config.box_noise:
        x0, y0, x1, y1 = box + rng.normal(0, config.box_noise, 4) * ([x1 - x0, y1 - y0] * 2)
    side = max(x1 - x0, y1 - y0, 2.0) * margin
    center = np.array([x0 + x1, y0 + y1]) / 2
    angle, shear = 0.0, np.eye(2)
    if config is not None:
        side *= np.exp(rng.uniform(-config.zoom, config.zoom))
        center = center + side * rng.uniform(-config.shift, config.shift, 2)
        angle = np.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
        if config.shear:
            shear[0, 1] = rng.uniform(-config.shear, config.shear)
    scale = crop_px / side
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ shear
    return np.column_stack([linear, (crop_px - 1) / 2 - linear @ center])


def crop_sample(
    crops: Mapping[str, Any],
    i: int,
    diameters_m: Sequence[float],
    crop_px: int,
    margin: float,
    config: AugmentConfig | None,
    rng: np.random.Generator,
    rgbd: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One network input: rgb SxSx3 u8, depth 2xSxS, keypoints Kx2 in it, and the 2x3 warp.

    Of the augmentation only what needs no other crop and no mask takes part.
    """
    warp = choose_warp(crops["box"][i], crop_px, margin, config, rng)
    rgb, depth_m = _warp_pictures(crops, i, warp, crop_px)
    keypoints = crops["keypoints"][i] @ warp[:, :2].T.astype(np.float32) + warp[:, 2]
    diameter_m = diameters_m[crops["object"][i]]
    if config is None and "mask" in crops:
        config = UNTOUCHED
    rgb, encoded = _finish(rgb, depth_m, None, diameter_m, config, rng, rgbd)
    return rgb, encoded, keypoints.astype(np.float32), warp


def _warp_pictures(
    crops: Mapping[str, Any], i: int, warp: np.ndarray, crop_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth in metres; depth is 0 (unknown) beyond the stored crop.

    Colour is mirrored there: no camera shows black corners, and a network would learn from them
    how a crop was turned.
    """
    size = (crop_px, crop_px)
    rgb = cv2.warpAffine(
        crops["rgb"][i], warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    depth = cv2.warpAffine(crops["depth"][i], warp, size, flags=cv2.INTER_NEAREST)
    return rgb, depth.astype(np.float32) * np.float32(DEPTH_STEP_M)


def _finish(
    rgb: np.ndarray,
    depth_m: np.ndarray,
    mask: np.ndarray | None,
    diameter_m: float,
    config: AugmentConfig | None,
    rng: np.random.Generator,
    rgbd: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """What the camera does, and a cut-out; the picture and the encoded depth."""
    if config is None or config.sensor:
        strength = 0.5 if config is None else config.sensor * rng.uniform(0, 1.5)
        rgb = apply_color_sensor(rng, rgb, strength)
    encoded = np.zeros((2, *depth_m.shape), np.float32)
    if rgbd and not (config is not None and rng.random() < config.drop_depth):
        if config is None or rng.random() < config.depth_sensor:
            depth_m = apply_depth_sensor(rng, depth_m)
        encoded = encode_depth(depth_m, diameter_m)
    if config is not None:
        rgb = change_colors(rgb, config, rng)
        if rng.random() < config.cutout:
            cut_out(rgb, encoded, mask, rng)
    return rgb, encoded


def object_coordinates(
    points_px: np.ndarray, depth_m: np.ndarray, K: np.ndarray, T_camera_object: np.ndarray
) -> np.ndarray:
    """Pixels Nx2 and their depth N -> points Nx3 in the object's frame, metres."""
    return se3.transform(se3.invert(T_camera_object), backproject(points_px, depth_m, K))


def mask_from_depth(
    depth_m: np.ndarray, K: np.ndarray, T_camera_object: np.ndarray, bounds_m: np.ndarray
) -> np.ndarray:
    """HxW u8: pixels whose point lies within the object's bounds; for shards without masks."""
    h, w = depth_m.shape
    ys, xs = np.mgrid[:h, :w]
    points = object_coordinates(
        np.column_stack([xs.ravel(), ys.ravel()]), depth_m.ravel(), K, T_camera_object
    )
    inside = _within(points, bounds_m) & (depth_m.ravel() > 0)
    return inside.reshape(h, w).astype(np.uint8)


def _within(points_m: np.ndarray, bounds_m: np.ndarray) -> np.ndarray:
    room = ROOM * np.ptp(bounds_m, axis=0).max()
    return np.all((points_m > bounds_m[0] - room) & (points_m < bounds_m[1] + room), axis=1)


@dataclass(frozen=True, eq=False)
class CropMaker:
    """Makes batches of augmented crops: what the training loop's loaders call.

    crops: of ``load_crops``. models: in the order of the objects' indices. dense: also targets for
    the dense heads. curriculum: samples over which the augmentation grows, 0 for none.
    """

    crops: Mapping[str, Any]
    models: Sequence[ObjectModel]
    crop_px: int
    stride: int
    margin: float
    augment: AugmentConfig
    rgbd: bool
    dense: bool
    curriculum: float = 0.0

    def __call__(
        self, picks: np.ndarray, rng: np.random.Generator, seen: int = 0
    ) -> dict[str, torch.Tensor]:
        """Indices N -> rgb NxSxSx3 u8, depth Nx2xSxS, keypoints NxKx2, object N.

        With ``dense`` also mask Nxhxw and coordinates Nx3xhxw (NaN where unknown). seen: samples
        before these ones.
        """
        config = self.augment.scaled(strength_at(seen, self.curriculum))
        samples = [self.make(int(i), config, rng) for i in picks]
        batch = {
            key: torch.from_numpy(np.stack([sample[key] for sample in samples]))
            for key in samples[0]
        }
        return batch | {"object": torch.from_numpy(self.crops["object"][picks].astype(np.int64))}

    def make(
        self, i: int, config: AugmentConfig, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """One crop's arrays."""
        crops, size = self.crops, self.crop_px
        model = self.models[int(crops["object"][i])]
        warp = choose_warp(crops["box"][i], size, self.margin, config, rng)
        rgb, depth_m = _warp_pictures(crops, i, warp, size)
        keypoints = crops["keypoints"][i] @ warp[:, :2].T.astype(np.float32) + warp[:, 2]
        mask = None
        if self.dense or config.occlude or config.background:
            mask = self._mask(i, warp)
            if rng.random() < config.background and mask.any():
                rgb, depth_m = self._other_background(rgb, depth_m, mask, model, rng)
            if rng.random() < config.occlude and mask.any():
                rgb, depth_m, mask = self._occlude(rgb, depth_m, mask, model, rng)
        rgb, encoded = _finish(rgb, depth_m, mask, model.diameter_m, config, rng, self.rgbd)
        sample = {"rgb": rgb, "depth": encoded, "keypoints": keypoints.astype(np.float32)}
        if self.dense:
            sample |= self._dense_targets(i, warp, mask, model)
        return sample

    def _mask(self, i: int, warp: np.ndarray) -> np.ndarray:
        crops = self.crops
        if "mask" in crops:
            mask = crops["mask"][i]
        else:
            depth_m = crops["depth"][i].astype(np.float32) * np.float32(DEPTH_STEP_M)
            model = self.models[int(crops["object"][i])]
            mask = mask_from_depth(
                depth_m, crops["K"][i], crops["T_camera_object"][i], model.bounds_m
            )
        size = (self.crop_px, self.crop_px)
        return cv2.warpAffine(mask, warp, size, flags=cv2.INTER_NEAREST)

    def _dense_targets(
        self, i: int, warp: np.ndarray, mask: np.ndarray, model: ObjectModel
    ) -> dict[str, np.ndarray]:
        """Mask hxw and coordinates 3xhxw in radii, from the stored depth, which has no noise."""
        crops, side = self.crops, self.crop_px // self.stride
        small = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        ys, xs = np.mgrid[:side, :side]
        cells = scale_points(np.column_stack([xs.ravel(), ys.ravel()]), float(self.stride))
        stored = (cells - warp[:, 2]) @ np.linalg.inv(warp[:, :2]).T
        depth = crops["depth"][i]
        # points of the pixels themselves: a depth belongs to its pixel's centre
        pixels = np.rint(stored).astype(np.int64)
        h, w = depth.shape
        there = np.all((pixels >= 0) & (pixels < [w, h]), axis=1)
        pixels = np.clip(pixels, 0, [w - 1, h - 1])
        depth_m = depth[pixels[:, 1], pixels[:, 0]] * DEPTH_STEP_M
        points = object_coordinates(pixels, depth_m, crops["K"][i], crops["T_camera_object"][i])
        known = there & (depth_m > 0) & (small.ravel() > 0.5) & _within(points, model.bounds_m)
        coordinates = np.where(known[:, None], points / (model.diameter_m / 2), np.nan)
        return {
            "mask": small,
            "coordinates": coordinates.T.reshape(3, side, side).astype(np.float32),
        }

    def _other_background(
        self,
        rgb: np.ndarray,
        depth_m: np.ndarray,
        mask: np.ndarray,
        model: ObjectModel,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        size, own_m = self.crop_px, _median(depth_m, mask)
        if rng.random() < 0.5:
            other_rgb = noise_picture(size, rng)
            tilt = np.linspace(-1, 1, size, dtype=np.float32) * rng.uniform(-0.7, 0.7)
            relief = tilt[None] + tilt[:, None] * rng.uniform(-1, 1)
        else:
            j = int(rng.integers(len(self.crops["object"])))
            warp = choose_warp(self.crops["box"][j], size, self.margin, self.augment, rng)
            other_rgb, other_m = _warp_pictures(self.crops, j, warp, size)
            relief = (other_m - _median(other_m, other_m > 0)) / model.diameter_m
            relief = np.where(other_m > 0, relief, np.nan)
        distance = rng.uniform(0.2, 1.0)
        behind_m = own_m + (relief + distance) * model.diameter_m
        behind_m = np.nan_to_num(np.where(behind_m > 0.05, behind_m, 0.0), nan=0.0)
        return replace_background(rgb, depth_m, mask, other_rgb, behind_m if own_m else depth_m)

    def _occlude(
        self,
        rgb: np.ndarray,
        depth_m: np.ndarray,
        mask: np.ndarray,
        model: ObjectModel,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = self.crop_px
        j = int(rng.integers(len(self.crops["object"])))
        free = AugmentConfig(rotate_deg=180.0, zoom=0.4, shift=0.45)
        warp = choose_warp(self.crops["box"][j], size, 2.2, free, rng)
        other_rgb, other_m = _warp_pictures(self.crops, j, warp, size)
        other_mask = self._mask(j, warp)
        if not other_mask.any():
            return rgb, depth_m, mask
        own_m, theirs_m = _median(depth_m, mask), _median(other_m, other_mask)
        gap_m = rng.uniform(0.2, 1.5) * model.diameter_m
        moved = other_m + np.float32(max(own_m - gap_m, 0.1) - theirs_m)
        moved = np.where((other_m > 0) & (moved > 0) & (own_m > 0), moved, 0).astype(np.float32)
        return paste_object(rgb, depth_m, mask, (other_rgb, moved, other_mask), LEAST_VISIBLE)


def _median(depth_m: np.ndarray, mask: np.ndarray) -> float:
    """Median of the valid depth in a mask, 0 without any."""
    values = depth_m[(mask > 0) & (depth_m > 0)]
    return float(np.median(values)) if len(values) else 0.0
