"""Measured depth against a pose: what the camera should see of a surface, and what it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import camera
from heatnet_ros.types import DepthF32, Distortion, FloatArray

# a surface seen at a flatter angle than this has depth too noisy to compare
MIN_FACING_COS = 0.2


@dataclass(frozen=True, eq=False)
class DepthPoints:
    """The M surface points that face the camera and have a measured depth, camera frame.

    index: (M,) into the points given. predicted_m, normals: (M, 3) of the posed surface.
    measured_m: (M, 3), the depth at the pixel nearest to each point's projection, lifted through
    that pixel's centre.
    """

    index: NDArray[np.intp]
    predicted_m: FloatArray
    normals: FloatArray
    measured_m: FloatArray

    @property
    def residuals_m(self) -> FloatArray:
        """Measured minus predicted z, (M,)."""
        return np.asarray(self.measured_m[:, 2] - self.predicted_m[:, 2])


def depth_points(
    T_camera_object: FloatArray,
    points_m: FloatArray,
    normals: FloatArray,
    depth_m: DepthF32,
    K: FloatArray,
    distortion: Distortion = camera.NO_DISTORTION,
) -> DepthPoints:
    """Pair posed surface points (N, 3), unit outward normals (N, 3), with the depth image (H, W).

    Left out: points that face away from the camera (cosine < 0.2), project outside the image, or
    have no valid depth (0, negative, NaN, Inf). Raises DataError when points and normals differ.
    """
    if points_m.shape != normals.shape or points_m.shape[1:] != (3,):
        raise DataError(
            f"Surface: expected points and normals of one shape Nx3, got {points_m.shape} and "
            f"{normals.shape}."
        )
    view = view_surfaces(
        T_camera_object[None], points_m.T[None], normals.T[None], depth_m, K, distortion
    )
    index = np.flatnonzero(view.valid[0])
    predicted, gap = view.points_m[0].T[index], view.gap_m[0].T[index]
    return DepthPoints(index, predicted, view.normals[0].T[index], predicted + gap)


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
    """``depth_points`` of many poses (B, 4, 4) at once, without leaving samples out.

    points_m, normals: (B, 3, N), or (1, 3, N) for poses of one object; a normal of zeros marks a
    sample that is none. Each result depends on its own pose alone, to the last bit.
    """
    R, t = T_camera_object[:, :3, :3], T_camera_object[:, :3, 3]
    p, n = R @ points_m + t[:, :, None], R @ normals
    away = np.einsum("bin,bin->bn", n, p)
    # -cos >= limit, squared: a root less, and the sign decides first
    limit = MIN_FACING_COS**2 * np.einsum("bin,bin->bn", p, p)
    valid = (away < 0) & (away * away >= limit) & (p[:, 2] > 0)
    z = np.where(valid, p[:, 2], 1.0)
    if distortion.is_zero:
        points_px = (p[:, :2] / z[:, None] * focal(K) + center(K)).swapaxes(1, 2)
    else:
        seen = np.stack([p[:, 0], p[:, 1], z], axis=-1).reshape(-1, 3)
        points_px = camera.project(seen, K, distortion).reshape(*z.shape, 2)
    pixels, inside = camera.round_to_pixels(points_px, (depth_m.shape[0], depth_m.shape[1]))
    valid &= inside
    u, v = np.where(valid[..., None], pixels, 0).transpose(2, 0, 1)
    measured_z = depth_m[v, u].astype(np.float64)
    valid &= np.isfinite(measured_z) & (measured_z > 0)
    measured_z = np.where(valid, measured_z, p[:, 2])
    measured = np.empty_like(p)
    if distortion.is_zero:
        measured[:, :2] = (np.stack([u, v], axis=1) - center(K)) / focal(K)
    else:
        flat = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)
        ideal = camera.undistort_points(flat, K, distortion).reshape(*z.shape, 2)
        measured[:, :2] = (ideal.transpose(0, 2, 1) - center(K)) / focal(K)
    measured[:, :2] *= measured_z[:, None]
    measured[:, 2] = measured_z
    return SurfaceView(p, n, measured - p, valid)


def focal(K: FloatArray) -> FloatArray:
    """Focal lengths (2, 1) in px."""
    return np.diag(K)[:2, None]


def center(K: FloatArray) -> FloatArray:
    """Principal point (2, 1) in px."""
    return K[:2, 2, None]
