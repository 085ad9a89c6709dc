"""What a real RGB-D camera does to a perfect picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.types import DepthF32, ImageU8


def apply_color_sensor(
    rng: np.random.Generator,
    rgb: ImageU8,
    strength: float = 1.0,
    noise_rng: np.random.Generator | None = None,
) -> ImageU8:
    """Exposure, white balance, contrast, slight blur and noise; ``strength`` 0 changes nothing.

    ``noise_rng`` draws the pixels' noise where the rest must stay the same from frame to frame.
    """
    gain = 1 + strength * (rng.uniform(-0.15, 0.15) + rng.uniform(-0.05, 0.05, 3))
    offset = strength * rng.uniform(-10, 10)
    # one table per channel: three look-ups cost less than float arithmetic on the image
    levels = np.arange(256)[:, None] * gain + offset
    table = np.clip(levels, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    out = cv2.LUT(rgb, table)
    out = cv2.GaussianBlur(out, (3, 3), float(0.3 + 0.5 * strength * rng.random()))
    noise = np.empty(out.shape, np.int16)
    sigma = float(strength * rng.uniform(0.5, 4.0))
    # OpenCV's generator is seeded from ours, so a scene's noise depends on its seed alone
    cv2.setRNGSeed(int((rng if noise_rng is None else noise_rng).integers(2**31)))
    cv2.randn(noise, 0, sigma)
    return np.asarray(cv2.add(out, noise, dtype=cv2.CV_8U), np.uint8)


def apply_depth_sensor(rng: np.random.Generator, depth_m: DepthF32) -> DepthF32:
    """Stereo-like depth: noise grows with z squared, millimetre steps, holes at edges and spots."""
    noise = np.empty(depth_m.shape, np.float32)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, 0, 1)
    out = depth_m + noise * (0.0008 + 0.0016 * depth_m**2)
    out = (np.rint(out * 1000) / 1000).astype(np.float32)
    out[_holes(rng, depth_m)] = 0.0
    return out


def _holes(rng: np.random.Generator, depth_m: DepthF32) -> NDArray[np.bool_]:
    near = cv2.erode(depth_m, np.ones((3, 3)))
    edge = (cv2.dilate(depth_m, np.ones((3, 3))) - near) > 0.03 * np.maximum(near, 0.1)
    h, w = depth_m.shape
    # patchy: whole pieces of an edge are missing, others are there
    patches = cv2.resize(rng.random((h // 12 + 1, w // 12 + 1)).astype(np.float32), (w, h))
    spots = cv2.resize(rng.random((h // 5 + 1, w // 5 + 1)).astype(np.float32), (w, h))
    limit = rng.uniform(0.95, 0.995)
    missing = (edge & (patches < rng.uniform(0.3, 0.8))) | (spots > limit) | (depth_m <= 0)
    return np.asarray(missing, np.bool_)
