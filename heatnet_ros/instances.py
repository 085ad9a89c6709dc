"""Which pose of this frame is which object instance of the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import canonicalize, nearest_equivalent
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, PoseEstimate

MEMORY_NS = 1_000_000_000
MAX_MOVE = 1.0  # object diameters from one frame to the next


class InstanceMemory:
    """Keeps ids stable over frames and symmetric objects from flipping.

    A pose belongs to the nearest last pose of the same object, at most one diameter away and one
    second old; it keeps that instance's id and becomes the equivalent pose nearest to it. Else it
    is a new instance: smallest free id, canonical pose.
    """

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._last: dict[tuple[str, int], tuple[int, FloatArray]] = {}

    def reset(self) -> None:
        """Forget all instances."""
        self._last.clear()

    def assign(self, poses: Sequence[PoseEstimate], stamp_ns: int) -> list[PoseEstimate]:
        """Give the poses of one frame their ids; order is kept.

        A stamp that jumps by more than a second in either direction forgets everything.
        """
        self._last = {
            key: (stamp, T)
            for key, (stamp, T) in self._last.items()
            if abs(stamp_ns - stamp) <= MEMORY_NS
        }
        partners = self._match(poses)
        named = []
        for i, pose in enumerate(poses):
            named.append(self._name(pose, partners.get(i)))
            key = named[-1].object_id, named[-1].instance
            self._last[key] = (stamp_ns, named[-1].T_camera_object)
        return named

    def _match(self, poses: Sequence[PoseEstimate]) -> dict[int, tuple[str, int]]:
        """Index of pose -> key of its last pose, nearest pairs first."""
        pairs = []
        for i, pose in enumerate(poses):
            model = self._library[pose.object_id]
            center = _center(pose.T_camera_object, model)
            for key, (_, T) in self._last.items():
                move_m = float(np.linalg.norm(center - _center(T, model)))
                if key[0] == pose.object_id and move_m < MAX_MOVE * model.diameter_m:
                    pairs.append((move_m, i, key))
        partners: dict[int, tuple[str, int]] = {}
        for _, i, key in sorted(pairs):
            if i not in partners and key not in partners.values():
                partners[i] = key
        return partners

    def _name(self, pose: PoseEstimate, partner: tuple[str, int] | None) -> PoseEstimate:
        symmetries = self._library[pose.object_id].symmetries
        T = pose.T_camera_object
        if partner is not None:
            if symmetries.any:
                T = nearest_equivalent(T, self._last[partner][1], symmetries)
            return _with_pose(pose, T, partner[1])
        taken = {instance for name, instance in self._last if name == pose.object_id}
        instance = next(i for i in range(len(taken) + 1) if i not in taken)
        T = canonicalize(T, symmetries) if symmetries.any else T
        return _with_pose(pose, T, instance)


def _center(T_camera_object: FloatArray, model: ObjectModel) -> FloatArray:
    """Middle of the object's box in the camera frame: symmetries leave it where it is."""
    return se3.transform(T_camera_object, model.bounds_m.mean(axis=0))


def _with_pose(pose: PoseEstimate, T_camera_object: FloatArray, instance: int) -> PoseEstimate:
    """The pose with an equivalent transform; its covariance follows a moved origin."""
    move_m = T_camera_object[:3, 3] - pose.T_camera_object[:3, 3]
    covariance = pose.covariance
    if covariance is not None and np.any(move_m):
        J = np.eye(6)
        J[:3, 3:] = -se3.skew(move_m)  # a turn w about the old origin moves the new one by w x move
        covariance = J @ covariance @ J.T
    return replace(pose, T_camera_object=T_camera_object, covariance=covariance, instance=instance)
