"""Metrics against closed forms."""

from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.symmetry import (
    NO_SYMMETRY,
    Symmetries,
    equivalent_transforms,
    rotation_about,
)
from heatnet_ros.mesh import load_ply
from heatnet_ros.metrics import (
    BOP_SYMMETRY_STEPS,
    MSPD_THRESHOLDS_PX,
    MSSD_THRESHOLDS,
    VSD_TAUS_DIAMETERS,
    VSD_THRESHOLDS,
    add_error_m,
    add_or_adds_error_m,
    adds_error_m,
    auc,
    count_hits,
    match_instances,
    mspd_error_px,
    mssd_error_m,
    pose_errors,
    projection_error_px,
    recall,
    vsd_errors,
)

PULLEY = Path(__file__).parents[2] / "config" / "objects" / "demo" / "pulley.ply"
PULLEY_SEGMENTS = 96
Z = np.array([0.0, 0.0, 1.0])
ORIGIN = np.zeros(3)
K = np.array([[600.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
FACING = se3.make_transform(np.eye(3), np.array([0.0, 0.0, 0.5]))
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


def test_mssd_of_a_shift_is_its_length():
    T_est = shifted(T_TRUE, (0.003, -0.004, 0.012))
    assert mssd_error_m(T_est, T_TRUE, cloud()) == pytest.approx(0.013, abs=1e-12)


def test_mssd_is_the_farthest_vertex():
    # turned about one vertex by an angle, the one across moves by the chord of the diameter
    bar = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]])
    T_est = T_TRUE @ rotation_about(Z, ORIGIN, 0.3)
    assert mssd_error_m(T_est, T_TRUE, bar) == pytest.approx(2 * 0.2 * np.sin(0.15), abs=1e-12)


def test_a_turn_by_a_symmetry_has_no_mssd_and_no_mspd():
    points = cloud()
    T_half = T_TRUE @ rotation_about(Z, ORIGIN, np.pi)
    T_step = T_TRUE @ rotation_about(Z, ORIGIN, 41 * 2 * np.pi / BOP_SYMMETRY_STEPS)
    for T_est, symmetries in ((T_half, HALF_TURN), (T_step, ROUND)):
        assert mssd_error_m(T_est, T_TRUE, points, symmetries) < 1e-12
        assert mspd_error_px(T_est, T_TRUE, points, K, symmetries) < 1e-9
        assert mssd_error_m(T_est, T_TRUE, points) > 0.01
        assert mspd_error_px(T_est, T_TRUE, points, K) > 10


def test_a_continuous_symmetry_is_as_fine_as_bops():
    # half a step off: a vertex at the radius r moves by r * 2 sin(step / 4) <= 0.01 * 2 r / 2
    radius = 0.1
    ring = radius * np.column_stack([np.cos([0.0, 2, 4]), np.sin([0.0, 2, 4]), np.zeros(3)])
    step = 2 * np.pi / BOP_SYMMETRY_STEPS
    T_est = T_TRUE @ rotation_about(Z, ORIGIN, step / 2)
    error = mssd_error_m(T_est, T_TRUE, ring, ROUND)
    assert error == pytest.approx(2 * radius * np.sin(step / 4), rel=1e-9)
    assert BOP_SYMMETRY_STEPS == 315
    assert error < 0.01 * 2 * radius


def test_bop_distances_equal_the_search_over_everything():
    both = Symmetries(HALF_TURN.discrete, Z, np.array([0.01, 0.02, 0]))
    rng, points = np.random.default_rng(4), cloud(60, 4)
    for _ in range(2):
        delta = se3.make_transform(se3.exp_so3(rng.normal(0, 1, 3)), rng.normal(0, 0.02, 3))
        T_est = T_TRUE @ delta
        equivalents = T_TRUE @ equivalent_transforms(both, BOP_SYMMETRY_STEPS)
        estimated = se3.transform(T_est, points)
        true = np.stack([se3.transform(T, points) for T in equivalents])
        surface = np.linalg.norm(true - estimated, axis=2).max(axis=1).min()
        pixels = np.stack([project(t, K) for t in true]) - project(estimated, K)
        image = np.linalg.norm(pixels, axis=2).max(axis=1).min()
        assert mssd_error_m(T_est, T_TRUE, points, both) == pytest.approx(surface, abs=1e-12)
        assert mspd_error_px(T_est, T_TRUE, points, K, both) == pytest.approx(image, abs=1e-9)


def test_mspd_of_a_plane_shifted_sideways():
    plane = np.column_stack([cloud()[:, :2], np.zeros(300)])
    T_est = shifted(FACING, (0.004, 0.0, 0.0))
    assert mspd_error_px(T_est, FACING, plane, K) == pytest.approx(600 * 0.004 / 0.5, abs=1e-9)
    T_est = shifted(FACING, (0.0, 0.002, 0.0))
    assert mspd_error_px(T_est, FACING, plane, K) == pytest.approx(500 * 0.002 / 0.5, abs=1e-9)
    behind = se3.make_transform(np.eye(3), np.array([0.0, 0.0, -0.5]))
    assert mspd_error_px(behind, FACING, plane, K) == np.inf


# ---- VSD: a square plate that faces the camera, whose depth is known without a renderer

SIZE_HW = (48, 64)
K_SMALL = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
PLATE_DIAMETER_M = 0.2


def plate(z_m: float, left: int = 20, top: int = 10, side: int = 20) -> np.ndarray:
    depth = np.zeros(SIZE_HW, np.float32)
    depth[top : top + side, left : left + side] = z_m
    return depth


def test_vsd_of_the_true_pose_is_zero():
    background = np.where(plate(0.5) > 0, np.float32(0.5), np.float32(2.0))
    assert not vsd_errors(plate(0.5), plate(0.5), background, K_SMALL, PLATE_DIAMETER_M).any()
    # pixels that the sensor did not measure count as visible
    assert not vsd_errors(plate(0.5), plate(0.5), 0 * background, K_SMALL, 0.2).any()
    holes = np.full(SIZE_HW, np.nan, np.float32)
    assert not vsd_errors(plate(0.5), plate(0.5), holes, K_SMALL, PLATE_DIAMETER_M).any()


def test_vsd_out_of_sight_or_with_nothing_visible_is_one():
    background = np.where(plate(0.5) > 0, np.float32(0.5), np.float32(2.0))
    empty = np.zeros(SIZE_HW, np.float32)
    assert (vsd_errors(empty, plate(0.5), background, K_SMALL, 0.2) == 1).all()
    in_front = np.full(SIZE_HW, 0.3, np.float32)
    assert (vsd_errors(plate(0.5), plate(0.5), in_front, K_SMALL, 0.2) == 1).all()


def test_vsd_of_a_shift_in_the_image_is_the_share_of_pixels_outside_both():
    background = np.full(SIZE_HW, 2.0, np.float32)
    background[plate(0.5) > 0] = 0.5
    errors = vsd_errors(plate(0.5, left=25), plate(0.5), background, K_SMALL, PLATE_DIAMETER_M)
    # 20 wide, shifted by 5: 15 columns in both, 25 in either
    np.testing.assert_allclose(errors, 1 - 15 / 25)


def test_vsd_of_a_shift_along_the_ray_steps_at_its_tau():
    # far rays are longer: only the pixel on the optical axis is shifted by just the depth
    K_axis = np.array([[60.0, 0, 30.0], [0, 60.0, 20.0], [0, 0, 1]])
    true, estimated = plate(0.5, 30, 20, 1), plate(0.533, 30, 20, 1)
    errors = vsd_errors(estimated, true, np.zeros(SIZE_HW, np.float32), K_axis, 0.2)
    np.testing.assert_array_equal(errors, (VSD_TAUS_DIAMETERS <= 0.033 / 0.2).astype(float))
    # distances, not depths: off the axis the same step in z is a longer way
    K_side = np.array([[60.0, 0, -30.0], [0, 60.0, 20.0], [0, 0, 1]])  # slope 1: times sqrt(2)
    errors = vsd_errors(estimated, true, np.zeros(SIZE_HW, np.float32), K_side, 0.2)
    np.testing.assert_array_equal(
        errors, (np.sqrt(2) * 0.033 / 0.2 >= VSD_TAUS_DIAMETERS).astype(float)
    )


def test_vsd_masks_what_stands_in_front_with_15_mm_of_tolerance():
    # the left half is hidden by something nearer; what differs there does not matter
    true, estimated = plate(0.5), plate(0.5)
    estimated[:, :30] = np.where(estimated[:, :30] > 0, 0.9, 0)
    measured = np.where(plate(0.5) > 0, np.float32(0.5), np.float32(2.0))
    measured[:, :30] = 0.3
    assert not vsd_errors(estimated, true, measured, K_SMALL, PLATE_DIAMETER_M).any()
    for gap, visible in ((0.0149, True), (0.0151, False)):
        near = np.full(SIZE_HW, 0.5 - gap, np.float32)
        K_tele = np.array([[6e4, 0, 31.5], [0, 6e4, 23.5], [0, 0, 1]])  # all rays are parallel
        errors = vsd_errors(true, true, near, K_tele, PLATE_DIAMETER_M)
        assert (errors == (0 if visible else 1)).all()


def test_auc_of_constants():
    assert auc([0.0, 0.0]) == 1.0
    assert auc([0.025] * 7) == pytest.approx(0.75, abs=1e-12)
    assert auc([0.1, 0.3, np.inf]) == 0.0
    assert auc([0.05, np.inf]) == pytest.approx(0.25, abs=1e-12)
    assert np.isnan(auc([]))


def test_auc_is_the_area_under_the_recall_curve():
    errors = np.random.default_rng(0).uniform(0, 0.15, 40)
    thresholds = (np.arange(4000) + 0.5) * 0.1 / 4000
    area = np.mean([recall(errors, t) for t in thresholds])
    assert auc(errors) == pytest.approx(area, abs=1e-3)


def test_hits_of_one_instance_are_errors_below_the_threshold():
    thresholds = [0.1, 0.2, 0.3]
    assert count_hits(np.array([[0.2]]), [0.9], thresholds).tolist() == [0, 0, 1]
    assert count_hits(np.zeros((0, 1)), [], thresholds).tolist() == [0, 0, 0]
    # only the best scored one of two counts
    assert count_hits(np.array([[0.25], [0.0]]), [0.9, 0.8], thresholds).tolist() == [0, 0, 1]


def test_hits_go_by_score_and_one_estimate_finds_one_instance():
    # the better scored estimate takes the instance that the other one needs, as in BOP
    errors = np.array([[0.10, 0.15], [0.12, 0.50]])
    assert count_hits(errors, [0.9, 0.8], [0.2]).tolist() == [1]
    assert count_hits(errors, [0.8, 0.9], [0.2]).tolist() == [2]


def test_bop_thresholds():
    np.testing.assert_allclose(MSSD_THRESHOLDS, np.linspace(0.05, 0.5, 10))
    np.testing.assert_allclose(VSD_THRESHOLDS, np.linspace(0.05, 0.5, 10))
    np.testing.assert_allclose(VSD_TAUS_DIAMETERS, np.linspace(0.05, 0.5, 10))
    np.testing.assert_allclose(MSPD_THRESHOLDS_PX, np.linspace(5, 50, 10))


def test_projection_error_of_a_round_object_is_that_of_its_nearest_equivalent():
    points = cloud(2000, 5)
    tilt = rotation_about(np.array([1.0, 0, 0]), ORIGIN, 0.02)
    T_est = T_TRUE @ tilt @ rotation_about(Z, ORIGIN, 2 * np.pi * 20 / 64)
    estimated = project(se3.transform(T_est, points), K)
    every = [
        np.linalg.norm(estimated - project(se3.transform(T_TRUE @ S, points), K), axis=1).mean()
        for S in equivalent_transforms(ROUND)
    ]
    assert projection_error_px(T_est, T_TRUE, points, K, ROUND) == pytest.approx(min(every))
    assert min(every) < 2 < projection_error_px(T_est, T_TRUE, points, K)
