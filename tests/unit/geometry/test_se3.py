"""Rigid transforms against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from heatnet_ros.geometry import se3

RNG = np.random.default_rng(0)
ROTVECS = [*RNG.normal(0, 1, (20, 3)), np.zeros(3), np.array([0, 0, np.pi / 2])]


def _random_transform(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return se3.make_transform(se3.exp_so3(rng.normal(size=3)), rng.normal(size=3))


def test_exp_is_the_known_matrix() -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    np.testing.assert_allclose(
        se3.exp_so3(np.array([0, 0, 0.3])), [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-15
    )


@pytest.mark.parametrize("v", ROTVECS)
def test_log_undoes_exp(v: np.ndarray) -> None:
    angle = np.linalg.norm(v)
    if angle > np.pi:
        v = v * (1 - 2 * np.pi / angle)  # the same rotation, turned the short way
    np.testing.assert_allclose(se3.log_so3(se3.exp_so3(v)), v, atol=1e-9)


@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-6, 1e-5, 1e-3, 3.0, np.pi - 1e-4, np.pi - 1e-6])
def test_angle_is_exact_from_nothing_to_half_a_turn(angle: float) -> None:
    axis = np.array([0.6, -0.48, 0.64])
    R = se3.exp_so3(np.array([0.3, 0.2, -0.1]))
    measured = se3.rotation_angle_rad(R, R @ se3.exp_so3(axis * angle))
    assert measured == pytest.approx(angle, rel=1e-6, abs=1e-12)


def test_invert_and_transform() -> None:
    T_a_b, T_b_c = _random_transform(1), _random_transform(2)
    points = RNG.normal(size=(7, 3))
    np.testing.assert_allclose(se3.invert(T_a_b) @ T_a_b, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(
        se3.transform(T_a_b, se3.transform(T_b_c, points)),
        se3.transform(T_a_b @ T_b_c, points),
        atol=1e-14,
    )
    homogeneous = np.column_stack([points, np.ones(7)])
    np.testing.assert_allclose(
        se3.transform(T_a_b, points), (homogeneous @ T_a_b.T)[:, :3], atol=1e-14
    )


def test_transform_keeps_leading_shape() -> None:
    assert se3.transform(_random_transform(0), np.zeros((4, 5, 3))).shape == (4, 5, 3)


@pytest.mark.parametrize("v", [*ROTVECS, np.array([0, np.pi, 0])])
def test_quaternion_round_trip(v: np.ndarray) -> None:
    R = se3.exp_so3(v)
    q = se3.quaternion_from_rotation(R)
    assert q[3] >= 0
    assert np.linalg.norm(q) == pytest.approx(1)
    np.testing.assert_allclose(se3.rotation_from_quaternion(q), R, atol=1e-9)
    np.testing.assert_allclose(se3.rotation_from_quaternion(-3 * q), R, atol=1e-9)


def test_quaternion_order_is_xyzw() -> None:
    q = se3.quaternion_from_rotation(se3.exp_so3(np.array([np.pi / 2, 0, 0])))
    np.testing.assert_allclose(q, [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-12)


def test_skew_is_the_cross_product() -> None:
    a, b = RNG.normal(size=(2, 6, 3))
    np.testing.assert_allclose((se3.skew(a) @ b[:, :, None])[:, :, 0], np.cross(a, b), atol=1e-14)


def test_orthonormalize_restores_a_scaled_rotation_and_never_reflects() -> None:
    R = se3.exp_so3(np.array([0.4, -0.2, 0.9]))
    np.testing.assert_allclose(se3.orthonormalize(1.7 * R), R, atol=1e-14)
    fixed = se3.orthonormalize(np.diag([1.0, 1.0, -0.1]))
    assert np.linalg.det(fixed) == pytest.approx(1)
    np.testing.assert_allclose(fixed @ fixed.T, np.eye(3), atol=1e-14)
