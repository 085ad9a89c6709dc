"""What may happen to a crop in training: colour, shadows, other objects, other backgrounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from heatnet_ros.config import option


@dataclass(frozen=True)
class AugmentConfig:
    """How far an augmented crop may lie from the stored one; 0 switches a part off.

    Parts that are probabilities say so. ``sensor`` is 1 for a usual camera.
    """

    rotate_deg: float = option(20.0, "Largest turn of the picture", low=0.0, high=180.0)
    zoom: float = option(0.15, "Largest change of scale (log)", low=0.0, high=1.0)
    shift: float = option(0.08, "Largest shift, in crop sides", low=0.0, high=0.5)
    shear: float = option(0.0, "Largest shear", low=0.0, high=0.5)
    box_noise: float = option(
        0.0, "Deviation of each box edge, in box sides: a detector's error", low=0.0, high=0.5
    )
    sensor: float = option(1.0, "Exposure, white balance, blur and noise of a camera", low=0.0)
    depth_sensor: float = option(
        0.0,
        "Probability of a depth camera's noise and holes, for clean depth; the depth of cameras "
        "and of synthesize has them already",
        low=0.0,
        high=1.0,
    )
    hue: float = option(0.0, "Largest change of hue, in circles; also saturation", low=0.0)
    gray: float = option(0.0, "Probability of no colour", low=0.0, high=1.0)
    contrast: float = option(0.0, "Largest change of contrast and gamma (log)", low=0.0, high=1.5)
    blur: float = option(0.0, "Probability of a strong or a motion blur", low=0.0, high=1.0)
    jpeg: float = option(0.0, "Probability of JPEG artefacts", low=0.0, high=1.0)
    shadow: float = option(0.0, "Probability of a shadow or a light spot", low=0.0, high=1.0)
    cutout: float = option(0.2, "Probability of a covered rectangle", low=0.0, high=1.0)
    occlude: float = option(0.0, "Probability of another object in front", low=0.0, high=1.0)
    background: float = option(0.0, "Probability of another background", low=0.0, high=1.0)
    drop_depth: float = option(0.0, "Probability of no depth at all", low=0.0, high=1.0)

    def scaled(self, strength: float) -> AugmentConfig:
        """The same augmentation at 0..1 of its strength."""
        if strength >= 1:
            return self
        return dataclasses.replace(
            self, **{key: value * strength for key, value in dataclasses.asdict(self).items()}
        )


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


def change_colors(rgb: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Hue, contrast, greyness, shadows, blur and JPEG, in the order light, lens and file cause."""
    rgb = shift_hue(rgb, config.hue, rng)
    if config.gray and rng.random() < config.gray:
        rgb = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if config.contrast:
        rgb = _change_contrast(rgb, config.contrast, rng)
    if config.shadow and rng.random() < config.shadow:
        rgb = cast_shadow(rgb, rng)
    if config.blur and rng.random() < config.blur:
        rgb = _blur(rgb, rng)
    if config.jpeg and rng.random() < config.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))]
        rgb = cv2.imdecode(cv2.imencode(".jpg", rgb, quality)[1], cv2.IMREAD_COLOR)
    return rgb


def _change_contrast(rgb: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    gamma = np.exp(rng.uniform(-amount, amount))
    gain = np.exp(rng.uniform(-amount, amount))
    middle = rng.uniform(0.3, 0.7)
    levels = (np.arange(256) / 255) ** gamma
    table = np.clip(255 * ((levels - middle) * gain + middle), 0, 255).astype(np.uint8)
    return cv2.LUT(rgb, table)


def cast_shadow(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken or lighten one side of a random soft line, or a soft spot."""
    size = rgb.shape[0]
    ys, xs = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle))
    if rng.random() < 0.5:
        across = ys * np.float32(np.cos(angle)) - xs * np.float32(np.sin(angle))
        along = np.hypot(along, across * np.float32(rng.uniform(1, 3)))
    edge, softness = rng.uniform(-0.2, 0.3), rng.uniform(0.02, 0.2)
    share = np.clip((along - np.float32(edge)) / np.float32(softness), 0, 1)
    factor = rng.uniform(0.35, 0.8) if rng.random() < 0.7 else rng.uniform(1.2, 1.6)
    light = (1 + share * np.float32(factor - 1))[..., None]
    return np.clip(rgb * light, 0, 255).astype(np.uint8)


def _blur(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        return cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.6, 1.8)))
    length = int(rng.integers(2, 4))
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    step = length * np.array([np.cos(angle), np.sin(angle)])
    start, end = np.rint(length - step).astype(int), np.rint(length + step).astype(int)
    cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), 1.0)
    return cv2.filter2D(rgb, -1, kernel / kernel.sum())


def cut_out(
    rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
) -> None:
    """Cover a random rectangle with noise or one colour, and lose its depth or put it nearer.

    depth 2xSxS is the encoded one, mask SxS; all are changed in place.
    """
    size = rgb.shape[0]
    w, h = rng.integers(size // 8, size // 2, 2)
    x, y = rng.integers(0, size - w), rng.integers(0, size - h)
    region = (slice(y, y + h), slice(x, x + w))
    fill = rng.integers(0, 256, 3) if rng.random() < 0.6 else rng.integers(0, 256, (h, w, 3))
    rgb[region] = fill
    if mask is not None:
        mask[region] = 0
    if depth[1].any():
        depth[0][region] = -rng.uniform(0, 1)
        depth[1][region] = 1.0 if rng.random() < 0.7 else 0.0
        depth[0][region] *= depth[1][region]


def noise_picture(size: int, rng: np.random.Generator) -> np.ndarray:
    """SxSx3 u8: a random procedural background of one to three colours and some structure."""
    cells = int(rng.integers(2, 24))
    coarse = rng.random((cells, cells)).astype(np.float32)
    how = cv2.INTER_CUBIC if rng.random() < 0.6 else cv2.INTER_NEAREST
    share = cv2.resize(coarse, (size, size), interpolation=how)[..., None]
    first, second = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    picture = first + np.clip(share, 0, 1) * (second - first)
    grain = np.empty((size, size, 3), np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(grain, 0, float(rng.uniform(0, 25)))
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def replace_background(
    rgb: np.ndarray,
    depth_m: np.ndarray,
    mask: np.ndarray,
    other_rgb: np.ndarray,
    other_depth_m: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Everything but the object from another picture, whose depth lies behind the object.

    rgb SxSx3, depth SxS metres (0 invalid), mask SxS. The edge of the object is blended over a
    pixel, so that no cut line tells object from background.
    """
    soft = cv2.blur(mask.astype(np.float32), (3, 3))[..., None]
    rgb = (rgb * soft + other_rgb * (1 - soft)).astype(np.uint8)
    return rgb, np.where(mask > 0, depth_m, other_depth_m).astype(np.float32)


def paste_object(
    rgb: np.ndarray,
    depth_m: np.ndarray,
    mask: np.ndarray,
    other: tuple[np.ndarray, np.ndarray, np.ndarray],
    least_visible: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put another crop's object (rgb, depth, mask) in front; unchanged where it hides too much."""
    other_rgb, other_depth_m, other_mask = other
    covered = other_mask > 0
    left = mask * ~covered
    if left.sum() < least_visible * mask.sum():
        return rgb, depth_m, mask
    soft = cv2.blur(other_mask.astype(np.float32), (3, 3))[..., None]
    rgb = (rgb * (1 - soft) + other_rgb * soft).astype(np.uint8)
    return rgb, np.where(covered, other_depth_m, depth_m).astype(np.float32), left
