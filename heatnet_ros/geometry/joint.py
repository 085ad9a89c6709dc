"""Keypoints in the image and a surface in the depth image, fitted by one pose: B problems at once.

Every residual moves with the pose as ``a . (dt + w x y)``: a is the sample's normal, or the
derivative of a pixel coordinate by the point; y is the point relative to the object's origin. So
point-to-plane distances and reprojection errors share one Jacobian, each in units of its noise.
A problem's result depends on nothing but the problem, whatever else is solved with it (but for
the last bits, where problems of unequal size are filled up with zeros).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.geometry import camera, se3
from heatnet_ros.geometry.depth import SurfaceView, center, focal, view_surfaces
from heatnet_ros.types import DepthF32, Distortion, FloatArray

# depth noise of a stereo camera grows with the square of the distance (RealSense D435, datasheet)
NOISE_M, NOISE_PER_M = 0.001, 0.0025
# directions with less information than this part of the best one are left alone
MIN_INFORMATION = 1e-4
# a step that moves no point of the object further ends the fit
SMALL_STEP_M = 2e-4


@dataclass(frozen=True, eq=False)
class DepthImage:
    """depth_m: HxW metres, invalid where 0 or not finite, of a camera with K and distortion."""

    depth_m: DepthF32
    K: FloatArray
    distortion: Distortion = camera.NO_DISTORTION


@dataclass(frozen=True, eq=False)
class JointProblem:
    """What B poses are fitted to; a leading 1 instead of B shares an array among all.

    points_m, normals: (B, 3, N) surface samples, zeros where a problem has fewer. keypoints_m:
    (B, 3, M). pixels: (B, 2, M) of an ideal pinhole. weights: (B, M), the inverse variance of a
    pixel coordinate in px^-2, 0 for a keypoint that is not used. gate_px: (B,), keypoints beyond
    do not count (Tukey). diameter_m: (B,).
    """

    image: DepthImage
    points_m: FloatArray
    normals: FloatArray
    keypoints_m: FloatArray
    pixels: FloatArray
    weights: FloatArray
    gate_px: FloatArray
    diameter_m: FloatArray

    def view(self, T: FloatArray) -> SurfaceView:
        """The samples at poses (B, 4, 4) against the depth image."""
        image = self.image
        return view_surfaces(
            T, self.points_m, self.normals, image.depth_m, image.K, image.distortion
        )

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> JointProblem:
        """The problems of these rows; a row may come several times. What is shared stays shared."""
        arrays = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "image"
        }
        index = np.asarray(rows, np.intp)
        taken = {name: a if len(a) == 1 else a[index] for name, a in arrays.items()}
        return JointProblem(self.image, **taken)

    def errors_px(self, T: FloatArray) -> FloatArray:
        """Reprojection errors (B, M) at poses (B, 4, 4); infinite behind the camera."""
        _, p, inverse_z = self._keypoints_in_camera(T)
        e = self.pixels - (
            p[:, :2] * inverse_z[:, None] * focal(self.image.K) + center(self.image.K)
        )
        return np.where(p[:, 2] > 0, np.hypot(e[:, 0], e[:, 1]), np.inf)

    def image_rows(self, T: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Reprojection errors (B, 2, M) in px, and their derivatives (B, 2, 6, M) by a step."""
        K = self.image.K
        y, p, inverse_z = self._keypoints_in_camera(T)
        xy = p[:, :2] * inverse_z[:, None]
        directions = np.zeros((len(T), 2, 3, y.shape[2]))
        directions[:, 0, 0], directions[:, 1, 1] = K[0, 0] * inverse_z, K[1, 1] * inverse_z
        directions[:, :, 2] = -focal(K) * xy * inverse_z[:, None]
        return self.pixels - (xy * focal(K) + center(K)), _jacobian(directions, y[:, None])

    def _keypoints_in_camera(self, T: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Arms from the object's origin and points, both (B, 3, M), camera axes; 1/z (B, M)."""
        y = T[:, :3, :3] @ self.keypoints_m
        p = y + T[:, :3, 3, None]
        return y, p, 1.0 / np.maximum(p[:, 2], 1e-6)


def fit_jointly(
    problem: JointProblem,
    T_camera_object: FloatArray,
    iterations: int,
    gate_m: FloatArray,
    gate_shrink: float,
    end_gate_m: FloatArray,
) -> FloatArray:
    """Gauss-Newton from poses (B, 4, 4) with a shrinking depth gate (Tukey's weights); (B, 4, 4).

    gate_m, end_gate_m: (B,). A step leaves out directions that carry next to no information. A
    problem whose numbers are not finite keeps its pose.
    """
    T, moving = T_camera_object.copy(), np.arange(len(T_camera_object))
    gate_m, part = np.broadcast_to(gate_m, len(T)), problem
    for _ in range(iterations):
        H, g = joint_equations(part, T[moving], gate_m[moving])
        step = _solve_observable(H, g, part.diameter_m / 2)
        finite = np.isfinite(step).all(axis=1)
        T[moving[finite]] = apply_steps(T[moving[finite]], step[finite])
        path_m = np.abs(step[:, :3]).max(axis=1)
        path_m += np.abs(step[:, 3:]).max(axis=1) * part.diameter_m / 2
        goes_on = finite & ((gate_m[moving] > end_gate_m[moving]) | (path_m >= SMALL_STEP_M))
        if not goes_on.any():
            break
        if not goes_on.all():  # a pose that has arrived costs nothing any more
            moving = moving[goes_on]
            part = problem.take(moving)
        gate_m = np.maximum(gate_m * gate_shrink, end_gate_m)
    T[:, :3, :3] = se3.orthonormalize(T[:, :3, :3])
    return T


def joint_equations(
    problem: JointProblem, T: FloatArray, gate_m: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Normal matrices (B, 6, 6) and gradients (B, 6) of both terms, in units of their noise."""
    depth, image = _depth_term(problem.view(T), T, gate_m), _image_term(problem, T)
    return depth.normal() + image.normal(), depth.gradient() + image.gradient()


def joint_covariance(
    problem: JointProblem,
    T: FloatArray,
    gate_m: FloatArray,
    correlation: float = 1.0,
    view: SurfaceView | None = None,
) -> list[FloatArray | None]:
    """6x6 of (x, y, z, rx, ry, rz) for each pose, None where both terms determine none.

    correlation: of how many keypoints the errors go together, 1 for independent ones. view: of the
    samples at T, where it is known already.

    Each term counts with the scatter of its own residuals where that is larger than the noise it
    was weighted with. It knows the noise of this frame, not a camera's calibration error.
    """
    view = problem.view(T) if view is None else view
    depth, image = _depth_term(view, T, gate_m), _image_term(problem, T)
    H = depth.normal() + image.normal()
    spread = depth.spread() + correlation * image.spread()
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(H).all(axis=(1, 2)))
    values, directions = decompose(
        np.where(finite[:, None, None], H, np.eye(6)), problem.diameter_m / 2
    )
    enough = np.maximum(MIN_INFORMATION * values[:, -1], 0.0)
    known = finite & (values[:, 0] > enough)
    divisor = np.where(known[:, None], values, 1.0)
    inverse = (directions / divisor[:, None]) @ directions.swapaxes(1, 2)
    covariance = inverse @ spread @ inverse
    covariance = (covariance + covariance.swapaxes(1, 2)) / 2
    return [c if is_known else None for c, is_known in zip(covariance, known, strict=True)]


@dataclass(frozen=True, eq=False)
class _Term:
    """Residuals (B, M), derivatives (B, 6, M), what each residual counts (B, M) in 0..1, its
    inverse variance (B, M), and the scatter of the residuals over that variance (B,), at least 1.
    """

    residuals: FloatArray
    J: FloatArray
    share: FloatArray
    information: FloatArray
    excess: FloatArray

    def normal(self) -> FloatArray:
        """Normal matrices (B, 6, 6)."""
        return (self.J * (self.share * self.information)[:, None]) @ self.J.swapaxes(1, 2)

    def gradient(self) -> FloatArray:
        """Gradients (B, 6)."""
        weighted = self.share * self.information * self.residuals
        return np.asarray((self.J @ weighted[:, :, None])[:, :, 0])

    def spread(self) -> FloatArray:
        """Covariance of the gradients (B, 6, 6): a residual that counts half spreads a quarter."""
        w = self.share**2 * self.information * self.excess[:, None]
        return (self.J * w[:, None]) @ self.J.swapaxes(1, 2)


def _depth_term(view: SurfaceView, T: FloatArray, gate_m: FloatArray) -> _Term:
    r, J = plane_rows(view, T)
    gap = view.gap_m[:, 2] / gate_m[:, None]
    share = np.where(view.valid, np.clip(1 - gap * gap, 0, None) ** 2, 0.0)
    information = np.broadcast_to(1 / noise_m(T)[:, None] ** 2, r.shape)
    return _Term(r, J, share, information, _excess(r, share, information, 1.0))


def _image_term(problem: JointProblem, T: FloatArray) -> _Term:
    e, J = problem.image_rows(T)
    far = (e * e).sum(axis=1) / problem.gate_px[:, None] ** 2
    share = np.clip(1 - far, 0, None) ** 2
    count, shape = len(T), (len(T), -1)
    twice = np.concatenate([share, share], axis=1)
    information = np.concatenate([np.broadcast_to(problem.weights, share.shape)] * 2, axis=1)
    used = ((share > 0) & (problem.weights > 0)).sum(axis=1)
    # six numbers are fitted to two per keypoint
    freedom = np.maximum(1 - 3 / np.maximum(used, 1), 0.1)
    residuals, J = e.reshape(shape), J.swapaxes(1, 2).reshape(count, 6, -1)
    excess = _excess(residuals, twice * (information > 0), information, freedom)
    return _Term(residuals, J, twice, information, excess)


def _excess(
    residuals: FloatArray,
    share: FloatArray,
    information: FloatArray,
    freedom: FloatArray | float,
) -> FloatArray:
    """Mean squared residual (B,) in units of its expected variance, at least 1."""
    mean = (share * information * residuals**2).sum(axis=1) / np.maximum(share.sum(axis=1), 1e-9)
    return np.asarray(np.maximum(mean / freedom, 1.0))


def plane_rows(view: SurfaceView, T: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distances of the measured points to the tangent planes (B, N), derivatives (B, 6, N)."""
    r = np.einsum("bin,bin->bn", view.normals, view.gap_m)
    return r, _jacobian(view.normals, view.points_m - T[:, :3, 3, None])


def noise_m(T: FloatArray) -> FloatArray:
    """Depth noise (B,) to expect at the distance of poses (B, 4, 4)."""
    return np.asarray(NOISE_M + NOISE_PER_M * T[:, 2, 3] ** 2)


def apply_steps(T: FloatArray, steps: FloatArray) -> FloatArray:
    """Move poses (B, 4, 4) by steps (B, 6) of (dt, w): t' = t + dt, R' = exp(w) R."""
    out = T.copy()
    out[:, :3, :3] = rotations(steps[:, 3:]) @ T[:, :3, :3]
    out[:, :3, 3] += steps[:, :3]
    return out


def rotations(rotvecs_rad: FloatArray) -> FloatArray:
    """(B, 3, 3) of rotation vectors (B, 3), by Rodrigues' formula."""
    angle = np.linalg.norm(rotvecs_rad, axis=1)
    cross = se3.skew(rotvecs_rad / np.maximum(angle, 1e-12)[:, None])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross))


def decompose(H: FloatArray, radius_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Information along the principal directions (B, 6), and these, a step per column (B, 6, 6).

    radius_m (B,) makes turns comparable with shifts: the path of a point on the surface.
    """
    scale = np.ones((len(H), 6))
    scale[:, 3:] = 1 / radius_m[:, None]
    values, vectors = np.linalg.eigh(H * scale[:, :, None] * scale[:, None, :])
    return values, scale[:, :, None] * vectors


def _solve_observable(H: FloatArray, g: FloatArray, radius_m: FloatArray) -> FloatArray:
    """Steps H^-1 g (B, 6), zero along directions without information; NaN where H is not finite."""
    finite: NDArray[np.bool_] = np.asarray(
        np.isfinite(H).all(axis=(1, 2)) & np.isfinite(g).all(axis=1)
    )
    values, directions = decompose(np.where(finite[:, None, None], H, np.eye(6)), radius_m)
    along = (directions.swapaxes(1, 2) @ g[:, :, None])[:, :, 0]
    known = values > np.maximum(MIN_INFORMATION * values[:, -1:], 1e-12)
    along = np.where(known, along / np.where(known, values, 1.0), 0.0)
    steps = (directions @ along[:, :, None])[:, :, 0]
    return np.asarray(np.where(finite[:, None], steps, np.nan))


def _jacobian(directions: FloatArray, arms_m: FloatArray) -> FloatArray:
    """[a, y x a]: (..., 6, N) of directions a and arms y, both (..., 3, N)."""
    a, y = directions, np.broadcast_to(arms_m, directions.shape)
    out = np.empty((*a.shape[:-2], 6, a.shape[-1]))
    out[..., :3, :] = a
    out[..., 3, :] = y[..., 1, :] * a[..., 2, :] - y[..., 2, :] * a[..., 1, :]
    out[..., 4, :] = y[..., 2, :] * a[..., 0, :] - y[..., 0, :] * a[..., 2, :]
    out[..., 5, :] = y[..., 0, :] * a[..., 1, :] - y[..., 1, :] * a[..., 0, :]
    return out
