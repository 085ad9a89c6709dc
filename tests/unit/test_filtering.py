"""The filter on SE(3): steady, in time, honest about what it knows, and not fooled."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import LIBRARY, largest_turn_deg, pose

from heatnet_ros.config import FilterConfig
from heatnet_ros.filtering import (
    _BELIEF,
    FilterBank,
    PoseFilter,
    _Belief,
    _predict,
    _update,
    chi_square_bound,
)
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.pnp import apply_step
from heatnet_ros.geometry.symmetry import equivalent_transforms
from heatnet_ros.types import FloatArray, PoseEstimate

SECOND = 1_000_000_000
FRAME = SECOND // 30
CONFIG = FilterConfig(covariance_scale=1.0)
SIGMA = np.array([5e-4, 5e-4, 1e-3, 0.01, 0.01, 0.01])
C = np.diag(SIGMA**2)


def estimate(T: FloatArray, name: str = "wedge", **values: object) -> PoseEstimate:
    values.setdefault("covariance", C)
    return PoseEstimate(name, T, 0.9, 1.0, 0.5, "test", **values)  # type: ignore[arg-type]


def error(T: FloatArray, truth: FloatArray) -> FloatArray:
    turn = se3.log_so3(truth[:3, :3] @ T[:3, :3].T)
    return np.concatenate([truth[:3, 3] - T[:3, 3], turn])


def measured(
    rng: np.random.Generator, truth: list[FloatArray], share: float = CONFIG.noise_share
) -> list[PoseEstimate]:
    """Poses whose error is as the model says: one part for all, and one that is new each time."""
    stays = rng.normal(size=6) * SIGMA * np.sqrt(1 - share)
    return [
        estimate(apply_step(T, stays + rng.normal(size=6) * SIGMA * np.sqrt(share))) for T in truth
    ]


def run(poses: list[PoseEstimate], config: FilterConfig = CONFIG) -> list[PoseEstimate]:
    bank = FilterBank(LIBRARY)
    return [bank.update([p], i * FRAME, config)[0] for i, p in enumerate(poses)]


@pytest.mark.parametrize(("probability", "freedom", "bound"), [
    (0.95, 6, 12.592), (0.999, 6, 22.458), (0.025, 60, 40.482), (0.95, 5, 11.070),
])  # fmt: skip
def test_chi_square_quantiles_are_those_of_the_tables(
    probability: float, freedom: int, bound: float
) -> None:
    assert chi_square_bound(probability, freedom) == pytest.approx(bound, rel=0.01)


def test_of_a_thing_at_rest_less_than_half_the_jitter_is_left() -> None:
    truth = [pose(0.1, 0, 0.7)] * 120
    ratios = []
    for seed in range(8):
        raw = measured(np.random.default_rng(seed), truth)
        spread = [
            np.std([error(p.T_camera_object, truth[0]) for p in poses[20:]], axis=0)
            for poses in (raw, run(raw))
        ]
        ratios.append(spread[1] / spread[0])
    assert np.mean(ratios, axis=0).max() < 0.5


@pytest.mark.parametrize("speed_m_s", [0.05, 0.5])
def test_a_moving_and_turning_thing_is_followed_without_lag(speed_m_s: float) -> None:
    def truth(i: int) -> FloatArray:
        turned = se3.exp_so3(np.array([0.0, 0.03 * i, 0.0]))
        return se3.make_transform(turned, np.array([-0.3 + speed_m_s * i / 30, 0.02, 0.8]))

    found = run([estimate(truth(i)) for i in range(60)])
    # exact measurements: what is left is the lag
    behind = error(found[-1].T_camera_object, truth(59))
    assert abs(behind[0]) < 0.1 * speed_m_s / 30 and abs(behind[4]) < 0.1 * 0.03


def test_a_thing_that_starts_suddenly_is_at_most_a_frame_late() -> None:
    start, speed = 40, 0.3 / 30  # m per frame, from one frame to the next

    def truth(i: int) -> FloatArray:
        return pose(-0.1 + speed * max(i - start, 0), 0, 0.8)

    rng = np.random.default_rng(0)
    found = run(measured(rng, [truth(i) for i in range(70)]))
    late = [error(p.T_camera_object, truth(i))[0] / speed for i, p in enumerate(found)]
    assert max(late[start + 1 :]) <= 1.0


def test_the_told_covariance_is_that_of_the_errors() -> None:
    """200 films: the squared error, normalised by what is told, is chi-square with six degrees."""
    squared = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        velocity = rng.normal(size=6) * [0.1, 0.1, 0.1, 0.3, 0.3, 0.3]
        truth = [apply_step(pose(0, 0, 0.8), velocity * i / 30) for i in range(40)]
        last = run(measured(rng, truth))[-1]
        e = error(last.T_camera_object, truth[-1])
        assert last.covariance is not None
        squared.append(float(e @ np.linalg.solve(last.covariance, e)))
    freedom = 6 * len(squared)
    low, high = (chi_square_bound(p, freedom) for p in (0.025, 0.975))
    assert low < sum(squared) < high


def test_what_stays_of_the_error_is_not_averaged_away() -> None:
    found = run(measured(np.random.default_rng(1), [pose(0, 0, 0.8)] * 300))
    assert found[-1].covariance is not None
    variance = np.diag(found[-1].covariance) / SIGMA**2
    stays = 1 - CONFIG.noise_share
    assert np.all(variance > stays) and np.all(variance < stays + 0.3 * CONFIG.noise_share)


def test_an_outlier_is_held_back_and_a_new_place_believed() -> None:
    rng = np.random.default_rng(2)
    poses = measured(rng, [pose(0, 0, 0.8)] * 30)
    bank = FilterBank(LIBRARY)
    for i, p in enumerate(poses):
        bank.update([p], i * FRAME, CONFIG)
    away = estimate(pose(0.08, 0, 0.8))
    where = []
    for i in range(30, 34):
        (found,) = bank.update([away], i * FRAME, CONFIG)
        where.append(found.T_camera_object[0, 3])
    assert max(where[: CONFIG.max_gated]) < 0.01
    assert where[CONFIG.max_gated :] == pytest.approx([0.08] * 2, abs=1e-6)


def test_a_single_outlier_leaves_no_trace() -> None:
    poses = [estimate(pose(0, 0, 0.8))] * 40
    poses[30] = estimate(pose(0.08, 0, 0.8, (2.9, 0, 0)))
    found = run(poses)
    for p in found[30:]:
        assert np.abs(error(p.T_camera_object, pose(0, 0, 0.8))).max() < 1e-6


@pytest.mark.parametrize("name", ["brick", "disc"])
def test_symmetric_objects_stay_on_their_branch(name: str) -> None:
    """The raw pose may be any of the equivalent ones: the filtered one never flips."""
    rng = np.random.default_rng(3)
    equivalent = equivalent_transforms(LIBRARY[name].symmetries)
    bank, told = FilterBank(LIBRARY), []
    for i in range(90):
        T = pose(0.05, 0, 0.7, (2.0 + 0.02 * i, 0, 0)) @ rng.choice(equivalent)
        told.append(bank.update([estimate(T, name)], i * FRAME, CONFIG)[0].T_camera_object)
    assert largest_turn_deg(told) < 2.5


def test_without_covariance_none_is_told_and_it_is_steadier_all_the_same() -> None:
    rng = np.random.default_rng(4)
    raw = [replace(p, covariance=None) for p in measured(rng, [pose(0, 0, 0.8)] * 60, share=1.0)]
    found = run(raw)
    assert all(p.covariance is None for p in found)
    x = [np.std([p.T_camera_object[0, 3] for p in poses[20:]]) for poses in (raw, found)]
    assert x[1] < 0.5 * x[0]


def test_instances_are_filtered_apart_and_in_their_order() -> None:
    bank = FilterBank(LIBRARY)
    left, right = pose(-0.1, 0, 0.8), pose(0.1, 0, 0.8)
    for i in range(10):
        both = [estimate(right, instance=1), estimate(left, instance=0)]
        found = bank.update(both, i * FRAME, CONFIG)
    assert [p.instance for p in found] == [1, 0]
    assert [round(p.T_camera_object[0, 3], 3) for p in found] == [0.1, -0.1]


@pytest.mark.parametrize("jump_ns", [-FRAME, SECOND + FRAME])
def test_a_clock_set_back_or_a_long_absence_starts_anew(jump_ns: int) -> None:
    bank = FilterBank(LIBRARY)
    bank.update([estimate(pose(0, 0, 0.8))], 5 * SECOND, CONFIG)
    away = pose(0.3, 0, 0.8)
    (found,) = bank.update([estimate(away)], 5 * SECOND + jump_ns, CONFIG)
    np.testing.assert_array_equal(found.T_camera_object, away)


def test_frames_that_are_missing_are_bridged() -> None:
    """An object is hidden for half a second while it moves on: it is expected where it is."""
    start = pose(-0.2, 0, 0.8)
    bank = FilterBank(LIBRARY)

    def truth(i: int) -> FloatArray:
        return apply_step(start, np.array([0.005 * i, 0, 0, 0, 0, 0]))

    for i in [*range(30), 45]:
        (found,) = bank.update([estimate(truth(i))], i * FRAME, CONFIG)
    assert abs(error(found.T_camera_object, truth(45))[0]) < 1e-4


@pytest.mark.parametrize(("gap_s", "move_m"), [
    (0.1, 0.03), (0.2, 0.03), (0.2, 0.06), (0.3, 0.1), (0.5, 0.06), (0.5, 0.1), (0.9, 0.03),
])  # fmt: skip
def test_what_was_hidden_and_put_down_elsewhere_does_not_run_away(
    gap_s: float, move_m: float
) -> None:
    """It stood still, was carried away while nobody saw it, and stands still again."""
    rng, bank, start = np.random.default_rng(5), FilterBank(LIBRARY), pose(0, 0, 0.7)
    there = apply_step(start, np.array([move_m, 0, 0, 0, 0, 0]))
    for i, p in enumerate(measured(rng, [start] * 60)):
        bank.update([p], i * FRAME, CONFIG)
    back_ns = 60 * FRAME + round(gap_s * SECOND)
    for i, p in enumerate(measured(rng, [there] * 12)):
        (found,) = bank.update([p], back_ns + i * FRAME, CONFIG)
        e = error(found.T_camera_object, there)
        assert found.covariance is not None
        assert e @ np.linalg.solve(found.covariance, e) < chi_square_bound(0.9999, 6)
        assert np.linalg.norm(e[:3]) < 6e-3, (i, e)


def test_covariance_holds_while_poses_are_held_back() -> None:
    """Put elsewhere within a frame: the expected place is told, and that it may be wrong."""
    bank, there = FilterBank(LIBRARY), pose(0.08, 0, 0.8)
    for i, p in enumerate(measured(np.random.default_rng(6), [pose(0, 0, 0.8)] * 30)):
        bank.update([p], i * FRAME, CONFIG)
    for i in range(30, 30 + CONFIG.max_gated + 2):
        (found,) = bank.update([estimate(there)], i * FRAME, CONFIG)
        e = error(found.T_camera_object, there)
        assert found.covariance is not None
        assert e @ np.linalg.solve(found.covariance, e) < chi_square_bound(0.95, 6)
    assert np.all(np.diag(found.covariance) < 1.01 * SIGMA**2)  # believed: no doubt is left


def test_one_pose_after_a_gap_makes_no_velocity_certain() -> None:
    """White acceleration: the step over a gap is that of many small ones."""
    R = 0.01 * C

    def velocity_variance(steps: int) -> FloatArray:
        tracker = PoseFilter(pose(0, 0, 0.8), R, 0)
        for i in range(10):
            tracker.update(pose(0, 0, 0.8), R, C, i * FRAME, CONFIG)
        belief = _Belief(*(np.stack([getattr(tracker.belief, k)]) for k in _BELIEF))
        for _ in range(steps):
            belief = _predict(belief, np.array([0.6 / steps]), CONFIG)
        updated = _update(belief, np.zeros((1, 6)), R[None])
        return np.diag(updated.P[0, 1])[6:]

    few, many = velocity_variance(1), velocity_variance(6)
    assert np.all(few > 0.3 * many) and np.all(few < 3 * many)


def test_where_stamps_stand_still_the_measured_pose_is_told() -> None:
    """Without a time it would average for ever and stay behind."""
    bank = FilterBank(LIBRARY)
    for i in range(60):
        T = pose(0.0005 * i, 0, 0.8)
        (found,) = bank.update([estimate(T)], 0, CONFIG)
    np.testing.assert_array_equal(found.T_camera_object, T)
    assert found.covariance is not None
    assert np.all(np.diag(found.covariance) >= SIGMA**2)


def test_same_stamp_twice_is_no_division_by_zero() -> None:
    tracker = PoseFilter(pose(0, 0, 0.8), 0.1 * C, 0)
    for _ in range(3):
        assert tracker.update(pose(0, 0, 0.8), 0.1 * C, C, 0, CONFIG)
    assert np.isfinite(tracker.covariance).all() and np.isfinite(tracker.velocity).all()
