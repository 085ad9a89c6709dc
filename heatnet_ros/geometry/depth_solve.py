"""Pose from keypoints AND measured depth: a keypoint's pixel and what the camera sees around it.

A surface sample may have a measured depth in front of it: something stands there, the object's own
handle as well, which says little about the pose. A measured depth BEHIND a sample says that the
camera looked through the object: that pose is impossible. So the hypotheses that explain the
keypoints are scored on the surface, the best few are fitted to keypoints and depth jointly, and
the one that explains both best wins. PnP alone takes the first of them, which for an object seen
edge-on or half hidden may be wrong by a metre.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import pnp
from heatnet_ros.geometry.depth import stack_surfaces
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


@dataclass(frozen=True, eq=False)
class PoseQuery:
    """One object in the image: keypoints with their pixels, and what is known of its surface.

    points_object_m (K, 3), points_px (K, 2) of an ideal pinhole with the image's K, confidence (K,)
    and threshold_px are those of ``solve_pnp``. surface: (N, 6) points and outward unit normals in
    the object's frame. T_camera_expected (4, 4): where the object should be, as its last poses say.
    Raises DataError on arrays that do not fit together.
    """

    points_object_m: FloatArray
    points_px: FloatArray
    confidence: FloatArray
    threshold_px: float
    surface: FloatArray
    diameter_m: float
    T_camera_expected: FloatArray | None = None

    def __post_init__(self) -> None:
        pnp.check_keypoints(
            self.points_object_m, self.points_px, self.confidence, self.threshold_px
        )
        if self.surface.ndim != 2 or self.surface.shape[1] != 6 or not len(self.surface):
            raise DataError(f"PnP with depth: expected a surface Nx6, got {self.surface.shape}.")

    @property
    def usable(self) -> pnp.BoolArray:
        """Which of the K keypoints count."""
        return np.isfinite(self.points_px).all(axis=1) & (self.confidence > 0)


def solve_pnp_depth(
    queries: Sequence[PoseQuery], image: DepthImage, seed: int = 0
) -> list[pnp.PnpSolution | None]:
    """``solve_pnp`` with a depth image, all objects at once: poses keypoints and depth agree on.

    Where an object has no depth, its result is ``solve_pnp``'s. If keypoints and depth bear an
    expected pose out, nothing else is sought; if not, it is one hypothesis more. None where fewer
    than 4 keypoints agree with the pose, or nothing determines it.
    """
    solutions: list[pnp.PnpSolution | None] = [None] * len(queries)
    ready = [i for i, query in enumerate(queries) if query.usable.sum() >= pnp.MIN_INLIERS]
    if not ready:
        return solutions
    asked = [queries[i] for i in ready]
    problem = _stack(asked, image)
    known, poses = _confirm(asked, problem)
    left = [i for i in range(len(asked)) if i not in known]
    found = known | _search(asked, left, problem, poses, seed)
    for i, T in found.items():
        if T is None:  # no depth where the object is
            q = asked[i]
            solutions[ready[i]] = pnp.solve_pnp(
                q.points_object_m, q.points_px, image.K, q.confidence, q.threshold_px, seed
            )
    rows = [i for i, T in found.items() if T is not None]
    if rows:
        T = np.stack([T for T in found.values() if T is not None])
        done = _conclude(T, problem.take(rows), [asked[i] for i in rows])
        for i, solution in zip(rows, done, strict=True):
            solutions[ready[i]] = solution
    return solutions


def _stack(queries: Sequence[PoseQuery], image: DepthImage) -> JointProblem:
    """A problem per object on an even part of its surface; zeros where one has less."""
    surfaces = [q.surface[:: max(1, len(q.surface) // COARSE_POINTS)] for q in queries]
    count = len(queries)
    samples = stack_surfaces(surfaces)
    most = max(len(q.points_px) for q in queries)
    keypoints, pixels = np.zeros((count, 3, most)), np.zeros((count, 2, most))
    weights = np.zeros((count, most))
    for i, q in enumerate(queries):
        usable = np.flatnonzero(q.usable)
        keypoints[i][:, usable] = q.points_object_m[usable].T
        pixels[i][:, usable] = q.points_px[usable].T
        w = q.confidence[usable]
        weights[i, usable] = w / w.mean() / (NOISE * q.threshold_px) ** 2
    threshold_px = np.array([q.threshold_px for q in queries])
    return JointProblem(
        image,
        samples[:, :3],
        samples[:, 3:],
        keypoints,
        pixels,
        weights,
        KEYPOINT_GATE * threshold_px,
        np.array([q.diameter_m for q in queries]),
    )


def _confirm(
    queries: Sequence[PoseQuery], problem: JointProblem
) -> tuple[dict[int, FloatArray | None], dict[int, FloatArray]]:
    """Expected poses, fitted: those that keypoints and depth bear out, and the others."""
    rows = [i for i, q in enumerate(queries) if q.T_camera_expected is not None]
    if not rows:
        return {}, {}
    expected = np.stack([T for q in queries if (T := q.T_camera_expected) is not None])
    part = problem.take(rows)
    fitted = _fit(expected, part)
    costs, seen = _costs(fitted, part)
    right = (costs < BORNE_OUT) & (seen >= MIN_POINTS)
    borne_out: dict[int, FloatArray | None] = {}
    others = {}
    for i, T, is_right in zip(rows, fitted, right, strict=True):
        if is_right:
            borne_out[i] = T
        else:
            others[i] = T
    return borne_out, others


def _search(
    queries: Sequence[PoseQuery],
    left: Sequence[int],
    problem: JointProblem,
    expected: Mapping[int, FloatArray],
    seed: int,
) -> dict[int, FloatArray | None]:
    """The best pose of each object in ``left``; None where there is no depth to tell by.

    An object that no three keypoints give a pose for is left out.
    """
    sampled = _Candidates()
    for i in left:
        q = queries[i]
        usable, rng = q.usable, np.random.default_rng(seed)
        X, px, w = q.points_object_m[usable], q.points_px[usable], q.confidence[usable]
        poses, costs = pnp.sample_poses(
            X, px, problem.image.K, w, q.threshold_px, rng, LEAST_ROUNDS
        )
        if len(poses):
            order = np.argsort(costs, kind="stable")
            sampled.add(i, _distinct(poses[order], q.diameter_m))
    seeing, found = _Candidates(), dict[int, FloatArray | None]()
    for i, (poses, costs, seen) in sampled.judge(problem).items():
        if seen.max() < MIN_POINTS:
            found[i] = None
        else:
            seeing.add(i, poses[np.argsort(costs, kind="stable")[:FITTED]])
    fitted = seeing.fit(problem)
    for i in seeing.owners:
        if i in expected:
            fitted.add(i, expected[i][None])
    for i, (poses, costs, _) in fitted.judge(problem).items():
        found[i] = poses[int(np.argmin(costs))]
    return found


class _Candidates:
    """Poses (B, 4, 4) of several objects, kept flat so that all are judged and fitted at once."""

    def __init__(self) -> None:
        self._poses: dict[int, list[FloatArray]] = {}

    @property
    def owners(self) -> tuple[int, ...]:
        """Rows of the problem that have candidates."""
        return tuple(self._poses)

    def add(self, owner: int, T: FloatArray) -> None:
        """Candidates (B, 4, 4) of the object in a row of the problem."""
        self._poses.setdefault(owner, []).append(T)

    def judge(
        self, problem: JointProblem
    ) -> dict[int, tuple[FloatArray, FloatArray, NDArray[np.int64]]]:
        """Owner -> its poses, their costs, their samples with depth; see ``_costs``."""
        if not self._poses:
            return {}
        T, rows = self._flat()
        costs, seen = _costs(T, problem.take(rows))
        return {i: (T[rows == i], costs[rows == i], seen[rows == i]) for i in self._poses}

    def fit(self, problem: JointProblem) -> _Candidates:
        """The same, each fitted to keypoints and depth."""
        out = _Candidates()
        if self._poses:
            T, rows = self._flat()
            fitted = _fit(T, problem.take(rows))
            for i in self._poses:
                out.add(i, fitted[rows == i])
        return out

    def _flat(self) -> tuple[FloatArray, NDArray[np.intp]]:
        owned = [(i, np.concatenate(parts)) for i, parts in self._poses.items()]
        rows = np.repeat([i for i, _ in owned], [len(T) for _, T in owned])
        return np.concatenate([T for _, T in owned]), rows


def _costs(T: FloatArray, problem: JointProblem) -> tuple[FloatArray, NDArray[np.int64]]:
    """What poses (B, 4, 4) leave unexplained, keypoints plus surface, 0..2; samples with depth."""
    limit_px = problem.gate_px[:, None] / KEYPOINT_GATE
    w = problem.weights / problem.weights.sum(axis=1, keepdims=True)
    keypoints = (np.minimum(problem.errors_px(T) / limit_px, 1.0) ** 2 * w).sum(axis=1)
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
    start_gate_m = START_GATE * problem.diameter_m
    return fit_jointly(problem, T, ITERATIONS, start_gate_m, GATE_SHRINK, _gate_m(problem, T))


def _conclude(
    T: FloatArray, problem: JointProblem, queries: Sequence[PoseQuery]
) -> list[pnp.PnpSolution | None]:
    """Solutions of the poses chosen (B, 4, 4), one per row of the problem."""
    errors_px = problem.errors_px(T)
    covariances = joint_covariance(problem, T, _gate_m(problem, T))
    solutions: list[pnp.PnpSolution | None] = []
    for i, q in enumerate(queries):
        errors = errors_px[i, : len(q.points_px)]
        inliers = q.usable & (errors < q.threshold_px)
        covariance = covariances[i]
        if inliers.sum() < pnp.MIN_INLIERS or covariance is None:
            solutions.append(None)
            continue
        rms_px = float(np.sqrt(np.mean(errors[inliers] ** 2)))
        solutions.append(pnp.PnpSolution(T[i], inliers, rms_px, covariance, with_depth=True))
    return solutions
