"""Metrics against closed forms."""

from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import NO_SYMMETRY, Symmetries, rotation_about
from heatnet_ros.mesh import load_ply
from heatnet_ros.metrics import (
    add_error_m,
    add_or_adds_error_m,
    adds_error_m,
    match_instances,
    pose_errors,
    projection_error_px,
    recall,
)

PULLEY = Path(__file__).parents[2] / "config" / "objects" / "demo" / "pulley.ply"
PULLEY_SEGMENTS = 96
Z = np.array([0.0, 0.0, 1.0])
ORIGIN = np.zeros(3)
T_TRUE = se3.make_transform(se3.exp_so3(np.array([0.5, -1.1, 0.3])), np.array([0.1, -0.05, 0.8]))
HALF_TURN = Symmetries(np.stack([np.eye(4), rotation_about(Z, ORIGIN, np.pi)]))
ROUND = Symmetries(np.eye(4)[None], Z, ORIGIN)


def cloud(count: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.1, 0.1, (count, 3))


def grid(n: int, spacing_m: float) -> np.ndarray:
    steps = np.arange(n) * spacing_m
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)


def shifted(T: np.ndarray, shift_m: tuple[float, float, float]) -> np.ndarray:
    return se3.make_transform(T[:3, :3], T[:3, 3] + shift_m)


def test_add_of_a_shift_is_its_length():
    T_est = shifted(T_TRUE, (0.003, -0.004, 0.012))
    assert add_error_m(T_est, T_TRUE, cloud()) == pytest.approx(0.013, abs=1e-12)


def test_add_of_a_turn_of_a_ring_is_the_chord():
    angles = np.arange(50) * 2 * np.pi / 50
    ring = 0.07 * np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    T_est = T_TRUE @ rotation_about(Z, ORIGIN, 0.4)
    assert add_error_m(T_est, T_TRUE, ring) == pytest.approx(2 * 0.07 * np.sin(0.2), abs=1e-12)


def test_adds_of_a_grid_shifted_by_one_cell_is_the_cell_over_n():
    # all but the first of n layers meet a neighbour; that layer is one spacing away
    n, spacing = 6, 0.01
    T_est = T_TRUE @ se3.make_transform(np.eye(3), np.array([spacing, 0, 0]))
    points = grid(n, spacing)
    assert adds_error_m(T_est, T_TRUE, points) == pytest.approx(spacing / n, abs=1e-9)
    assert add_error_m(T_est, T_TRUE, points) == pytest.approx(spacing, abs=1e-12)


def test_adds_is_the_distance_from_true_points_to_the_estimate():
    # not symmetric in its arguments, and exact: compared with all pairs
    points = cloud(400, 3)
    T_est = T_TRUE @ se3.make_transform(se3.exp_so3(np.array([0.2, 0.5, -0.1])), [0.01, 0.02, 0])
    true, estimated = se3.transform(T_TRUE, points), se3.transform(T_est, points)
    pairs = np.linalg.norm(true[:, None] - estimated[None], axis=2)
    assert adds_error_m(T_est, T_TRUE, points) == pytest.approx(pairs.min(axis=1).mean(), abs=1e-12)
    assert abs(pairs.min(axis=1).mean() - pairs.min(axis=0).mean()) > 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_adds_is_never_above_add(seed: int):
    rng = np.random.default_rng(seed)
    delta = se3.make_transform(se3.exp_so3(rng.normal(0, 0.5, 3)), rng.normal(0, 0.02, 3))
    points = cloud(seed=seed)
    T_est = T_TRUE @ delta
    assert adds_error_m(T_est, T_TRUE, points) <= add_error_m(T_est, T_TRUE, points)


def test_pulley_turned_by_its_symmetry_has_no_adds_error():
    vertices = load_ply(PULLEY).vertices_m
    T_est = T_TRUE @ rotation_about(Z, ORIGIN, 17 * 2 * np.pi / PULLEY_SEGMENTS)
    assert adds_error_m(T_est, T_TRUE, vertices) < 1e-7
    assert add_error_m(T_est, T_TRUE, vertices) > 0.01
    assert add_or_adds_error_m(T_est, T_TRUE, vertices, ROUND) < 1e-7
    assert add_or_adds_error_m(T_est, T_TRUE, vertices, NO_SYMMETRY) > 0.01


def test_pose_errors_in_mm_and_degrees():
    turn = se3.exp_so3(np.deg2rad(10.0) * np.array([0.0, 0.6, 0.8]))
    T_est = se3.make_transform(T_TRUE[:3, :3] @ turn, T_TRUE[:3, 3] + [0.003, 0.0, -0.004])
    assert pose_errors(T_est, T_TRUE) == pytest.approx((5.0, 10.0), abs=1e-9)


def test_pose_errors_go_to_the_nearest_equivalent_pose():
    tilt = se3.make_transform(se3.exp_so3(np.deg2rad(np.array([3.0, 0, 0]))), ORIGIN)
    for symmetries, angle in ((HALF_TURN, np.pi), (ROUND, 2.0)):
        T_est = T_TRUE @ tilt @ rotation_about(Z, ORIGIN, angle)
        assert pose_errors(T_est, T_TRUE, symmetries) == pytest.approx((0.0, 3.0), abs=1e-6)
    quarter = T_TRUE @ rotation_about(Z, ORIGIN, np.pi / 2)
    assert pose_errors(quarter, T_TRUE, HALF_TURN).rotation_deg == pytest.approx(90.0)


def test_pose_errors_move_the_origin_with_the_symmetry():
    # a half turn about an axis beside the origin carries the origin along
    beside = Symmetries(np.stack([np.eye(4), rotation_about(Z, np.array([0.02, 0, 0]), np.pi)]))
    T_est = T_TRUE @ beside.discrete[1]
    assert pose_errors(T_est, T_TRUE, beside) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert pose_errors(T_est, T_TRUE).translation_mm == pytest.approx(40.0)


def test_projection_error_of_a_shift_in_the_image_plane():
    K = np.array([[600.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    plane = np.column_stack([cloud()[:, :2], np.zeros(300)])
    T_true = se3.make_transform(np.eye(3), np.array([0.0, 0.0, 0.5]))
    # 600 * 0.004 / 0.5 = 4.8 px and 500 * 0.0036 / 0.5 = 3.6 px
    T_est = shifted(T_true, (0.004, 0.0036, 0.0))
    assert projection_error_px(T_est, T_true, plane, K) == pytest.approx(6.0, abs=1e-9)
    turned = T_est @ rotation_about(Z, ORIGIN, np.pi)
    assert projection_error_px(turned, T_true, plane, K, HALF_TURN) == pytest.approx(6.0, abs=1e-9)
    assert projection_error_px(turned, T_true, plane, K) > 20
    behind = se3.make_transform(np.eye(3), np.array([0.0, 0.0, -0.5]))
    assert projection_error_px(behind, T_true, plane, K) == np.inf


def test_recall_counts_misses_and_needs_targets():
    assert recall([0.01, 0.2, float("inf"), 0.099], 0.1) == 0.5
    assert np.isnan(recall([], 0.1))


def test_matching_is_greedy_and_one_to_one():
    errors = np.array([[0.01, 0.02], [0.02, 0.5]])
    assert match_instances(errors, [0.9, 0.8]) == [0, 1]
    # three estimates, two truths: the least sure one does not count, however good it is
    errors = np.array([[0.3, 0.4], [0.2, 0.3], [0.0, 0.0]])
    assert match_instances(errors, [0.9, 0.8, 0.1]) == [1, 0]
    assert match_instances(np.zeros((0, 2)), []) == [None, None]
    assert match_instances(np.array([[0.5, 0.1]]), [0.7]) == [None, 0]
