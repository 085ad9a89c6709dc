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
from heatnet_ros.types import FloatArray, Frame, PoseEstimate, Reason, Rejection

# object diameters. So near it is one object seen twice; farther than the second, another one
SAME, APART = 0.1, 0.5
# a measured point is on a surface so near to its plane, and so near to a sample of it
ON_PLANE, ON_SURFACE = 0.05, 0.1
# Part of what speaks for a pose that the better one does not explain. tests/unit/test_doubles.py:
# none of it of ghosts in the open, 0.6 and more of two that are stacked.
OWN = 0.1
# of all samples of the surface; fewer that speak for a pose decide nothing: its own depth may be
# missing, and what is left be the neighbour's
LEAST_SUPPORT = 0.1


def drop_doubles(
    poses: Sequence[PoseEstimate], frame: Frame, library: ObjectLibrary
) -> tuple[list[PoseEstimate], list[Rejection]]:
    """Poses without those of an object that a better one already stands for; order is kept.

    Two solid bodies of one kind cannot be in one place: within 0.1 diameters it is one object that
    was found twice. Up to half a diameter the measured depth decides: nearly all points that speak
    for the worse pose lie on the better one's surface; such poses are told as rejected. Two that
    are stacked or stand side by side have points of their own, unless they are thin or hollow and
    nearly in one another.
    """
    chosen: list[PoseEstimate] = []
    rejected = []
    for pose in sorted(poses, key=lambda pose: -pose.score):
        model = library[pose.object_id]
        rivals = [other for other in chosen if other.object_id == pose.object_id]
        apart = [_apart(pose, other, model) for other in rivals]
        if min(apart, default=1.0) < SAME:
            continue
        near = [other for other, away in zip(rivals, apart, strict=True) if away <= APART]
        explained = _largest_share_explained(pose, near, frame, model) if near else 0.0
        if explained > 1 - OWN:
            detail = f"{min(apart):.2f} diameters from a better pose, on which {explained:.0%} of "
            detail += "the depth lies that speaks for it"
            rejected.append(Rejection(pose.object_id, Reason.SAME_OBJECT, detail, pose.detection))
        else:
            chosen.append(pose)
    return [pose for pose in poses if any(pose is other for other in chosen)], rejected


def _apart(pose: PoseEstimate, other: PoseEstimate, model: ObjectModel) -> float:
    """Distance of the two in object diameters."""
    centers_m = [model.center_m(one.T_camera_object) for one in (pose, other)]
    return float(np.linalg.norm(centers_m[0] - centers_m[1])) / model.diameter_m


def _largest_share_explained(
    pose: PoseEstimate, rivals: Sequence[PoseEstimate], frame: Frame, model: ObjectModel
) -> float:
    """Of the measured points that speak for a pose, the part that lies on one of its rivals.

    0 where there is no depth or hardly a point that speaks for it.
    """
    if frame.depth_m is None:
        return 0.0
    surface = model.surface.T[None]
    view = view_surfaces(
        pose.T_camera_object[None], surface[:, :3], surface[:, 3:],
        frame.depth_m, frame.K, frame.distortion,
    )  # fmt: skip
    supports = view.valid[0] & (np.abs(view.gap_m[0, 2]) <= AGREES * model.diameter_m)
    if np.count_nonzero(supports) < LEAST_SUPPORT * len(model.surface):
        return 0.0
    measured = (view.points_m + view.gap_m)[0].T[supports]
    return max(float(_is_on(measured, rival.T_camera_object, model).mean()) for rival in rivals)


def _is_on(
    measured: FloatArray, T_camera_object: FloatArray, model: ObjectModel
) -> NDArray[np.bool_]:
    """Which measured points (M, 3) are on the surface at a pose, (M,).

    By the plane of the nearest sample, as samples lie wide apart, unless that is far: the surface
    has ended there.
    """
    points = se3.transform(se3.invert(T_camera_object), measured)
    samples, normals = model.surface[:, :3], model.surface[:, 3:]
    # |p - s|^2 but for |p|^2, which is the same for all samples of a point
    nearest = ((samples**2).sum(axis=1) - 2 * points @ samples.T).argmin(axis=1)
    steps = points - samples[nearest]
    plane_m = np.abs(np.einsum("mk,mk->m", steps, normals[nearest]))
    near = np.linalg.norm(steps, axis=1) <= ON_SURFACE * model.diameter_m
    return np.asarray(near & (plane_m <= ON_PLANE * model.diameter_m))
