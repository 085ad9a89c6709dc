"""What rclpy cannot fulfil or take is answered or left out, and logged; it would end the node."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.node import Node

from heatnet_ros.ros.problems import REPEAT_S

if TYPE_CHECKING:
    from rosgraph_msgs.msg import Clock

Callback = Callable[[Any, Any], Any]


def guard_services(node: Node) -> None:
    """Let no request end the node: an exception gives an empty answer (success: false).

    rclpy raises in the executor, and so out of ``spin``, for instance when a lifecycle transition
    is asked for by an id that the present state does not have, or when a parameter has a type that
    there is not. Call it when all services exist.
    """
    for service in node.services:
        service.callback = partial(_answer, node, service.srv_name, service.callback)


def _answer(node: Node, name: str, callback: Callback, request: Any, response: Any) -> Any:
    try:
        return callback(request, response)
    except Exception as error:  # whatever a client sends, the node stays alive and says it
        reason = str(error).split(", at ")[0]  # RCLError: its text names ROS's own source files
        node.get_logger().error(
            f"{name}: the request {str(request)[:200]} cannot be fulfilled: {reason}. "
            "Mend the client, or ask for what this state allows "
            f"(ros2 lifecycle list {node.get_fully_qualified_name()}).",
            throttle_duration_sec=REPEAT_S,
        )
        return type(response)()


def guard_clock(node: Node) -> None:
    """Let no message on /clock end the node: what is no time (before 0) is left out.

    rclpy's time source raises in the executor, and so out of ``spin``. ``use_sim_time`` may be set
    later: the callback of a subscription to come is guarded, too.
    """
    source = node._time_source
    source.clock_callback = partial(_set_time, node, source.clock_callback)
    if source._clock_sub is not None:
        source._clock_sub.callback = source.clock_callback


def _set_time(node: Node, callback: Callable[[Clock], None], message: Clock) -> None:
    try:
        callback(message)
    except Exception as error:  # whatever a simulator sends, the node stays alive and says it
        node.get_logger().error(
            f"/clock: {message.clock.sec} s, {message.clock.nanosec} ns is no time: {error}. The "
            "time before it stays. Mend the publisher (ros2 topic info -v /clock).",
            throttle_duration_sec=REPEAT_S,
        )
