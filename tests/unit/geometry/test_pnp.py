"""Pose from keypoints: exactness, outliers, weights, determinism, covariance."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.pnp import (
    PnpSolution,
    apply_step,
    refine_pose,
    reprojection_jacobian,
    solve_pnp,
)
from heatnet_ros.types import FloatArray

K = np.array([[615.0, 0.0, 322.5], [0.0, 612.0, 238.0], [0.0, 0.0, 1.0]])


def _scene(seed: int, count: int = 50) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Keypoints on an object of 10 cm, a pose 0.4 to 1.2 m away, their exact pixels."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-0.05, 0.05, (count, 3))
    t = [rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15), rng.uniform(0.4, 1.2)]
    T = se3.make_transform(se3.exp_so3(rng.normal(0, 1.2, 3)), np.array(t))
    return X, T, project(se3.transform(T, X), K)


def _errors(T: FloatArray, T_true: FloatArray) -> tuple[float, float]:
    """Translation in mm, rotation in degrees; the chord is exact for small angles."""
    chord = np.linalg.norm(T[:3, :3] - T_true[:3, :3]) / np.sqrt(8)
    return (
        float(np.linalg.norm(T[:3, 3] - T_true[:3, 3])) * 1e3,
        float(np.degrees(2 * np.arcsin(chord))),
    )


def _solve(X: FloatArray, px: FloatArray, weights: FloatArray | None = None) -> PnpSolution:
    solution = solve_pnp(X, px, K, np.ones(len(X)) if weights is None else weights, 6.0)
    assert solution is not None
    return solution


@pytest.mark.parametrize("count", [6, 8, 32, 50])
@pytest.mark.parametrize("seed", range(5))
def test_exact_keypoints_give_the_exact_pose(seed: int, count: int) -> None:
    X, T, px = _scene(seed, count)
    solution = _solve(X, px)
    mm, deg = _errors(solution.T_camera_object, T)
    assert mm < 1e-6 and deg < 1e-6  # asked: 0.01 mm, 0.001 deg
    assert solution.inliers.all() and solution.reprojection_px < 1e-8


def test_keypoints_in_a_plane_are_enough() -> None:
    X, T, _ = _scene(1, 20)
    X[:, 2] = 0.0
    solution = _solve(X, project(se3.transform(T, X), K))
    assert max(_errors(solution.T_camera_object, T)) < 1e-4


@pytest.mark.parametrize("seed", range(10))
def test_forty_percent_gross_outliers_change_nothing(seed: int) -> None:
    X, T, px = _scene(seed)
    rng = np.random.default_rng(100 + seed)
    outliers = rng.permutation(50)[:20]
    direction = rng.normal(size=(20, 2))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    px[outliers] += direction * rng.uniform(12, 200, (20, 1))
    solution = _solve(X, px)
    assert sorted(np.flatnonzero(~solution.inliers)) == sorted(outliers)
    assert max(_errors(solution.T_camera_object, T)) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_outliers_give_the_least_squares_pose_of_the_inliers(seed: int) -> None:
    X, T, px = _scene(seed)
    rng = np.random.default_rng(seed)
    px += rng.normal(0, 0.5, px.shape)
    px[:20] += rng.choice([-1, 1], (20, 2)) * rng.uniform(20, 100, (20, 2))
    solution = _solve(X, px)
    assert not solution.inliers[:20].any() and solution.inliers[20:].all()
    # OpenCV's own refinement, started at the truth, on the clean points
    rotvec, t = cv2.solvePnPRefineLM(
        X[20:], px[20:], K, None, se3.log_so3(T[:3, :3]).reshape(3, 1), T[:3, 3:].copy()
    )
    mm, deg = _errors(solution.T_camera_object, se3.make_transform(se3.exp_so3(rotvec), t))
    assert mm < 0.01 and deg < 0.01


def test_a_weight_counts_like_copies_of_the_keypoint() -> None:
    X, T, px = _scene(2, 12)
    px += np.random.default_rng(0).normal(0, 0.5, px.shape)
    weights = np.array([3.0, 1.0, 2.0] * 4)
    weighted = refine_pose(T, X, px, K, weights)
    copies = np.repeat(np.arange(12), weights.astype(int))
    repeated = refine_pose(T, X[copies], px[copies], K, np.ones(len(copies)))
    np.testing.assert_allclose(weighted, repeated, atol=1e-9)
    assert max(_errors(weighted, refine_pose(T, X, px, K, np.ones(12)))) > 1e-3


def test_only_the_ratio_of_confidences_counts() -> None:
    X, _, px = _scene(2)
    px += np.random.default_rng(0).normal(0, 0.5, px.shape)
    weights = np.random.default_rng(1).uniform(0.2, 1, 50)
    a, b = _solve(X, px, weights), _solve(X, px, 7.0 * weights)
    np.testing.assert_allclose(a.T_camera_object, b.T_camera_object, atol=1e-9)
    np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-5, atol=1e-12)


def test_unusable_keypoints_are_left_out() -> None:
    X, T, px = _scene(3, 20)
    px[3], px[4], weights = np.nan, [np.inf, 0], np.ones(20)
    px[7:12] += 3.0  # below the threshold: only their confidence of 0 keeps them out
    weights[7:12] = 0.0
    solution = _solve(X, px, weights)
    assert np.flatnonzero(~solution.inliers).tolist() == [3, 4, 7, 8, 9, 10, 11]
    assert max(_errors(solution.T_camera_object, T)) < 1e-6


def test_the_derivative_is_that_of_the_projection() -> None:
    X, T, _ = _scene(4, 10)
    predicted, J = reprojection_jacobian(T, X, K)
    np.testing.assert_allclose(predicted, project(se3.transform(T, X), K), atol=1e-9)
    h = 1e-6
    for i in range(6):
        plus, minus = (
            project(se3.transform(apply_step(T, sign * h * np.eye(6)[i]), X), K) for sign in (1, -1)
        )
        np.testing.assert_allclose(J[:, :, i], (plus - minus) / (2 * h), rtol=1e-5, atol=1e-3)


def test_same_input_gives_the_same_bytes_whatever_else_draws_random_numbers() -> None:
    X, _, px = _scene(5)
    px += np.random.default_rng(0).normal(0, 1.0, px.shape)
    px[::3] += 40.0
    first = _solve(X, px)
    np.random.default_rng().normal(size=1000)
    np.random.seed(7)
    cv2.setRNGSeed(12345)
    cv2.randu(np.zeros((9, 9)), 0, 1)
    assert _bytes(_solve(X, px)) == _bytes(first)


def test_same_bytes_from_threads() -> None:
    scenes = []
    for seed in range(4):
        X, _, px = _scene(seed)
        px += np.random.default_rng(seed).normal(0, 1.0, px.shape)
        px[::3] += 40.0
        scenes.append((X, px))
    expected = [_bytes(_solve(*scene)) for scene in scenes]
    results: list[list[bytes]] = [[] for _ in scenes]

    def work(i: int) -> None:
        for _ in range(8):
            results[i].append(_bytes(_solve(*scenes[i])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(scenes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[e] * 8 for e in expected]


def _bytes(solution: PnpSolution) -> bytes:
    return solution.T_camera_object.tobytes() + solution.covariance.tobytes()


def test_the_seed_is_used() -> None:
    # nothing but outliers: which few keypoints agree by chance depends on the samples
    X, _, _ = _scene(6)
    px = np.random.default_rng(0).uniform(100, 500, (50, 2))
    poses = set()
    for seed in range(4):
        solution = solve_pnp(X, px, K, np.ones(50), 15.0, seed)
        poses.add(None if solution is None else solution.T_camera_object.tobytes())
    assert len(poses) > 1


@pytest.mark.parametrize("weighted", [False, True])
def test_covariance_is_that_of_many_trials(weighted: bool) -> None:
    """The normalised error squared of 6 numbers is chi-square with 6 degrees of freedom."""
    X, T, px = _scene(8)
    weights = np.random.default_rng(0).uniform(0.1, 1.0, 50) if weighted else np.ones(50)
    trials, nees, steps, predicted = 300, [], [], np.zeros((6, 6))
    for seed in range(trials):
        noise = np.random.default_rng(seed).normal(0, 1, px.shape) / np.sqrt(weights)[:, None]
        solution = solve_pnp(X, px + 0.5 * noise, K, weights, 8.0)
        assert solution is not None
        R = solution.T_camera_object[:3, :3] @ T[:3, :3].T
        step = np.r_[solution.T_camera_object[:3, 3] - T[:3, 3], se3.log_so3(R)]
        nees.append(step @ np.linalg.solve(solution.covariance, step))
        steps.append(step)
        predicted += solution.covariance / trials
    # mean of 300 chi-square values: 6 +- sqrt(12 / 300) = 0.2; the estimated noise adds 94/92
    assert 5.3 < np.mean(nees) < 6.9
    # 95 % of chi-square with 6 degrees of freedom lie below 12.59
    assert 0.90 < np.mean(np.array(nees) < 12.59) < 0.99
    np.testing.assert_allclose(np.std(steps, axis=0), np.sqrt(np.diag(predicted)), rtol=0.2)


def test_covariance_is_symmetric_and_positive() -> None:
    X, _, px = _scene(9)
    px += np.random.default_rng(0).normal(0, 1, px.shape)
    covariance = _solve(X, px).covariance
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    # one camera sees distance worst
    assert np.argmax(np.diag(covariance)[:3]) == 2


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_keypoints_give_no_pose(count: int) -> None:
    X, _, px = _scene(1)
    assert solve_pnp(X[:count], px[:count], K, np.ones(count), 6.0) is None
    assert solve_pnp(X, px, K, np.r_[np.ones(count), np.zeros(50 - count)], 6.0) is None


@pytest.mark.parametrize("axis", range(3))
def test_keypoints_on_a_line_give_no_pose(axis: int) -> None:
    X = np.zeros((20, 3))
    X[:, axis] = np.linspace(-0.05, 0.05, 20)
    for T in (_scene(1)[1], se3.make_transform(np.eye(3), np.array([0, 0, 0.6]))):
        assert solve_pnp(X, project(se3.transform(T, X), K), K, np.ones(20), 6.0) is None


def test_keypoints_in_one_spot_give_no_pose() -> None:
    X, T, px = _scene(1, 20)
    assert solve_pnp(X, np.tile(px[:1], (20, 1)), K, np.ones(20), 6.0) is None
    X = np.tile(X[:1], (20, 1))
    assert solve_pnp(X, project(se3.transform(T, X), K), K, np.ones(20), 6.0) is None


@pytest.mark.parametrize("spread_px", [0.0, 1e-3, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_keypoints_seen_in_one_spot_give_no_pose(spread_px: float, seed: int) -> None:
    # an untrained or confused network: every heatmap peaks at the same place; a pose far away
    # would explain that, and SQPnP ends with an assertion
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.05, 0.05, (32, 3))
    pixels = np.array([300.0, 200.0]) + spread_px * rng.normal(size=(32, 2))
    assert solve_pnp(points, pixels, K, np.ones(32), 5.0, seed) is None


def test_a_pose_is_never_behind_the_camera() -> None:
    # mirrored pixels: the image of an object behind the camera, which fits algebraically
    X, T, _ = _scene(2, 30)
    p = se3.transform(T, X) * -1.0
    px = (p[:, :2] / p[:, 2:]) @ K[:2, :2].T + K[:2, 2]
    for pixels in (px, 2 * K[:2, 2] - px):
        solution = solve_pnp(X, pixels, K, np.ones(30), 3.0)
        assert solution is None or se3.transform(solution.T_camera_object, X)[:, 2].min() > 0


def test_arrays_that_do_not_fit_together_are_named() -> None:
    X, _, px = _scene(1)
    with pytest.raises(DataError, match=r"Kx3.*\(50, 3\), \(49, 2\)"):
        solve_pnp(X, px[:-1], K, np.ones(50), 6.0)
    with pytest.raises(DataError, match="threshold must be > 0"):
        solve_pnp(X, px, K, np.ones(50), 0.0)


def test_a_pose_takes_milliseconds() -> None:
    # asked: 2 ms; the bound is far above, for a busy machine
    X, _, px = _scene(1)
    px[:10] += 60.0
    times = []
    for _ in range(20):
        start = time.perf_counter()
        _solve(X, px)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005
