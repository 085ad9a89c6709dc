"""Poses on /tf, where asked for; tf2_ros is not needed, only its message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from heatnet_ros.errors import ConfigError
from heatnet_ros.ros.markers import pose_to_message
from heatnet_ros.types import PoseEstimate

_TOPIC = "/tf"


def check_tf_installed() -> None:
    """Raise ConfigError where tf2_msgs is not installed."""
    _import_message()


class TransformPublisher:
    """The topic is made with the first transform: a node that sends none is not in its list.

    names: object id -> token; a child frame is ``<token>_<instance>``, with the node's namespace
    before it (``left/mug_0``): /tf is one for all cameras, and a frame has one parent.
    """

    def __init__(self, node: LifecycleNode, names: Mapping[str, str]) -> None:
        self._node = node
        before = f"{node.get_namespace()}/".lstrip("/")
        self._names = {name: before + token for name, token in names.items()}
        self._publisher: Any = None

    def publish(self, poses: Sequence[PoseEstimate], header: Header) -> None:
        """Send the poses, children of the image's frame. Raises ConfigError without tf2_msgs."""
        if not poses:
            return
        kind = _import_message()
        if self._publisher is None:
            # as tf2_ros does it: reliable, a hundred deep
            self._publisher = self._node.create_publisher(kind, _TOPIC, 100)
        self._publisher.publish(
            kind(transforms=[build_transform(p, header, self._names[p.object_id]) for p in poses])
        )

    def destroy(self) -> None:
        """Take the topic out of the graph."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None


def build_transform(pose: PoseEstimate, header: Header, token: str) -> TransformStamped:
    """The object as a child of the image's frame, named ``<token>_<instance>``."""
    message = TransformStamped(header=header, child_frame_id=f"{token}_{pose.instance}")
    seen = pose_to_message(pose.T_camera_object)
    move = message.transform.translation
    move.x, move.y, move.z = seen.position.x, seen.position.y, seen.position.z
    message.transform.rotation = seen.orientation
    return message


def _import_message() -> Any:
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError as error:
        raise ConfigError(
            "publish_tf is true, but tf2_msgs is not installed. Install "
            "ros-$ROS_DISTRO-tf2-msgs, or set publish_tf to false."
        ) from error
    return TFMessage
