import pickle
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import rotation_about
from heatnet_ros.objects import load_objects
from heatnet_ros.ros import scoreboard
from heatnet_ros.ros.scoreboard import Scoreboard

ROOT = Path(__file__).resolve().parents[3]
T_TRUE = se3.make_transform(se3.exp_so3(np.array([0.3, -0.4, 0.5])), np.array([0.05, -0.02, 0.7]))


@pytest.fixture(scope="module")
def library():
    return load_objects(ROOT / "config" / "objects" / "demo.yaml")


def moved(dx_m: float) -> np.ndarray:
    T = T_TRUE.copy()
    T[0, 3] += dx_m
    return T


def test_exact_poses_score_one(library):
    board = Scoreboard(library)
    for stamp in (1_000_000_000, 1_100_000_000, 1_200_000_000):
        board.add_truth("mug", stamp, T_TRUE)
        board.add_pose("mug", stamp, T_TRUE, 0.05)
    report = board.report()
    assert report["objects"] == {
        "mug": {
            "poses": 3, "frames": 3, "recall_add_01d": 1.0,
            "median_error_mm": 0.0, "median_error_deg": 0.0,
        }
    }  # fmt: skip
    assert report["recall_add_01d"] == 1.0
    assert report["rate_hz"] == 10.0
    assert report["latency_ms"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}


def test_a_missing_pose_counts_as_wrong(library):
    board = Scoreboard(library)
    for stamp in range(4):
        board.add_truth("mug", stamp, T_TRUE)
    board.add_pose("mug", 0, T_TRUE, 0.0)
    assert board.report()["objects"]["mug"]["recall_add_01d"] == 0.25


def test_the_threshold_is_a_tenth_of_the_diameter(library):
    d = library["mug"].diameter_m
    board = Scoreboard(library)
    for stamp, share in enumerate((0.09, 0.11)):
        board.add_truth("mug", stamp, T_TRUE)
        board.add_pose("mug", stamp, moved(share * d), 0.0)
    entry = board.report()["objects"]["mug"]
    assert entry["recall_add_01d"] == 0.5
    assert entry["median_error_mm"] == pytest.approx(100 * d, abs=1e-3)


def test_equivalent_pose_of_a_symmetric_object_is_right(library):
    model = library["pulley"]
    T = T_TRUE @ rotation_about(model.symmetries.axis, model.symmetries.point_m, 1.0)
    board = Scoreboard(library)
    board.add_truth("pulley", 1, T_TRUE)
    board.add_pose("pulley", 1, T, 0.0)
    entry = board.report()["objects"]["pulley"]
    assert entry["recall_add_01d"] == 1.0
    assert entry["median_error_deg"] == pytest.approx(0, abs=1e-3)


def test_order_of_arrival_does_not_matter_and_pairs_need_the_same_stamp(library):
    board = Scoreboard(library)
    board.add_pose("mug", 7, T_TRUE, 0.0)
    board.report()
    board.add_truth("mug", 7, T_TRUE)
    board.add_truth("mug", 9, T_TRUE)
    board.add_pose("mug", 8, T_TRUE, 0.0)
    entry = board.report()["objects"]["mug"]
    assert (entry["poses"], entry["recall_add_01d"]) == (1, 0.5)


def test_of_several_poses_the_first_counts(library):
    board = Scoreboard(library)
    board.add_truth("mug", 1, T_TRUE)
    board.add_pose("mug", 1, moved(0.5), 0.0)
    board.add_pose("mug", 1, T_TRUE, 0.0)
    assert board.report()["objects"]["mug"]["recall_add_01d"] == 0.0


def test_an_object_that_got_no_pose_is_reported(library):
    board = Scoreboard(library)
    board.add_truth("valve", 1, T_TRUE)
    report = board.report()
    assert report["objects"]["valve"] == {
        "poses": 0, "frames": 1, "recall_add_01d": 0.0,
        "median_error_mm": None, "median_error_deg": None,
    }  # fmt: skip
    assert report["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert report["rate_hz"] is None


def test_it_counts_all_and_keeps_only_the_latest(library, monkeypatch):
    """A monitor runs for weeks."""
    monkeypatch.setattr(scoreboard, "KEPT_FRAMES", 20)
    monkeypatch.setattr(scoreboard, "KEPT_VALUES", 50)
    board = Scoreboard(library)
    sizes, d = [], library["pulley"].diameter_m
    for i in range(300):
        stamp = 10**9 + i * 10**8
        board.add_truth("pulley", stamp, T_TRUE)
        if i % 3:  # every third frame is missed, every third is wrong
            board.add_pose("pulley", stamp, moved(d if i % 3 == 2 else 0.0), 0.1)
        if i % 100 == 99:
            report = board.report()
            sizes.append(len(pickle.dumps((board._tracks, board._posed_ns, board._latencies_s))))
    assert report["objects"]["pulley"]["frames"] == 300
    assert report["objects"]["pulley"]["poses"] == 200
    assert report["objects"]["pulley"]["recall_add_01d"] == pytest.approx(1 / 3, abs=1e-4)
    assert report["rate_hz"] == pytest.approx(199 / 29.8, abs=0.01)
    assert max(sizes) < 1.05 * sizes[0]
    assert board.poses_at(stamp) and not board.poses_at(10**9 + 10**8)


def test_nothing_at_all(library):
    report = Scoreboard(library).report()
    assert report["objects"] == {} and report["recall_add_01d"] is None
