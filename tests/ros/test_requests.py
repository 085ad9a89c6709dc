"""Requests that rclpy cannot fulfil: answered, logged, and the node goes on."""

import time

import pytest
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock


@pytest.mark.parametrize(
    "wrong", [{"id": 250}, {"id": Transition.TRANSITION_CONFIGURE}, {"label": "fly"}, {"id": 10}]
)
def test_a_transition_that_there_is_not(bench, wrong):
    """By its id, rclpy raises in the executor: it ended the node."""
    bench.start()
    request = ChangeState.Request(transition=Transition(**wrong))
    assert not bench.call(ChangeState, "change_state", request).success
    if "id" in wrong:
        pattern = r"change_state: the request .* cannot be fulfilled: Failed to trigger lifecycle"
        bench.wait_for(lambda: bench.errors(pattern), "a message")
    assert bench.state() == "active"
    bench.stream_until_poses()


def test_a_parameter_of_a_type_that_there_is_not(bench):
    bench.start()
    message = Parameter(name="gate.min_score", value=ParameterValue(type=99))
    answer = bench.call(
        SetParameters, "set_parameters", SetParameters.Request(parameters=[message])
    )
    assert not any(result.successful for result in answer.results)
    bench.wait_for(lambda: bench.errors("set_parameters: the request .* 99 is not"), "a message")
    assert bench.set_parameter("gate.min_score", 0.3).successful
    bench.stream_until_poses()


def test_a_manager_quicker_than_autostart(bench):
    """Its transitions came first: autostart's are none any more, which raised in the executor."""
    node = bench.start()
    node._autostart()
    assert bench.state() == "active"
    bench.stream_until_poses()


@pytest.mark.parametrize("at_start", [True, False])
def test_a_clock_before_zero(bench, at_start):
    """Time.from_msg raised in the executor, also where use_sim_time came later."""
    node = bench.start(use_sim_time=at_start)
    assert at_start or bench.set_parameter("use_sim_time", True).successful
    clock = bench.create_publisher(Clock, "/clock")

    def tick(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))
        time.sleep(0.05)

    def is_told():
        tick(-1)
        return bench.errors(r"/clock: -1 s, 0 ns is no time: .* Mend the publisher")

    bench.wait_for(is_told, "a message")
    bench.wait_for(lambda: tick(7) or node.get_clock().now().nanoseconds == 7 * 10**9, "the time")
    tick(-1)
    assert node.get_clock().now().nanoseconds == 7 * 10**9 and bench.state() == "active"
