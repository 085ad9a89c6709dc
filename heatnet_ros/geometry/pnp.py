"""Pose of an object from the image positions of its keypoints: RANSAC, refinement, covariance.

Three-point hypotheses (OpenCV's P3P) are scored together with numpy; the best is fitted to its
inliers with OpenCV's SQPnP, then by confidence-weighted Levenberg-Marquardt. All randomness comes
from a generator made from ``seed`` in the call, so the same input gives the same bytes whatever
else draws random numbers, in any thread.

A step xi = (dt, w) changes a pose from the left, in the camera's axes: t' = t + dt and
R' = exp(w) R, a turn about the object's origin. That is also how geometry_msgs reads a covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray

BoolArray = NDArray[np.bool_]

MIN_INLIERS = 4
ROUNDS = 10
SAMPLES_PER_ROUND = 16
# stop sampling once the chance to have missed an all-inlier sample is below this
MISS_PROBABILITY = 1e-3
# smallest over largest eigenvalue of the unit-free normal matrix of a pose that is determined
MIN_CONDITION = 1e-9


@dataclass(frozen=True, eq=False)
class PnpSolution:
    """A solved pose.

    T_camera_object: 4x4. inliers: K bool, the keypoints the pose was fitted to. reprojection_px:
    RMS over the inliers. covariance: 6x6 of (x, y, z, rx, ry, rz) in m, rad, rotations about the
    camera's fixed axes. with_depth: measured depth took part.
    """

    T_camera_object: FloatArray
    inliers: BoolArray
    reprojection_px: float
    covariance: FloatArray
    with_depth: bool = False


def solve_pnp(
    points_object_m: FloatArray,
    points_px: FloatArray,
    K: FloatArray,
    confidence: FloatArray,
    threshold_px: float,
    seed: int = 0,
) -> PnpSolution | None:
    """Find the pose that projects keypoints (K, 3) onto pixels (K, 2) of an ideal pinhole camera.

    confidence: (K,), proportional to the inverse variance of a keypoint; keypoints at 0 or with a
    position that is not finite are not used. threshold_px: an inlier's largest error. Returns None
    for fewer than 4 inliers, inliers on a line or in one spot of the object or the image, or a
    pose behind the camera.
    Raises DataError on arrays that do not fit together.
    """
    points, pixels, weights = check_keypoints(points_object_m, points_px, confidence, threshold_px)
    usable = np.isfinite(pixels).all(axis=1) & (weights > 0)
    if usable.sum() < MIN_INLIERS:
        return None
    X, px, w = points[usable], pixels[usable], weights[usable]
    poses, costs = sample_poses(X, px, K, w, threshold_px, np.random.default_rng(seed))
    if not len(poses):
        return None
    T = _fit_inliers(poses[int(np.argmin(costs))], X, px, K, w, threshold_px)
    inliers = _errors_px(T, X, px, K) < threshold_px
    for _ in range(2):  # fit, select the inliers of the fit, fit those
        if inliers.sum() < MIN_INLIERS or _is_line(X[inliers]):
            return None
        if _is_spot(px[inliers], threshold_px):
            return None
        T = refine_pose(T, X[inliers], px[inliers], K, w[inliers])
        fitted, inliers = inliers, _errors_px(T, X, px, K) < threshold_px
        if np.array_equal(fitted, inliers):
            break
    return _solution(T, X, px, K, w, fitted, usable)


def refine_pose(
    T_camera_object: FloatArray,
    points_object_m: FloatArray,
    points_px: FloatArray,
    K: FloatArray,
    weights: FloatArray,
    iterations: int = 20,
) -> FloatArray:
    """Levenberg-Marquardt on the weighted squared reprojection error; returns a 4x4.

    points_object_m: (N, 3). points_px: (N, 2). weights: (N,) of the squared errors. A step that
    does not lower the error, or puts a point behind the camera, is not taken.
    """
    T, damping = T_camera_object, 1e-4
    cost, H, g = _normal_equations(T, points_object_m, points_px, K, weights)
    for _ in range(iterations):
        damped = H + damping * np.diag(np.diag(H))
        step = np.asarray(np.linalg.lstsq(damped, g, rcond=None)[0], np.float64)
        candidate = apply_step(T, step)
        new = _normal_equations(candidate, points_object_m, points_px, K, weights)
        if not new[0] < cost:
            if damping > 1e3 or _is_tiny(step, points_object_m):
                break
            damping *= 10
            continue
        converged = cost - new[0] < 1e-12 * cost or _is_tiny(step, points_object_m)
        T, (cost, H, g) = candidate, new
        damping = max(damping / 10, 1e-12)
        if converged:
            break
    return se3.make_transform(se3.orthonormalize(T[:3, :3]), T[:3, 3])


def apply_step(T_camera_object: FloatArray, step: FloatArray) -> FloatArray:
    """Move a pose by (dt, w): t' = t + dt, R' = exp(w) R."""
    R = se3.exp_so3(step[3:]) @ T_camera_object[:3, :3]
    return se3.make_transform(R, T_camera_object[:3, 3] + step[:3])


def reprojection_jacobian(
    T_camera_object: FloatArray, points_object_m: FloatArray, K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Pixels (N, 2) of points (N, 3) and their derivative (N, 2, 6) by a step (dt, w)."""
    rotated = points_object_m @ T_camera_object[:3, :3].T
    p = rotated + T_camera_object[:3, 3]
    inverse_z = 1.0 / np.where(p[:, 2] > 0, p[:, 2], np.nan)
    xy = p[:, :2] * inverse_z[:, None]
    focal = np.diag(K)[:2]
    J = np.zeros((len(p), 2, 6))
    J[:, 0, 0] = focal[0] * inverse_z
    J[:, 1, 1] = focal[1] * inverse_z
    J[:, :, 2] = -focal * xy * inverse_z[:, None]
    J[:, :, 3:] = J[:, :, :3] @ se3.skew(-rotated)  # exp(w) y = y + w x y
    return xy * focal + K[:2, 2], J


def check_keypoints(
    points_object_m: FloatArray, points_px: FloatArray, confidence: FloatArray, threshold_px: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same arrays as float64. Raises DataError where they do not fit together."""
    points, pixels, weights = (
        np.asarray(a, np.float64) for a in (points_object_m, points_px, confidence)
    )
    n = len(points)
    shapes = (points.shape, pixels.shape, weights.shape)
    if shapes != ((n, 3), (n, 2), (n,)):
        raise DataError(f"PnP: expected keypoints Kx3, pixels Kx2, confidence K, got {shapes}.")
    if not threshold_px > 0:
        raise DataError(f"PnP: the inlier threshold must be > 0 px, got {threshold_px}.")
    return points, pixels, weights


def sample_poses(
    X: FloatArray,
    px: FloatArray,
    K: FloatArray,
    weights: FloatArray,
    threshold_px: float,
    rng: np.random.Generator,
    least_rounds: int = 1,
) -> tuple[FloatArray, FloatArray]:
    """Hypotheses (H, 4, 4) from triples of keypoints, and their truncated errors (H,) in 0..1.

    Sampling ends when an all-inlier triple was hardly missed, after ``least_rounds`` at least.
    """
    pool, costs, samples = [np.zeros((0, 4, 4))], [np.zeros(0)], 0
    total = float(weights.sum())
    for rounds in range(1, ROUNDS + 1):
        # largest keys of log weight + Gumbel noise: draws without replacement, by confidence
        keys = np.log(weights) + rng.gumbel(size=(SAMPLES_PER_ROUND, len(X)))
        triples = np.argpartition(-keys, 3, axis=1)[:, :3]
        samples += SAMPLES_PER_ROUND
        poses = _three_point_poses(X, px, K, triples)
        if not len(poses):
            continue
        errors = errors_of_poses(poses, X, px, K)
        scores = np.minimum(errors / threshold_px, 1.0) ** 2 @ weights / total
        pool.append(poses)
        costs.append(scores)
        share = float(weights @ (errors[np.argmin(scores)] < threshold_px)) / total
        if rounds >= least_rounds and (1 - share**3) ** samples < MISS_PROBABILITY:
            break
    return np.concatenate(pool), np.concatenate(costs)


def _fit_inliers(
    T: FloatArray,
    X: FloatArray,
    px: FloatArray,
    K: FloatArray,
    weights: FloatArray,
    threshold_px: float,
) -> FloatArray:
    """The pose fitted to its inliers by SQPnP where that lowers the truncated error."""
    errors = _errors_px(T, X, px, K)
    inliers = errors < threshold_px
    if inliers.sum() < MIN_INLIERS or _is_line(X[inliers]):
        return T
    try:
        found, rotvec, t = cv2.solvePnP(X[inliers], px[inliers], K, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # it asserts that the points are spread over the image
        return T
    if not found:
        return T
    fitted = se3.make_transform(se3.exp_so3(rotvec), t)
    both = np.stack([errors, _errors_px(fitted, X, px, K)])
    scores = np.minimum(both / threshold_px, 1.0) ** 2 @ weights
    return fitted if scores[1] < scores[0] else T


def _three_point_poses(
    X: FloatArray, px: FloatArray, K: FloatArray, triples: NDArray[np.intp]
) -> FloatArray:
    """All P3P solutions of the samples, Hx4x4; a degenerate sample has none."""
    rotvecs: list[FloatArray] = []
    translations: list[FloatArray] = []
    for triple in triples:
        _, r, t = cv2.solveP3P(X[triple], px[triple], K, None, flags=cv2.SOLVEPNP_AP3P)
        rotvecs += r
        translations += t
    if not rotvecs:
        return np.zeros((0, 4, 4))
    v = np.concatenate(rotvecs, axis=1).T
    poses = np.tile(np.eye(4), (len(v), 1, 1))
    angle = np.linalg.norm(v, axis=1)
    cross = se3.skew(v / np.maximum(angle, 1e-12)[:, None])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    poses[:, :3, :3] += sine * cross + (1 - cosine) * (cross @ cross)
    poses[:, :3, 3] = np.concatenate(translations, axis=1).T
    return poses[np.isfinite(poses).all(axis=(1, 2))]


def errors_of_poses(
    T_camera_object: FloatArray, X: FloatArray, px: FloatArray, K: FloatArray
) -> FloatArray:
    """Reprojection errors HxN in px of poses Hx4x4; infinite behind the camera."""
    H, n = len(T_camera_object), len(X)
    projection = K @ T_camera_object[:, :3]
    homogeneous = np.column_stack([X, np.ones(n)])
    # one matrix product for all poses: a batched one is 30 times slower on such small blocks
    p = (projection.reshape(-1, 4) @ homogeneous.T).reshape(H, 3, n)
    z = np.where(p[:, 2] > 0, p[:, 2], np.nan)
    errors = np.hypot(p[:, 0] / z - px[:, 0], p[:, 1] / z - px[:, 1])
    return np.where(np.isnan(errors), np.inf, errors)


def _errors_px(T: FloatArray, X: FloatArray, px: FloatArray, K: FloatArray) -> FloatArray:
    """Reprojection errors (N,) in px; infinite behind the camera."""
    return np.asarray(errors_of_poses(T[None], X, px, K)[0])


def _normal_equations(
    T: FloatArray, X: FloatArray, px: FloatArray, K: FloatArray, weights: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Cost, J^T W J (6x6) and J^T W r (6,); the cost is NaN with a point behind the camera."""
    predicted, J = reprojection_jacobian(T, X, K)
    r = px - predicted
    Jw = (J * weights[:, None, None]).reshape(-1, 6)
    H, g = J.reshape(-1, 6).T @ Jw, Jw.T @ r.ravel()
    return float(weights @ (r**2).sum(axis=1)), H, g


def _is_tiny(step: FloatArray, X: FloatArray) -> bool:
    """True for a step that moves no keypoint by more than about 1e-9 of the object's size."""
    size = float(np.abs(X).max())
    return bool(np.abs(step[:3]).max() < 1e-9 * size and np.abs(step[3:]).max() < 1e-9)


def _is_line(X: FloatArray) -> bool:
    """True for points on one line or in one spot, which leave a rotation free."""
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    return bool(singular[1] <= 1e-6 * max(singular[0], 1e-12))


def _is_spot(px: FloatArray, threshold_px: float) -> bool:
    """True for pixels so close together that any far pose would have them all as inliers."""
    radius = np.sqrt(np.mean(np.sum((px - px.mean(axis=0)) ** 2, axis=1)))
    return bool(radius < threshold_px)


def _solution(
    T: FloatArray,
    X: FloatArray,
    px: FloatArray,
    K: FloatArray,
    weights: FloatArray,
    inliers: BoolArray,
    usable: BoolArray,
) -> PnpSolution | None:
    """Covariance and RMS of a fitted pose; None where the pose is not determined."""
    cost, H, _ = _normal_equations(T, X[inliers], px[inliers], K, weights[inliers])
    scale = np.sqrt(np.diag(H))
    if not (np.isfinite(cost) and np.all(scale > 0)):
        return None
    unit_free = H / np.outer(scale, scale)
    eigenvalues = np.linalg.eigvalsh(unit_free)
    if eigenvalues[0] < MIN_CONDITION * eigenvalues[-1]:
        return None
    variance = cost / (2 * inliers.sum() - 6)
    covariance = np.linalg.inv(unit_free) / np.outer(scale, scale) * variance
    every = np.zeros(len(usable), bool)
    every[np.flatnonzero(usable)[inliers]] = True
    errors = _errors_px(T, X[inliers], px[inliers], K)
    return PnpSolution(
        T, every, float(np.sqrt(np.mean(errors**2))), (covariance + covariance.T) / 2
    )
