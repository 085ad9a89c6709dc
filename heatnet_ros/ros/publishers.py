"""Publishes a PipelineResult: poses per object and the markers."""

from __future__ import annotations

import re

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from heatnet_ros.errors import ConfigError
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.ros.markers import MarkerBuilder, pose_to_message
from heatnet_ros.types import Frame, PipelineResult


def topic_names(object_ids: list[str]) -> dict[str, str]:
    """Object id -> valid ROS name token. Raises ConfigError when two objects would share one."""
    tokens: dict[str, str] = {}
    for object_id in object_ids:
        token = re.sub(r"[\W_]+", "_", object_id, flags=re.ASCII)
        token = f"object_{token}" if not token[:1].isalpha() else token
        other = next((name for name, used in tokens.items() if used == token), None)
        if other is not None:
            raise ConfigError(
                f"Objects '{other}' and '{object_id}' would both be published as '{token}': topic "
                "names hold only letters, digits and _. Rename one in the object library."
            )
        tokens[object_id] = token
    return tokens


class ResultPublishers:
    """The node's outputs; they exist while it is configured and publish while it is active.

    ``~/pose/<object>`` and, for poses with a true covariance, ``~/pose_with_covariance/<object>``:
    one message per instance, in the order of instances. ``~/markers``: one message per frame.
    """

    def __init__(self, node: LifecycleNode, library: ObjectLibrary) -> None:
        self._node = node
        create = node.create_lifecycle_publisher
        names = topic_names(list(library.objects))
        self._poses = {i: create(PoseStamped, f"~/pose/{n}", 10) for i, n in names.items()}
        self._covariances = {
            i: create(PoseWithCovarianceStamped, f"~/pose_with_covariance/{n}", 10)
            for i, n in names.items()
        }
        self._markers = create(MarkerArray, "~/markers", 10)
        self._builder = MarkerBuilder(library)

    def publish(self, result: PipelineResult, frame: Frame, marker_lifetime_s: float) -> None:
        """Publish every pose with the stamp and frame of the image that it was seen in."""
        if not self._node.context.ok():  # Ctrl-C came while the frame was in work
            return
        seconds, nanoseconds = divmod(frame.stamp_ns, 1_000_000_000)
        header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame.frame_id)
        poses = tuple(sorted(result.poses, key=lambda pose: (pose.object_id, pose.instance)))
        for pose in poses:
            message = pose_to_message(pose.T_camera_object)
            self._poses[pose.object_id].publish(PoseStamped(header=header, pose=message))
            if pose.covariance is not None:
                full = PoseWithCovarianceStamped(header=header)
                full.pose.pose = message
                full.pose.covariance = pose.covariance.ravel().tolist()
                self._covariances[pose.object_id].publish(full)
        self._markers.publish(self._builder.build(poses, header, marker_lifetime_s))

    def clear(self) -> None:
        """Take all markers out of RViz."""
        self._markers.publish(self._builder.clear())

    def destroy(self) -> None:
        """Take the topics out of the graph."""
        for publisher in (*self._poses.values(), *self._covariances.values(), self._markers):
            self._node.destroy_lifecycle_publisher(publisher)
