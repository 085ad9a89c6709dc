"""Pose from keypoints AND measured depth: a keypoint's pixel and what the camera sees around it.

A surface sample may have a measured depth in front of it: something stands there, the object's own
handle as well, which says little about the pose. A measured depth BEHIND a sample says that the
camera looked through the object: that pose is impossible. So the hypotheses that explain the
keypoints are scored on the surface, the best few are fitted to keypoints and depth jointly, and
the one that explains both best wins. PnP alone takes the first of them, which for an object seen
edge-on or half hidden may be wrong by a metre.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import pnp
from heatnet_ros.geometry.joint import (
    DepthImage,
    JointProblem,
    fit_jointly,
    joint_covariance,
    noise_m,
)
from heatnet_ros.types import FloatArray

LEAST_ROUNDS = 2  # of sampling: the first all-inlier triple is not all that is wanted
SCORED, FITTED = 12, 5  # hypotheses that the surface scores, and that are fitted
COARSE_POINTS = 128  # surface samples that score and fit
MIN_POINTS = 12  # fewer with a depth than this decide nothing
# hypotheses nearer to a better one than this are the same; the shift in diameters
SAME_ANGLE_RAD, SAME_SHIFT = 0.26, 0.1
# measured minus predicted depth beyond the gate says no more; in diameters, and not below the noise
GATE, GATE_SIGMA = 0.06, 5.0
# An expected pose with a smaller cost is right. Rendered film of 13 objects, shipped networks: of
# 298 predictions 4 mm and 2 degrees off about 9 in 10 had less; of 270 that led to a wrong pose
# none had less than 0.8.
BORNE_OUT = 0.7
OCCLUDED_COST = 0.5  # of a sample that something stands before; behind the gate it is 1
START_GATE, GATE_SHRINK, ITERATIONS = 0.2, 0.5, 3
# A keypoint's noise as a part of the threshold, and where it stops to count. The noise is not
# taken from the residuals: the errors of one crop's keypoints go together, so that keypoints which
# agree well with each other may still all be off.
NOISE, KEYPOINT_GATE = 0.25, 1.5


def solve_pnp_depth(
    points_object_m: FloatArray,
    points_px: FloatArray,
    confidence: FloatArray,
    threshold_px: float,
    surface: FloatArray,
    diameter_m: float,
    image: DepthImage,
    seed: int = 0,
    T_camera_expected: FloatArray | None = None,
) -> pnp.PnpSolution | None:
    """``solve_pnp`` with a depth image: the pose that keypoints and depth agree on.

    points_object_m (K, 3), points_px (K, 2) of an ideal pinhole with image.K, confidence (K,),
    threshold_px and seed are those of ``solve_pnp``; surface: (N, 6) points and outward unit
    normals in the object's frame. Where the object has no depth, the result is ``solve_pnp``'s.
    T_camera_expected (4, 4): where the object should be, as its last poses say. If keypoints and
    depth bear it out, nothing else is sought; if not, it is one hypothesis more.
    Returns None where fewer than 4 keypoints agree with the pose, or nothing determines it.
    Raises DataError on arrays that do not fit together.
    """
    X, px, w, usable = _usable(points_object_m, points_px, confidence, threshold_px, surface)
    if len(X) < pnp.MIN_INLIERS:
        return None
    problem = _problem(X, px, w, threshold_px, surface, diameter_m, image)
    expected = np.zeros((0, 4, 4))
    if T_camera_expected is not None:
        expected = _fit(T_camera_expected[None], problem)
        costs, seen = _costs(expected, problem, w, threshold_px)
        if costs[0] < BORNE_OUT and seen[0] >= MIN_POINTS:
            return _solution(expected[0], problem, threshold_px, usable)
    rng = np.random.default_rng(seed)
    poses, costs = pnp.sample_poses(X, px, image.K, w, threshold_px, rng, LEAST_ROUNDS)
    if not len(poses):
        return None
    poses = _distinct(poses[np.argsort(costs, kind="stable")], diameter_m)
    costs, seen = _costs(poses, problem, w, threshold_px)
    if seen.max() < MIN_POINTS:
        return pnp.solve_pnp(points_object_m, points_px, image.K, confidence, threshold_px, seed)
    fitted = _fit(poses[np.argsort(costs, kind="stable")[:FITTED]], problem)
    fitted = np.concatenate([fitted, expected])
    costs, _ = _costs(fitted, problem, w, threshold_px)
    return _solution(fitted[int(np.argmin(costs))], problem, threshold_px, usable)


def _usable(
    points_object_m: FloatArray,
    points_px: FloatArray,
    confidence: FloatArray,
    threshold_px: float,
    surface: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, pnp.BoolArray]:
    """The keypoints that count, their pixels and confidence, and which of all they are."""
    X, px, w = pnp.check_keypoints(points_object_m, points_px, confidence, threshold_px)
    if surface.ndim != 2 or surface.shape[1] != 6 or not len(surface):
        raise DataError(f"PnP with depth: expected a surface Nx6, got {surface.shape}.")
    usable = np.isfinite(px).all(axis=1) & (w > 0)
    return X[usable], px[usable], w[usable], usable


def _problem(
    X: FloatArray,
    px: FloatArray,
    w: FloatArray,
    threshold_px: float,
    surface: FloatArray,
    diameter_m: float,
    image: DepthImage,
) -> JointProblem:
    """The problem on an even part of the surface, for any number of poses."""
    coarse = surface[:: max(1, len(surface) // COARSE_POINTS)].T[None]
    weights = w / w.mean() / (NOISE * threshold_px) ** 2
    return JointProblem(
        image,
        coarse[:, :3],
        coarse[:, 3:],
        X.T[None],
        px.T[None],
        weights[None],
        np.array([KEYPOINT_GATE * threshold_px]),
        np.array([diameter_m]),
    )


def _costs(
    T: FloatArray, problem: JointProblem, w: FloatArray, threshold_px: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """What poses (B, 4, 4) leave unexplained, keypoints plus surface, 0..2; samples with depth."""
    X, px = problem.keypoints_m[0].T, problem.pixels[0].T
    errors = pnp.errors_of_poses(T, X, px, problem.image.K) / threshold_px
    keypoints = np.minimum(errors, 1.0) ** 2 @ (w / w.sum())
    view = problem.view(T)
    gap = view.gap_m[:, 2] / _gate_m(problem, T)[:, None]
    cost = np.where(gap < -1, OCCLUDED_COST, np.minimum(gap, 1.0) ** 2) * view.valid
    seen = view.valid.sum(axis=1)
    surface = cost.sum(axis=1) / np.maximum(seen, 1)
    # a pose that has hardly any depth where it should be is explained by nothing
    return keypoints + np.where(seen < MIN_POINTS, 1.0, surface), seen


def _gate_m(problem: JointProblem, T: FloatArray) -> FloatArray:
    return np.maximum(GATE * problem.diameter_m, GATE_SIGMA * noise_m(T))


def _distinct(T: FloatArray, diameter_m: float) -> FloatArray:
    """The first poses that are not nearly the same as one before, SCORED at most."""
    kept: list[FloatArray] = []
    while len(T) and len(kept) < SCORED:
        kept.append(T[0])
        far = np.linalg.norm(T[:, :3, 3] - T[0, :3, 3], axis=1) > SAME_SHIFT * diameter_m
        cosines = (np.einsum("bij,ij->b", T[:, :3, :3], T[0, :3, :3]) - 1) / 2
        other = far | (cosines < np.cos(SAME_ANGLE_RAD))
        other[0] = False
        T = T[other]
    return np.stack(kept)


def _fit(T: FloatArray, problem: JointProblem) -> FloatArray:
    """Poses (B, 4, 4) fitted to keypoints and depth."""
    count = len(T)
    problem = replace(
        problem,
        weights=np.repeat(problem.weights, count, axis=0),
        gate_px=np.repeat(problem.gate_px, count),
        diameter_m=np.repeat(problem.diameter_m, count),
    )
    start_gate_m = START_GATE * problem.diameter_m
    return fit_jointly(problem, T, ITERATIONS, start_gate_m, GATE_SHRINK, _gate_m(problem, T))


def _solution(
    T: FloatArray, problem: JointProblem, threshold_px: float, usable: pnp.BoolArray
) -> pnp.PnpSolution | None:
    X, px = problem.keypoints_m[0].T, problem.pixels[0].T
    errors = pnp.errors_of_poses(T[None], X, px, problem.image.K)[0]
    inliers = errors < threshold_px
    (covariance,) = joint_covariance(problem, T[None], _gate_m(problem, T[None]))
    if inliers.sum() < pnp.MIN_INLIERS or covariance is None:
        return None
    every = np.zeros(len(usable), bool)
    every[np.flatnonzero(usable)[inliers]] = True
    reprojection_px = float(np.sqrt(np.mean(errors[inliers] ** 2)))
    return pnp.PnpSolution(T, every, reprojection_px, covariance, with_depth=True)
