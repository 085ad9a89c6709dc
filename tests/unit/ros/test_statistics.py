"""What the node tells of the objects that it saw."""

import numpy as np

from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.types import PipelineResult, PoseEstimate, Reason, Rejection

T = np.eye(4)
T[2, 3] = 1.0
MUG = PoseEstimate("mug", T, 0.9, 1.0, 0.5, "detector", 0)


def record(statistics, poses=(), rejected=()):
    statistics.record(PipelineResult(poses, rejected, (), {}, {}), 0.01, 0.02)


def test_the_last_rejection_stays_while_another_instance_has_a_pose():
    now = [0.0]
    statistics = Statistics(lambda: now[0])
    deep = Rejection("mug", Reason.DEPTH_DISAGREES, "12 mm, max_depth_error 10 mm")
    record(statistics, (MUG,), (deep,))
    record(statistics, (MUG,))
    now[0] = 7.0
    values = statistics.values()
    assert values["rejected.mug"] == "depth_disagrees 12 mm, max_depth_error 10 mm"
    assert values["rejected_age_s.mug"] == "7" and values["instances.mug"] == "0"


def test_an_object_found_twice_and_told_once_misses_nothing():
    statistics = Statistics()
    twice = Rejection("mug", Reason.SAME_OBJECT, "as instance 0")
    record(statistics, (MUG,), (twice,))
    values = statistics.values()
    assert "rejected.mug" not in values and values["rejections.same_object"] == "1"
    record(statistics, (), (twice,))
    assert statistics.values()["rejected.mug"] == "same_object as instance 0"
