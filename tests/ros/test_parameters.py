"""Parameters: declared with description and range, live ones change while frames come."""

import re

import pytest
from rcl_interfaces.msg import ParameterType, SetParametersResult
from rcl_interfaces.srv import DescribeParameters, GetParameters

from heatnet_ros.config import PipelineConfig


def describe(bench, name):
    request = DescribeParameters.Request(names=[name])
    return bench.call(DescribeParameters, "describe_parameters", request).descriptors[0]


def get(bench, name):
    request = GetParameters.Request(names=[name])
    return bench.call(GetParameters, "get_parameters", request).values[0]


def test_parameters_have_description_type_and_range(bench):
    bench.start(wait=False, autostart=False)
    descriptor = describe(bench, "detector.score_threshold")
    assert descriptor.type == ParameterType.PARAMETER_DOUBLE
    assert "below this score" in descriptor.description
    limits = descriptor.floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 1.0)
    limits = describe(bench, "gate.min_inliers").integer_range[0]
    assert (limits.from_value, limits.to_value) == (4, 1000)
    assert "depth_icp" in describe(bench, "refiner.name").additional_constraints
    default = PipelineConfig().detector.score_threshold
    assert get(bench, "detector.score_threshold").double_value == default


def test_live_parameter_changes_while_it_runs(bench):
    bench.start(**{"follow.enabled": False})  # a followed object needs no detection
    bench.stream_until_poses()
    # the scores of the fake detector: 0.95, 0.94, 0.93
    assert bench.set_parameter("detector.score_threshold", 0.99).successful
    bench.stream_for(0.2)
    del bench.poses[:]
    bench.stream_for(0.3)
    assert not bench.poses
    assert bench.set_parameter("detector.score_threshold", 0.5).successful
    bench.stream_until_poses()


def test_live_parameter_of_the_node(bench):
    bench.start()
    bench.stream_until_poses()
    assert bench.set_parameter("marker_lifetime_s", 7.5).successful
    bench.stream(
        lambda: [m for a in bench.markers for m in a.markers if m.lifetime.sec == 7], "lifetime 7 s"
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("estimator.model", "elsewhere", "used while configuring.*cleanup"),
        ("use_depth", "false", "used while configuring"),
        ("autostart", False, "used while configuring"),
        ("detector.score_threshold", 1.5, "range"),
        ("detector.score_threshold", "high", "(?i)type"),
    ],
)
def test_refused_changes_say_why(bench, name, value, reason):
    bench.start()
    result = bench.set_parameter(name, value)
    assert not result.successful and re.search(reason, result.reason), result.reason
    bench.stream_until_poses()


def test_fixed_parameter_may_change_before_configuring(bench):
    bench.start(wait=False, autostart=False)
    result = bench.set_parameter("estimator.decode", "maximum")
    assert not result.successful and "one of dark, argmax" in result.reason
    assert bench.set_parameter("estimator.decode", "argmax").successful
    assert bench.change_state("configure") and bench.change_state("activate")
    assert bench.node.node._configured.pipeline.config.estimator.decode == "argmax"


@pytest.mark.parametrize(
    ("name", "bad", "good", "message"),
    [
        ("detector.score_threshold", 1.5, 0.5, "score_threshold.*expected 0.0 to 1.0, got 1.5"),
        ("gate.min_inliers", "many", 8, "min_inliers.*expected int, got 'many'"),
        ("color_transport", "theora", "raw", "one of raw, compressed, got 'theora'"),
    ],
)
def test_bad_parameter_file_value_is_a_message_not_a_crash(bench, name, bad, good, message):
    bench.start(**{name: bad}, wait=False)
    bench.wait_for(lambda: bench.errors(f"Cannot configure: .*{message}"), "a message")
    assert bench.state() == "unconfigured"
    assert bench.set_parameter(name, good).successful
    assert bench.change_state("configure") and bench.change_state("activate")
    bench.stream_until_poses()


def test_whole_number_and_bool_are_taken_as_yaml_writes_them(bench):
    bench.start(**{"detector.score_threshold": 0, "use_depth": True})
    assert get(bench, "detector.score_threshold").double_value == 0.0
    assert get(bench, "use_depth").string_value == "true"


def test_unknown_parameter_is_named_with_the_nearest_known(bench):
    bench.start(**{"detector.score_treshold": 0.5})
    bench.wait_for(lambda: any("treshold" in log.msg for log in bench.logs), "a warning")
    message = next(log.msg for log in bench.logs if "treshold" in log.msg)
    assert "Did you mean 'detector.score_threshold'?" in message


def test_use_depth_false_with_a_depth_model_is_refused(bench):
    bench.start(use_depth=False, wait=False)
    bench.wait_for(lambda: bench.errors("use_depth is false, but the model .* needs"), "a message")
    assert bench.state() == "unconfigured"


def test_what_is_refused_after_our_check_is_not_applied(bench):
    """Another check may refuse what ours allows: only stored values count."""
    node = bench.start()
    before = node._configured.settings
    node.add_on_set_parameters_callback(
        lambda _: SetParametersResult(successful=False, reason="not today")
    )
    # rclpy asks the last one added first; ours must have been asked
    node._on_set_parameters_callbacks.reverse()
    assert bench.set_parameter("gate.min_score", 0.7).reason == "not today"
    assert node._configured.settings is before and node._active.worker.settings is before
    node._on_set_parameters_callbacks.pop()
    assert bench.set_parameter("gate.min_score", 0.7).successful
    assert node._configured.settings.pipeline.gate.min_score == 0.7
    assert node._active.worker.settings is node._configured.settings
    bench.stream_until_poses()


def test_a_change_while_inactive_is_used_after_activation(bench):
    node = bench.start()
    assert bench.change_state("deactivate")
    assert bench.set_parameter("gate.min_inliers", 9).successful
    assert bench.change_state("activate")
    bench.stream_until_poses()
    assert node._configured.pipeline.config.gate.min_inliers == 9
