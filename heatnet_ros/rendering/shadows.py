"""Shadows of a scene's objects: a map from the key light, and dark spots where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heatnet_ros.rendering.scene import Placed
from heatnet_ros.types import FloatArray, ImageU8

SHADOW_PX = 768
SHADOW_HALF_M = 0.8
SHADOW_RANGE_M = 1.2
CONTACT_PX = 192
CONTACT_HALF_M = 1.0


def light_projection(direction: FloatArray, scale: float = 1.0) -> FloatArray:
    """4x4: world to the clip space of a parallel light, whose rays come from ``direction``.

    scale: of the room, and so of what stands on the table.
    """
    z = direction / np.linalg.norm(direction)
    x = np.cross(z, [0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    half_m, range_m = SHADOW_HALF_M * scale, SHADOW_RANGE_M * scale
    T[:3, :3] = np.stack([x / half_m, np.cross(z, x) / half_m, -z / range_m])
    return T


def contact_shadow(standing: Sequence[Placed], half_m: float = CONTACT_HALF_M) -> ImageU8:
    """Share of light, 255 for all, on the table within ``half_m`` of its middle."""
    ticks = ((np.arange(CONTACT_PX) + 0.5) / CONTACT_PX * 2 - 1) * half_m
    light = np.ones((CONTACT_PX, CONTACT_PX), np.float32)
    for placed in standing:
        low, high = placed.mesh.bounds_m
        radius = np.linalg.norm((high - low)[:2]) / 2
        x, y = placed.T_world_object[:2, 3]
        gx, gy = (np.exp(-1.2 * ((ticks - c) / radius) ** 2) for c in (x, y))
        light *= 1 - 0.55 * gy[:, None] * gx[None]
    return np.asarray(np.rint(light * 255), np.uint8)
