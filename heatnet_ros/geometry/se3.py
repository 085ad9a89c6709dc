"""Rigid transforms as 4x4 arrays. ``T_a_b`` maps points of b into a."""

from __future__ import annotations

import cv2
import numpy as np

from heatnet_ros.types import FloatArray


def make_transform(R: FloatArray, t_m: FloatArray) -> FloatArray:
    """4x4 from a 3x3 rotation and a translation (any shape of 3 numbers)."""
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = np.ravel(t_m)
    return T


def invert(T_a_b: FloatArray) -> FloatArray:
    """T_b_a, exact for a rigid transform."""
    R = T_a_b[:3, :3]
    return make_transform(R.T, -R.T @ T_a_b[:3, 3])


def transform(T_a_b: FloatArray, points_b: FloatArray) -> FloatArray:
    """Map points (..., 3) of b into a."""
    return points_b @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def exp_so3(rotvec_rad: FloatArray) -> FloatArray:
    """3x3 rotation of a rotation vector (axis times angle)."""
    return np.asarray(cv2.Rodrigues(np.asarray(rotvec_rad, np.float64).reshape(3, 1))[0])


def log_so3(R: FloatArray) -> FloatArray:
    """Rotation vector (3,) of a 3x3 rotation, angle in 0..pi."""
    half = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    sine, cosine = float(np.linalg.norm(half)), (float(np.trace(R)) - 1) / 2
    if cosine < 0:  # the axis vanishes from R - R^T at half a turn; OpenCV takes it from R + R^T
        return np.ravel(cv2.Rodrigues(np.asarray(R, np.float64))[0])
    # OpenCV gives 0 below 1e-5 rad
    return half * (np.arctan2(sine, cosine) / sine if sine > 0 else 1.0)


def rotation_angle_rad(R_a: FloatArray, R_b: FloatArray) -> float:
    """Angle between two rotations, 0..pi; exact near 0, where arccos of the trace is not."""
    return float(np.linalg.norm(log_so3(R_a.T @ R_b)))


def orthonormalize(R: FloatArray) -> FloatArray:
    """Nearest rotations (..., 3, 3) in the Frobenius norm (SVD)."""
    u, _, vt = np.linalg.svd(R)
    u[..., 2] *= np.linalg.det(u @ vt)[..., None]
    return np.asarray(u @ vt)


def quaternion_from_rotation(R: FloatArray) -> FloatArray:
    """Unit quaternion (x, y, z, w) with w >= 0, the order of geometry_msgs."""
    rotvec = log_so3(R)
    angle = float(np.linalg.norm(rotvec))
    axis = rotvec / angle if angle > 0 else np.zeros(3)
    return np.append(axis * np.sin(angle / 2), np.cos(angle / 2))


def rotation_from_quaternion(q_xyzw: FloatArray) -> FloatArray:
    """3x3 rotation of a quaternion (x, y, z, w) of any non-zero length."""
    x, y, z, w = np.asarray(q_xyzw, np.float64) / np.linalg.norm(q_xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def skew(v: FloatArray) -> FloatArray:
    """Cross product matrices: (..., 3) -> (..., 3, 3) with ``skew(a) @ b == cross(a, b)``."""
    zero = np.zeros(v.shape[:-1])
    rows = [zero, -v[..., 2], v[..., 1], v[..., 2], zero, -v[..., 0], -v[..., 1], v[..., 0], zero]
    return np.stack(rows, axis=-1).reshape(*v.shape[:-1], 3, 3)
