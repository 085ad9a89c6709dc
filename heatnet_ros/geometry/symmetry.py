"""Symmetric objects: the set of equivalent poses, one of which must be chosen and kept.

A symmetry S maps the object onto itself, so ``T_camera_object @ S`` looks the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Symmetries of one object, in its own frame.

    discrete: Sx4x4, identity first. axis: unit direction of a continuous rotation symmetry through
    ``point_m``, or None. Both together are allowed (a cylinder that may also be turned over).
    """

    discrete: FloatArray
    axis: FloatArray | None = None
    point_m: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.discrete.ndim != 3 or self.discrete.shape[1:] != (4, 4):
            raise ConfigError(f"Symmetries: expected Sx4x4, got {self.discrete.shape}.")
        if not np.allclose(self.discrete[0], np.eye(4)):
            raise ConfigError("Symmetries: the first discrete symmetry must be the identity.")
        if (self.axis is None) != (self.point_m is None):
            raise ConfigError("Symmetries: a continuous axis needs both axis and point_m.")

    @property
    def any(self) -> bool:
        """True when there is a symmetry other than the identity."""
        return len(self.discrete) > 1 or self.axis is not None


NO_SYMMETRY = Symmetries(np.eye(4)[None])


def rotation_about(axis: FloatArray, point_m: FloatArray, angle_rad: float) -> FloatArray:
    """4x4 rotation by an angle about the line through ``point_m`` along ``axis``."""
    R = se3.exp_so3(np.asarray(axis, np.float64) / np.linalg.norm(axis) * angle_rad)
    point = np.asarray(point_m, np.float64)
    return se3.make_transform(R, point - R @ point)


def equivalent_transforms(symmetries: Symmetries, steps: int = 64) -> FloatArray:
    """All symmetries as Sx4x4; a continuous axis is sampled in ``steps`` equal angles."""
    if symmetries.axis is None or symmetries.point_m is None:
        return symmetries.discrete
    angles = np.arange(steps) * 2 * np.pi / steps
    turns = np.stack([rotation_about(symmetries.axis, symmetries.point_m, a) for a in angles])
    return (symmetries.discrete[:, None] @ turns[None]).reshape(-1, 4, 4)


def canonicalize(T_camera_object: FloatArray, symmetries: Symmetries) -> FloatArray:
    """Of all equivalent poses the canonical one: it depends only on what the camera sees.

    The camera's direction in the object frame is brought nearest to a fixed reference direction
    (the object's x axis, or a perpendicular of the continuous axis). Training targets use the
    same function, so that a network is asked for one answer per image.
    """
    candidates = T_camera_object @ symmetries.discrete
    if symmetries.axis is not None and symmetries.point_m is not None:
        candidates = np.stack([_turn_to_camera(T, symmetries) for T in candidates])
    if len(candidates) == 1:
        return np.asarray(candidates[0])
    to_camera = np.stack([-T[:3, :3].T @ T[:3, 3] for T in candidates])
    # the small second and third components break ties for axes along x
    reference = np.array([1.0, 1e-3, 1e-6])
    return np.asarray(candidates[int(np.argmax(to_camera @ reference))])


def nearest_equivalent(
    T_camera_object: FloatArray, T_camera_last: FloatArray, symmetries: Symmetries
) -> FloatArray:
    """Of all equivalent poses the one nearest the last published, so that it never flips."""
    candidates = T_camera_object @ symmetries.discrete
    if symmetries.axis is not None and symmetries.point_m is not None:
        candidates = np.stack([_turn_to_pose(T, T_camera_last, symmetries) for T in candidates])
    angles = [se3.rotation_angle_rad(T_camera_last[:3, :3], T[:3, :3]) for T in candidates]
    return np.asarray(candidates[int(np.argmin(angles))])


def _perpendiculars(axis: FloatArray) -> tuple[FloatArray, FloatArray]:
    helper = np.eye(3)[0] if abs(axis[0]) < 0.9 else np.eye(3)[1]
    u = helper - axis * (helper @ axis)
    u /= np.linalg.norm(u)
    return u, np.cross(axis, u)


def _turn_to_camera(T: FloatArray, symmetries: Symmetries) -> FloatArray:
    assert symmetries.axis is not None and symmetries.point_m is not None  # for the type checker
    u, v = _perpendiculars(symmetries.axis)
    to_camera = -T[:3, :3].T @ T[:3, 3] - symmetries.point_m
    angle = float(np.arctan2(to_camera @ v, to_camera @ u))
    return np.asarray(T @ rotation_about(symmetries.axis, symmetries.point_m, angle))


def _turn_to_pose(T: FloatArray, T_last: FloatArray, symmetries: Symmetries) -> FloatArray:
    """Turn about the axis by the angle that maximises trace(R_last^T R Rot(angle))."""
    assert symmetries.axis is not None and symmetries.point_m is not None  # for the type checker
    M = T_last[:3, :3].T @ T[:3, :3]
    axis = symmetries.axis
    cosine = np.trace(M) - axis @ M @ axis
    sine = np.trace(M @ se3.skew(axis))
    angle = float(np.arctan2(sine, cosine))
    return np.asarray(T @ rotation_about(axis, symmetries.point_m, angle))
