"""Which pose of this frame is which object instance of the last one, and where it will be next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import canonicalize, nearest_equivalent
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, PoseEstimate

MEMORY_NS = 1_000_000_000
MAX_MOVE = 1.0  # object diameters from one frame to the next
# a velocity says nothing about a time much longer than what it was measured over
PREDICT_S = 0.5
# weight of the newest step: two frames of a hand-held camera are one another's noise
NEWEST = 0.5
# What goes behind something has bad last poses: after them it is looked for where the median of so
# many steps leads, too. The newest velocity would lead it away.
STEPS = 5


@dataclass(frozen=True, eq=False)
class Track:
    """The last pose of an instance and how it moves.

    velocity_m_s: of the middle of the object's box, camera frame. turn_rad_s: rotation vector about
    the camera's axes, per second. score: of the last pose. steps_m_s: the velocities of the last
    steps, newest last, (<= 5, 3).
    """

    object_id: str
    instance: int
    stamp_ns: int
    T_camera_object: FloatArray
    velocity_m_s: FloatArray
    turn_rad_s: FloatArray
    score: float
    steps_m_s: FloatArray

    def predict(self, stamp_ns: int, model: ObjectModel) -> FloatArray:
        """The pose at a stamp, 4x4, if the object goes on as it did (at most half a second)."""
        dt_s = self._ahead_s(stamp_ns)
        R = se3.exp_so3(self.turn_rad_s * dt_s) @ self.T_camera_object[:3, :3]
        middle_m = model.bounds_m.mean(axis=0)
        center_m = model.center_m(self.T_camera_object) + self.velocity_m_s * dt_s
        return se3.make_transform(R, center_m - R @ middle_m)

    def places(self, stamp_ns: int, model: ObjectModel) -> FloatArray:
        """Where its middle may be at a stamp, (3, 3): predicted, last, as it mostly went."""
        last = model.center_m(self.T_camera_object)
        steps = np.sort(self.steps_m_s, axis=0)  # np.median takes ten times as long
        steady = steps[len(steps) // 2] if len(steps) else np.zeros(3)
        predicted = model.center_m(self.predict(stamp_ns, model))
        return np.stack([predicted, last, last + steady * self._ahead_s(stamp_ns)])

    def _ahead_s(self, stamp_ns: int) -> float:
        return float(np.clip((stamp_ns - self.stamp_ns) / 1e9, 0.0, PREDICT_S))


class InstanceMemory:
    """Keeps ids stable over frames and symmetric objects from flipping.

    A pose belongs to the instance of its object that is expected nearest to it, going on as it
    moved, at most one diameter from there, from its last place or from where it mostly went, and
    one second old; it keeps that id and becomes the equivalent pose nearest to the last one. Else
    it is a new instance: smallest free id, canonical pose.
    """

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._tracks: dict[tuple[str, int], Track] = {}

    @property
    def tracks(self) -> tuple[Track, ...]:
        """What is remembered, also what the last frame did not show."""
        return tuple(self._tracks.values())

    def reset(self) -> None:
        """Forget all instances."""
        self._tracks.clear()

    def forget_others(self, objects: Sequence[str]) -> None:
        """Forget the instances of all objects but these."""
        self._tracks = {key: track for key, track in self._tracks.items() if key[0] in objects}

    def forget_old(self, stamp_ns: int) -> None:
        """Forget what is over a second from a stamp, in either direction."""
        self._tracks = {
            key: track
            for key, track in self._tracks.items()
            if abs(stamp_ns - track.stamp_ns) <= MEMORY_NS
        }

    def assign(self, poses: Sequence[PoseEstimate], stamp_ns: int) -> list[PoseEstimate]:
        """Give the poses of one frame their ids; order is kept.

        A stamp that jumps by more than a second in either direction forgets everything.
        """
        self.forget_old(stamp_ns)
        partners = self._match(poses, stamp_ns)
        named = []
        for i, pose in enumerate(poses):
            last = self._tracks.get(partners[i]) if i in partners else None
            named.append(self._name(pose, last))
            key = named[-1].object_id, named[-1].instance
            self._tracks[key] = self._track(named[-1], last, stamp_ns)
        return named

    def _match(self, poses: Sequence[PoseEstimate], stamp_ns: int) -> dict[int, tuple[str, int]]:
        """Index of pose -> key of its track, nearest pairs first."""
        pairs = []
        expected = {
            key: track.places(stamp_ns, self._library[key[0]])
            for key, track in self._tracks.items()
        }
        for i, pose in enumerate(poses):
            model = self._library[pose.object_id]
            center = model.center_m(pose.T_camera_object)
            for key, places in expected.items():
                if key[0] != pose.object_id:
                    continue
                off_m = np.linalg.norm(center - places, axis=1)
                # a velocity may be wrong: what stood still is found where it stood
                if off_m.min() < MAX_MOVE * model.diameter_m:
                    pairs.append((float(off_m[0]), i, key))
        partners: dict[int, tuple[str, int]] = {}
        for _, i, key in sorted(pairs):
            if i not in partners and key not in partners.values():
                partners[i] = key
        return partners

    def _name(self, pose: PoseEstimate, last: Track | None) -> PoseEstimate:
        symmetries = self._library[pose.object_id].symmetries
        T = pose.T_camera_object
        if last is not None:
            if symmetries.any:
                # the last pose, not the expected one: a turn about an axis of symmetry is not seen,
                # and one that is expected would then go on by itself
                T = nearest_equivalent(T, last.T_camera_object, symmetries)
            return with_transform(pose, T, last.instance)
        taken = {instance for name, instance in self._tracks if name == pose.object_id}
        instance = next(i for i in range(len(taken) + 1) if i not in taken)
        T = canonicalize(T, symmetries) if symmetries.any else T
        return with_transform(pose, T, instance)

    def _track(self, pose: PoseEstimate, last: Track | None, stamp_ns: int) -> Track:
        T, velocity, turn, steps = pose.T_camera_object, np.zeros(3), np.zeros(3), np.zeros((0, 3))
        if last is not None:
            velocity, turn, steps = last.velocity_m_s, last.turn_rad_s, last.steps_m_s
            dt_s = (stamp_ns - last.stamp_ns) / 1e9
            if dt_s > 0:
                model = self._library[pose.object_id]
                move = model.center_m(T) - model.center_m(last.T_camera_object)
                rotation = se3.log_so3(T[:3, :3] @ last.T_camera_object[:3, :3].T)
                steps = np.vstack([steps, move / dt_s])[-STEPS:]
                velocity = (1 - NEWEST) * velocity + NEWEST * steps[-1]
                turn = (1 - NEWEST) * turn + NEWEST * rotation / dt_s
        return Track(pose.object_id, pose.instance, stamp_ns, T, velocity, turn, pose.score, steps)


def with_transform(pose: PoseEstimate, T_camera_object: FloatArray, instance: int) -> PoseEstimate:
    """The pose with an equivalent transform and an id; its covariance follows a moved origin."""
    move_m = T_camera_object[:3, 3] - pose.T_camera_object[:3, 3]
    covariance = pose.covariance
    if covariance is not None and np.any(move_m):
        J = np.eye(6)
        J[:3, 3:] = -se3.skew(move_m)  # a turn w about the old origin moves the new one by w x move
        covariance = J @ covariance @ J.T
    return replace(pose, T_camera_object=T_camera_object, covariance=covariance, instance=instance)
