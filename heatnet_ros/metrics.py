"""Errors of a pose against the truth. Distances in metres unless the name says otherwise.

ADD and ADD-S: Hinterstoisser et al., ACCV 2012 (mean distance of the model's vertices); a pose
counts as right below 0.1 of the object's diameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.symmetry import (
    NO_SYMMETRY,
    Symmetries,
    equivalent_transforms,
    nearest_equivalent,
)
from heatnet_ros.types import FloatArray

_FLANN_KDTREE_SINGLE = 4


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

    Infinite where a pose puts a vertex behind the camera.
    """
    estimated = project(se3.transform(T_est, vertices_m), K)
    errors = [
        np.linalg.norm(estimated - project(se3.transform(T, vertices_m), K), axis=1).mean()
        for T in T_true @ equivalent_transforms(symmetries)
    ]
    finite = [float(error) for error in errors if np.isfinite(error)]
    return min(finite, default=float("inf"))


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
