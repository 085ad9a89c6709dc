"""Measured depth against a pose: what the camera should see of a surface, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.geometry import camera
from heatnet_ros.types import DepthF32, Distortion, FloatArray

# a surface seen at a flatter angle than this has depth too noisy to compare
MIN_FACING_COS = 0.2


@dataclass(frozen=True, eq=False)
class SurfaceView:
    """What the camera should see of B posed surfaces of N samples each, and what it measured.

    points_m, normals: (B, 3, N) in the camera frame. gap_m: (B, 3, N), measured minus predicted
    point. valid: (B, N), the samples that face the camera and have a measured depth; the gap of
    the others means nothing.
    """

    points_m: FloatArray
    normals: FloatArray
    gap_m: FloatArray
    valid: NDArray[np.bool_]


def stack_surfaces(surfaces: Sequence[FloatArray]) -> FloatArray:
    """Surfaces (N_i, 6) of points and normals -> (B, 6, N), zeros where one has fewer samples."""
    out = np.zeros((len(surfaces), 6, max(map(len, surfaces))))
    for row, surface in zip(out, surfaces, strict=True):
        row[:, : len(surface)] = surface.T
    return out


def view_surfaces(
    T_camera_object: FloatArray,
    points_m: FloatArray,
    normals: FloatArray,
    depth_m: DepthF32,
    K: FloatArray,
    distortion: Distortion = camera.NO_DISTORTION,
) -> SurfaceView:
    """Pair the samples of surfaces at poses (B, 4, 4) with the depth image (H, W), metres.

    points_m, unit outward normals: (B, 3, N), or (1, 3, N) for poses of one object; a normal of
    zeros marks a sample that is none. The measured point is the depth at the pixel nearest to the
    sample's projection, lifted through that pixel's centre. Not valid are samples that face away
    from the camera (cosine < 0.2), project outside the image, or have no valid depth (0, negative,
    NaN, Inf). Each result depends on its own pose alone, to the last bit.
    """
    R, t = T_camera_object[:, :3, :3], T_camera_object[:, :3, 3]
    p, n = R @ points_m + t[:, :, None], R @ normals
    away = np.einsum("bin,bin->bn", n, p)
    # -cos >= limit, squared: a root less, and the sign decides first
    limit = MIN_FACING_COS**2 * np.einsum("bin,bin->bn", p, p)
    valid = (away < 0) & (away * away >= limit) & (p[:, 2] > 0)
    z = np.where(valid, p[:, 2], 1.0)
    # the nearest pixels, as whole numbers in float64: converted once, where they index
    pixels = np.floor(_project(p, z, K, distortion) + 0.5)
    u, v = pixels[:, 0], pixels[:, 1]
    height, width = depth_m.shape
    # a comparison with a pixel that is not finite is false
    valid &= (u >= 0) & (u < width) & (v >= 0) & (v < height)
    index = np.where(valid, v * width + u, 0.0).astype(np.intp)
    measured_z = depth_m.reshape(-1).take(index).astype(np.float64)
    valid &= np.isfinite(measured_z) & (measured_z > 0)
    measured_z = np.where(valid, measured_z, p[:, 2])
    gap = np.empty_like(p)
    gap[:, :2] = _lift(pixels, valid, K, distortion) * measured_z[:, None] - p[:, :2]
    gap[:, 2] = measured_z - p[:, 2]
    return SurfaceView(p, n, gap, valid)


def _project(p: FloatArray, z: FloatArray, K: FloatArray, distortion: Distortion) -> FloatArray:
    """Pixels (B, 2, N) of points (B, 3, N); z (B, N) is 1 for points that no one asks about."""
    if distortion.is_zero:
        return np.asarray(p[:, :2] / z[:, None] * focal(K) + center(K))
    points = np.stack([p[:, 0], p[:, 1], z], axis=-1)
    pixels = camera.project(points.reshape(-1, 3), K, distortion)
    return pixels.reshape(*z.shape, 2).swapaxes(1, 2)


def _lift(
    pixels: FloatArray, valid: NDArray[np.bool_], K: FloatArray, distortion: Distortion
) -> FloatArray:
    """Rays (B, 2, N) at z = 1 through pixels (B, 2, N); zero for those that are not valid."""
    if not distortion.is_zero:
        seen = np.where(valid[:, None], pixels, 0.0).swapaxes(1, 2)
        ideal = camera.undistort_points(seen.reshape(-1, 2), K, distortion)
        pixels = ideal.reshape(seen.shape).swapaxes(1, 2)
    return np.where(valid[:, None], (pixels - center(K)) / focal(K), 0.0)


def focal(K: FloatArray) -> FloatArray:
    """Focal lengths (2, 1) in px."""
    return np.diag(K)[:2, None]


def center(K: FloatArray) -> FloatArray:
    """Principal point (2, 1) in px."""
    return K[:2, 2, None]
