"""Errors of a pose against the truth, and recalls. Metres unless the name says otherwise.

ADD and ADD-S: Hinterstoisser et al., ACCV 2012 (mean distance of the model's vertices); a pose
counts as right below 0.1 of the object's diameter. MSSD, MSPD and VSD: Hodan et al., BOP Challenge
2019 and 2020 (https://bop.felk.cvut.cz), with the thresholds of its average recall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import backproject, project
from heatnet_ros.geometry.symmetry import (
    NO_SYMMETRY,
    Symmetries,
    equivalent_transforms,
    nearest_equivalent,
)
from heatnet_ros.types import DepthF32, FloatArray

AUC_LIMIT_M = 0.1
# BOP 2019: MSSD in diameters, MSPD in pixels of an image 640 wide, VSD's theta and, in diameters,
# its tau
MSSD_THRESHOLDS = np.arange(1, 11) * 0.05
MSPD_THRESHOLDS_PX = np.arange(1, 11) * 5.0
MSPD_IMAGE_WIDTH_PX = 640
VSD_THRESHOLDS = np.arange(1, 11) * 0.05
VSD_TAUS_DIAMETERS = np.arange(1, 11) * 0.05
VSD_DELTA_M = 0.015
# turns of a continuous symmetry: the farthest vertex moves by 0.01 diameters at most between two
BOP_SYMMETRY_STEPS = math.ceil(math.pi / 0.01)

_FLANN_KDTREE_SINGLE = 4
_PROBES = 32
_SAMPLE, _NEAREST = 500, 4


class PoseErrors(NamedTuple):
    """Distance of the origins in mm and angle of the rotations in degrees."""

    translation_mm: float
    rotation_deg: float


def add_error_m(T_est: FloatArray, T_true: FloatArray, vertices_m: FloatArray) -> float:
    """ADD: mean distance between corresponding vertices (N, 3) under both poses (4x4)."""
    delta = se3.transform(T_est, vertices_m) - se3.transform(T_true, vertices_m)
    return float(np.linalg.norm(delta, axis=1).mean())


def adds_error_m(T_est: FloatArray, T_true: FloatArray, vertices_m: FloatArray) -> float:
    """ADD-S: mean distance from each true vertex to the nearest estimated one; exact.

    Both poses are 4x4, vertices (N, 3). Neighbours come from one k-d tree searched without a limit
    (exact to float32 coordinates about the object's centre), distances are float64.
    """
    # relative to the true pose: the numbers stay as small as the object
    estimated = se3.transform(se3.invert(T_true) @ T_est, vertices_m)
    tree = cv2.flann.Index(estimated.astype(np.float32), {"algorithm": _FLANN_KDTREE_SINGLE})
    nearest, _ = tree.knnSearch(vertices_m.astype(np.float32), 1, params={"checks": -1})
    return float(np.linalg.norm(vertices_m - estimated[nearest[:, 0]], axis=1).mean())


def add_or_adds_error_m(
    T_est: FloatArray, T_true: FloatArray, vertices_m: FloatArray, symmetries: Symmetries
) -> float:
    """ADD(-S): ADD-S for a symmetric object, else ADD."""
    measure = adds_error_m if symmetries.any else add_error_m
    return measure(T_est, T_true, vertices_m)


def pose_errors(
    T_est: FloatArray, T_true: FloatArray, symmetries: Symmetries = NO_SYMMETRY
) -> PoseErrors:
    """Translation and rotation error to the true pose's nearest equivalent (in rotation)."""
    T = nearest_equivalent(T_true, T_est, symmetries)
    translation_mm = float(np.linalg.norm(T_est[:3, 3] - T[:3, 3])) * 1e3
    rotation_deg = float(np.rad2deg(se3.rotation_angle_rad(T_est[:3, :3], T[:3, :3])))
    return PoseErrors(translation_mm, rotation_deg)


def projection_error_px(
    T_est: FloatArray,
    T_true: FloatArray,
    vertices_m: FloatArray,
    K: FloatArray,
    symmetries: Symmetries = NO_SYMMETRY,
) -> float:
    """Mean pixel distance of the projected vertices (N, 3), least over the equivalent true poses.

    Infinite where a pose puts a vertex behind the camera. Of many equivalents (a continuous
    symmetry) a sample of the vertices names the nearest ones, which are then measured on all.
    """

    def mean_distance(T_equivalent: FloatArray, points_m: FloatArray) -> float:
        delta = project(se3.transform(T_est, points_m), K)
        delta = delta - project(se3.transform(T_equivalent, points_m), K)
        mean = float(np.linalg.norm(delta, axis=1).mean())
        return mean if math.isfinite(mean) else math.inf

    equivalents = T_true @ equivalent_transforms(symmetries)
    if len(equivalents) > _NEAREST:
        sample = vertices_m[:: max(1, len(vertices_m) // _SAMPLE)]
        near = np.argsort([mean_distance(T, sample) for T in equivalents])[:_NEAREST]
        equivalents = equivalents[near]
    return min(mean_distance(T, vertices_m) for T in equivalents)


def mssd_error_m(
    T_est: FloatArray,
    T_true: FloatArray,
    vertices_m: FloatArray,
    symmetries: Symmetries = NO_SYMMETRY,
) -> float:
    """BOP's MSSD: greatest distance of corresponding vertices (N, 3), least over the symmetries.

    A continuous symmetry is discretised as in BOP.
    """

    def distance(T_equivalent: FloatArray, points_m: FloatArray) -> FloatArray:
        delta = se3.transform(T_est, points_m) - se3.transform(T_equivalent, points_m)
        return np.asarray(np.linalg.norm(delta, axis=1))

    equivalents = T_true @ equivalent_transforms(symmetries, BOP_SYMMETRY_STEPS)
    return _least_greatest(distance, equivalents, vertices_m)


def mspd_error_px(
    T_est: FloatArray,
    T_true: FloatArray,
    vertices_m: FloatArray,
    K: FloatArray,
    symmetries: Symmetries = NO_SYMMETRY,
) -> float:
    """BOP's MSPD: greatest distance of projected vertices (N, 3), least over the symmetries.

    Infinite where a pose puts a vertex behind the camera. A continuous symmetry is discretised as
    in BOP.
    """

    def distance(T_equivalent: FloatArray, points_m: FloatArray) -> FloatArray:
        estimated = project(se3.transform(T_est, points_m), K)
        delta = estimated - project(se3.transform(T_equivalent, points_m), K)
        return np.asarray(np.nan_to_num(np.linalg.norm(delta, axis=1), nan=np.inf))

    equivalents = T_true @ equivalent_transforms(symmetries, BOP_SYMMETRY_STEPS)
    return _least_greatest(distance, equivalents, vertices_m)


def _least_greatest(
    distance: Callable[[FloatArray, FloatArray], FloatArray],
    transforms: FloatArray,
    vertices_m: FloatArray,
) -> float:
    """Minimum over the transforms of the maximum over the vertices of ``distance``; exact.

    A few vertices bound each maximum from below, so that most transforms need no second look.
    """
    probes = vertices_m[:: max(1, len(vertices_m) // _PROBES)]
    bounds = [float(distance(T, probes).max()) for T in transforms]
    least = math.inf
    for i in np.argsort(bounds):
        if bounds[i] >= least:
            break
        least = min(least, float(distance(transforms[i], vertices_m).max()))
    return least


def vsd_errors(
    depth_est_m: DepthF32,
    depth_true_m: DepthF32,
    depth_m: DepthF32,
    K: FloatArray,
    diameter_m: float,
) -> FloatArray:
    """BOP's VSD, 0..1, one per tau of ``VSD_TAUS_DIAMETERS``.

    depth_est_m, depth_true_m: HxW, the model alone rendered at the estimated and the true pose, 0
    where it is not. depth_m: HxW as measured; where it is invalid (0 or not finite) the model
    counts as visible. The visible parts of both are compared: a pixel in one of them only is
    wrong, and so is one whose distances from the camera differ by tau or more. 1 where nothing is
    visible.
    """
    rows, columns = np.nonzero((depth_est_m > 0) | (depth_true_m > 0))
    rays = backproject(np.column_stack([columns, rows]).astype(np.float64), np.ones(len(rows)), K)
    length = np.linalg.norm(rays, axis=1)
    estimated, true, measured = (
        np.where(np.isfinite(d[rows, columns]), d[rows, columns], 0.0) * length
        for d in (depth_est_m, depth_true_m, depth_m)
    )
    seen_true = (true > 0) & ((measured == 0) | (true - measured <= VSD_DELTA_M))
    seen_est = (estimated > 0) & (
        (measured == 0) | (estimated - measured <= VSD_DELTA_M) | seen_true
    )
    both, union = seen_true & seen_est, int(np.count_nonzero(seen_true | seen_est))
    if union == 0:
        return np.ones(len(VSD_TAUS_DIAMETERS))
    off = np.abs(true[both] - estimated[both]) / diameter_m
    wrong = (off[None] >= VSD_TAUS_DIAMETERS[:, None]).sum(axis=1)
    return np.asarray((wrong + union - np.count_nonzero(both)) / union)


def auc(errors_m: Sequence[float], limit_m: float = AUC_LIMIT_M) -> float:
    """Area under the recall curve over thresholds from 0 to ``limit_m``, as a share of it.

    The AUC of ADD(-S) of PoseCNN (Xiang et al., RSS 2018), whose limit is 0.1 m; the exact area,
    which is the mean of 1 - error / limit, 0 for errors beyond and for misses (infinite). NaN
    without targets.
    """
    if not len(errors_m):
        return float("nan")
    return float(np.mean(np.clip(1 - np.asarray(errors_m, np.float64) / limit_m, 0, 1)))


def recall(errors: Sequence[float], threshold: float) -> float:
    """Share of targets with an error below the threshold; a miss is an infinite error.

    NaN when there are no targets: no share is known then.
    """
    if not len(errors):
        return float("nan")
    return float(np.mean(np.asarray(errors, np.float64) < threshold))


def match_instances(errors: FloatArray, scores: Sequence[float]) -> list[int | None]:
    """Assign the estimates of one object in one image to its true instances.

    errors: E x T, estimate to truth. As in BOP only the T best scored estimates count. Pairs are
    made greedily by smallest error. Returns for every truth the estimate's index, or None: a miss.
    """
    estimates, truths = errors.shape
    assigned: list[int | None] = [None] * truths
    allowed = sorted(range(estimates), key=lambda i: -scores[i])[:truths]
    pairs = sorted((float(errors[e, t]), e, t) for e in allowed for t in range(truths))
    used: set[int] = set()
    for _, e, t in pairs:
        if assigned[t] is None and e not in used:
            assigned[t] = e
            used.add(e)
    return assigned


def count_hits(
    errors: FloatArray, scores: Sequence[float], thresholds: Sequence[float] | NDArray[np.floating]
) -> FloatArray:
    """True instances found at each threshold, by the rules of BOP.

    errors: E x T, estimates of one object in one image to its T true instances. The T best scored
    estimates, best first, each take the free instance with the least error below the threshold.
    Returns as many counts as there are thresholds.
    """
    estimates, truths = errors.shape
    allowed = sorted(range(estimates), key=lambda i: -scores[i])[:truths]
    counts = np.zeros(len(thresholds))
    for i, threshold in enumerate(thresholds):
        free = np.ones(truths, bool)
        for e in allowed:
            candidates = np.where(free, errors[e], np.inf)
            t = int(np.argmin(candidates))
            if candidates[t] < threshold:
                free[t] = False
        counts[i] = truths - np.count_nonzero(free)
    return counts
