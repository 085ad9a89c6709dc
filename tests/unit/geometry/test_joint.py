"""The joint fit of keypoints and surface: derivatives, covariance in closed form, bad numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import LIBRARY, SIZE_HW, K, pose, render_depth

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import NO_DISTORTION, project
from heatnet_ros.geometry.joint import (
    DepthImage,
    JointProblem,
    apply_steps,
    fit_jointly,
    joint_covariance,
    plane_rows,
    rotations,
)
from heatnet_ros.geometry.pnp import reprojection_jacobian
from heatnet_ros.types import FloatArray

MODEL = LIBRARY["wedge"]
T_TRUE = pose(0.03, -0.02, 0.6)
DEPTH = render_depth([("wedge", T_TRUE)], NO_DISTORTION)
GATE_M = 0.02
NOISE_PX = 1.5


def problem(depth_m: np.ndarray = DEPTH, count: int = 1, used: bool = True) -> JointProblem:
    """``count`` times the wedge, with exact keypoints."""
    px = project(se3.transform(T_TRUE, MODEL.keypoints_m), K)
    surface = np.repeat(MODEL.surface.T[None], count, axis=0)
    return JointProblem(
        DepthImage(depth_m, K),
        surface[:, :3],
        surface[:, 3:],
        np.repeat(MODEL.keypoints_m.T[None], count, axis=0),
        np.repeat(px.T[None], count, axis=0),
        np.full((count, len(px)), used / NOISE_PX**2),
        np.full(count, 9.0),
        np.full(count, MODEL.diameter_m),
    )


def gates(count: int = 1) -> FloatArray:
    return np.full(count, GATE_M)


def test_rotations_are_the_exponential_map() -> None:
    vectors = np.vstack([np.random.default_rng(0).normal(size=(20, 3)), np.zeros(3)])
    np.testing.assert_allclose(
        rotations(vectors), [se3.exp_so3(v) for v in vectors], rtol=0, atol=1e-14
    )


def test_derivatives_are_those_of_small_steps() -> None:
    T, p, h = T_TRUE[None], problem(), 1e-6
    _, J = p.image_rows(T)
    _, expected = reprojection_jacobian(T_TRUE, MODEL.keypoints_m, K)
    np.testing.assert_allclose(J[0].transpose(2, 0, 1), expected, rtol=1e-9, atol=1e-9)
    view = p.view(T)
    _, J = plane_rows(view, T)
    arms = view.points_m - T[:, :3, 3, None]
    for i in range(6):
        # a step moves a sample by dt + w x y; what counts is how far along its normal
        moved = apply_steps(T, h * np.eye(6)[i][None])
        now = moved[:, :3, :3] @ (T[:, :3, :3].swapaxes(1, 2) @ arms) + moved[:, :3, 3, None]
        along = np.einsum("bin,bin->bn", view.normals, now - view.points_m) / h
        np.testing.assert_allclose(J[:, i], along, atol=1e-6)


def test_errors_of_keypoints_that_go_together_widen_their_part_alone() -> None:
    T = T_TRUE[None]
    blind = problem(np.zeros(SIZE_HW, np.float32))
    one, four = (joint_covariance(blind, T, gates(), c)[0] for c in (1.0, 4.0))
    np.testing.assert_allclose(four, 4 * one, rtol=1e-9)
    # the textbook's, for exact keypoints: no residual is larger than the noise
    _, J = reprojection_jacobian(T_TRUE, MODEL.keypoints_m, K)
    J = J.reshape(-1, 6) / NOISE_PX
    np.testing.assert_allclose(one, np.linalg.inv(J.T @ J), rtol=1e-6)
    surface = problem(used=False)
    one, four = (joint_covariance(surface, T, gates(), c)[0] for c in (1.0, 4.0))
    np.testing.assert_array_equal(one, four)
    both = problem()
    one, four = (joint_covariance(both, T, gates(), c)[0] for c in (1.0, 4.0))
    assert np.linalg.eigvalsh(four - one).min() > 0


def test_residuals_larger_than_the_noise_widen_the_covariance() -> None:
    exact = problem(np.zeros(SIZE_HW, np.float32))
    noise = np.random.default_rng(0).normal(0, 2 * NOISE_PX, exact.pixels.shape)
    noisy = replace(exact, pixels=exact.pixels + noise, gate_px=np.array([1e3]))
    T = fit_jointly(noisy, T_TRUE[None], 10, gates(), 0.5, gates())
    widened, said = (joint_covariance(p, T, gates())[0] for p in (noisy, exact))
    assert np.trace(widened) / np.trace(said) == pytest.approx(4, rel=0.4)


def test_nothing_seen_determines_nothing() -> None:
    blind = problem(np.zeros(SIZE_HW, np.float32), used=False)
    assert joint_covariance(blind, T_TRUE[None], gates()) == [None]
    T = fit_jointly(blind, T_TRUE[None], 5, gates(), 0.5, gates())
    np.testing.assert_allclose(T, T_TRUE[None], atol=1e-12)


def test_a_problem_that_is_not_finite_keeps_its_pose_and_harms_no_other() -> None:
    start = apply_steps(T_TRUE[None], np.array([[0.003, -0.002, 0.008, 0.03, 0.02, -0.04]]))[0]
    alone = fit_jointly(problem(), start[None], 8, gates(), 0.5, gates())[0]
    # a sample at the edge of a face reads the depth of the next one: not exact
    assert np.abs(alone - T_TRUE).max() < 3e-3 < np.abs(start - T_TRUE).max() / 10
    three = problem(count=3)
    three.pixels[1] = np.nan
    T = fit_jointly(three, np.repeat(start[None], 3, axis=0), 8, gates(3), 0.5, gates(3))
    np.testing.assert_allclose(T[[0, 2]], np.stack([alone, alone]), atol=1e-12)
    np.testing.assert_allclose(T[1], start, atol=1e-12)
