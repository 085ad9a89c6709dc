"""Which poses stand for an object that another pose already stands for.

Two boxes may lie on one object: the detector's, or that of an instance which has just gone behind
another of its kind. The second pose is then near the first one, and wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.gate import AGREES
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.depth import view_surfaces
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, Frame, PoseEstimate

# object diameters. So near it is one object seen twice; farther than the second, another one
SAME, APART = 0.1, 0.5
# a measured point is on a surface so near to its plane, and so near to a sample of it
ON_PLANE, ON_SURFACE = 0.05, 0.1
# Part of what speaks for a pose that the better one does not explain. Measured: 0.00 of ghosts, and
# 0.64 to 0.95 of two that are stacked; two cups, one in the other, have little of their own.
OWN = 0.1


def drop_doubles(
    poses: Sequence[PoseEstimate], frame: Frame, library: ObjectLibrary
) -> list[PoseEstimate]:
    """Poses without those of an object that a better one already stands for; order is kept.

    Two solid bodies of one kind cannot be in one place: within 0.1 diameters it is one object that
    was found twice. Up to half a diameter the measured depth decides: nearly all points that speak
    for the worse pose lie on the better one's surface. Two that are stacked or stand side by side
    have points of their own.
    """
    chosen: list[PoseEstimate] = []
    for pose in sorted(poses, key=lambda pose: -pose.score):
        model = library[pose.object_id]
        rivals = [other for other in chosen if other.object_id == pose.object_id]
        if not any(_is_double(pose, other, frame, model) for other in rivals):
            chosen.append(pose)
    return [pose for pose in poses if any(pose is other for other in chosen)]


def _is_double(pose: PoseEstimate, better: PoseEstimate, frame: Frame, model: ObjectModel) -> bool:
    T, T_better = pose.T_camera_object, better.T_camera_object
    away = float(np.linalg.norm(model.center_m(T) - model.center_m(T_better))) / model.diameter_m
    if away < SAME or away > APART or frame.depth_m is None:
        return away < SAME
    surface = model.surface.T[None]
    view = view_surfaces(
        T[None], surface[:, :3], surface[:, 3:], frame.depth_m, frame.K, frame.distortion
    )
    supports = view.valid[0] & (np.abs(view.gap_m[0, 2]) <= AGREES * model.diameter_m)
    measured = (view.points_m + view.gap_m)[0].T[supports]
    return len(measured) > 0 and bool(np.mean(_is_on(measured, T_better, model)) > 1 - OWN)


def _is_on(
    measured: FloatArray, T_camera_object: FloatArray, model: ObjectModel
) -> NDArray[np.bool_]:
    """Which measured points (M, 3) are on the surface at a pose, (M,).

    By the plane of the nearest sample, as samples lie wide apart, unless that is far: the surface
    has ended there.
    """
    points = se3.transform(se3.invert(T_camera_object), measured)
    steps = points[:, None] - model.surface[None, :, :3]
    squared = np.einsum("mnk,mnk->mn", steps, steps)
    nearest, rows = squared.argmin(axis=1), np.arange(len(points))
    plane_m = np.abs(np.einsum("mk,mk->m", steps[rows, nearest], model.surface[nearest, 3:]))
    near = squared[rows, nearest] <= (ON_SURFACE * model.diameter_m) ** 2
    return np.asarray(near & (plane_m <= ON_PLANE * model.diameter_m))
