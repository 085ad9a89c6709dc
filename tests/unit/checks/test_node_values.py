"""What a node's diagnostics mean."""

import pytest

from heatnet_ros.checks.finding import Level
from heatnet_ros.checks.node_values import check_node, check_values
from heatnet_ros.types import Reason

GOOD = {
    "state": "active", "rate_hz": "29.9", "engine.detector": "openvino CPU bf16",
    "received": "300", "processed": "290", "dropped": "9", "sync_losses": "1",
    "stage_detect_ms": "4.0", "stage_estimate_ms": "9.0", "drop_rate": "0.010",
    "sync_offset_ms": "0.10", "unpaired_rate": "0.000", "depth_valid": "0.91", "boxes": "2",
    "depth_median_m": "0.71", "depth_encoding": "16UC1", "topic.color": "/color",
    "stamp_delay_ms": "12.0", "stamp_drift_ms_per_s": "-0.10",
    "boxes_followed": "2", "instances.mug": "0", "latency_stamp_p50_ms": "36.0",
    "latency_stamp_p95_ms": "43.0", "latency_receive_p95_ms": "40.0", "topic.depth": "/depth",
}  # fmt: skip


def judge(**changes):
    values = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return [f for f in check_node("/pose_node", values) if f.level is not Level.OK]


def test_a_node_at_work_has_nothing_to_complain_about():
    assert not judge()
    text = "\n".join(f.line for f in check_node("/pose_node", GOOD))
    assert "detector openvino CPU bf16" in text and "detect 4.0, estimate 9.0 ms" in text
    assert "36.0 / 43.0 ms" in text and "2 of 2 boxes followed" in text


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_for_no_pose_has_a_remedy(reason):
    [found] = judge(**{"rejected.cup": f"{reason} 3 of 8", "instances.mug": "0"})
    assert found.what == "/pose_node cup" and "3 of 8" in found.evidence and found.remedy


def test_an_object_that_left_the_view_is_no_fault():
    gone = {"rejected.cup": "score_low 0.2", "rejected_age_s.cup": "40"}
    assert not judge(**gone)
    assert any("40 s ago: score_low" in f.text for f in check_node("/pose_node", GOOD | gone))


def test_another_instance_without_a_pose_is_told_and_no_fault():
    other = {"rejected.mug": "depth_disagrees 12 mm", "rejected_age_s.mug": "1"}
    assert not judge(**other)
    told = [f.text for f in check_node("/pose_node", GOOD | other) if "mug" in f.what]
    assert len(told) == 1 and "another box of it gave none: depth_disagrees 12 mm" in told[0]
    later = other | {"rejected_age_s.mug": "60"}
    assert not [f for f in check_node("/pose_node", GOOD | later) if "mug" in f.what]


def test_calibration_that_comes_no_more_is_a_warning():
    assert not judge(camera_info_age_s="0.1")
    [found] = judge(camera_info_age_s="60.0")
    assert found.what == "camera_info" and "came 60 s ago" in found.evidence and found.remedy


def test_no_object_found():
    [found] = judge(**{"instances.mug": None})
    assert "none of its objects is detected" in found.evidence


def test_a_node_that_waits():
    [found] = judge(state="inactive")
    assert "expected active" in found.evidence and "lifecycle" in found.remedy


def test_slow_node_and_slow_clock_are_told_apart():
    [found] = judge(latency_stamp_p95_ms="900.0", latency_receive_p95_ms="880.0")
    assert "too slow for this machine" in found.remedy
    [found] = judge(latency_stamp_p95_ms="90000.0")
    assert "clocks" in found.remedy and "40 ms" in found.remedy


def test_poor_input_is_a_warning_of_the_node_too():
    poor = {"depth_valid": "0.05", "unpaired_rate": "0.50", "drop_rate": "0.300"}
    assert [f.what for f in check_values(GOOD | poor)] == ["/depth", "/depth", "/color"]
    assert len(judge(**poor)) == 3
    unknown = ("depth_valid", "depth_median_m", "unpaired_rate", "stamp_delay_ms", "drop_rate")
    assert not check_values(dict.fromkeys(unknown, "none")) and not check_values({})


@pytest.mark.parametrize(
    ("changes", "level", "evidence"),
    [
        ({"depth_median_m": "0.0007"}, Level.ERROR, "'16UC1' must hold millimetres"),
        ({"stamp_drift_ms_per_s": "-30.00"}, Level.WARNING, "drift against the clock by -30.0 ms"),
        ({"stamp_drift_ms_per_s": "none"}, None, ""),
        ({"stamp_delay_ms": "-2500.0"}, Level.WARNING, "2.500 s ahead of this machine's clock"),
    ],
)
def test_units_and_clocks(changes, level, evidence):
    found = check_values(GOOD | changes)
    assert [f.level for f in found] == ([level] if level else [])
    assert all(evidence in f.evidence for f in found)
