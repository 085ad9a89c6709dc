"""``~/reset`` and ``~/track``, where std_srvs is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

TRACK_PARAMETER = "follow.enabled"


def create_services(node: LifecycleNode, reset: Callable[[], str]) -> None:
    """Offer the services for the node's whole life. reset: forgets and says what it did.

    Without std_srvs the log says what does the same.
    """
    try:
        from std_srvs.srv import SetBool, Trigger
    except ImportError:
        node.get_logger().info(
            "std_srvs is not installed: ~/reset and ~/track are not offered. Deactivate and "
            "activate (ros2 lifecycle set) instead of ~/reset, set the parameter "
            f"{TRACK_PARAMETER} instead of ~/track, or install ros-$ROS_DISTRO-std-srvs."
        )
        return

    def on_reset(_: Any, response: Any) -> Any:
        response.success, response.message = True, reset()
        return response

    def on_track(request: Any, response: Any) -> Any:
        # through the parameter: there is one truth, and whoever watches it is told
        result = node.set_parameters([Parameter(TRACK_PARAMETER, value=bool(request.data))])[0]
        response.success = result.successful
        response.message = result.reason or f"{TRACK_PARAMETER} is {request.data}"
        return response

    node.create_service(Trigger, "~/reset", on_reset)
    node.create_service(SetBool, "~/track", on_track)
