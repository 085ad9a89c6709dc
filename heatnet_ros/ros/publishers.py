"""Publishes a PipelineResult: poses per object, markers, detections, TF. See docs/topics.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from heatnet_ros.errors import ConfigError
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.ros.detections import build_detections, import_vision_msgs
from heatnet_ros.ros.markers import MarkerBuilder, pose_to_message
from heatnet_ros.ros.messages import ns_to_stamp
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.overlay_drawer import OverlayDrawer
from heatnet_ros.ros.transforms import TransformPublisher
from heatnet_ros.types import Frame, PipelineResult, PoseEstimate


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

    Per object, one message per instance in the order of instances: ``~/pose/<object>``, and for
    poses with a true covariance ``~/pose_with_covariance/<object>`` and
    ``~/pose_filtered/<object>``. Per frame: ``~/markers``, ``~/detections`` where vision_msgs is
    installed, /tf where asked for, and ``~/overlay`` while somebody looks.
    """

    def __init__(
        self, node: LifecycleNode, library: ObjectLibrary, say: Callable[[str], None]
    ) -> None:
        """say: gets what goes wrong with the overlay."""
        self._node, self._library = node, library
        create = node.create_lifecycle_publisher
        names = topic_names(list(library.objects))
        self._poses = {i: create(PoseStamped, f"~/pose/{n}", 10) for i, n in names.items()}
        self._covariances, self._filtered = (
            {i: create(PoseWithCovarianceStamped, f"~/{topic}/{n}", 10) for i, n in names.items()}
            for topic in ("pose_with_covariance", "pose_filtered")
        )
        self._markers = create(MarkerArray, "~/markers", 10)
        self._builder = MarkerBuilder(library)
        self._vision_msgs = import_vision_msgs()
        self._detections: Any = None
        if self._vision_msgs is not None:
            self._detections = create(self._vision_msgs.Detection3DArray, "~/detections", 10)
        self._transforms = TransformPublisher(node, names)
        self._overlay = OverlayDrawer(node, library, say)

    def publish(self, result: PipelineResult, frame: Frame, config: NodeConfig) -> None:
        """Publish every pose with the stamp and frame of the image that it was seen in."""
        header = Header(stamp=ns_to_stamp(frame.stamp_ns), frame_id=frame.frame_id)
        poses, filtered = _sort(result.poses), _sort(result.filtered)
        for pose in poses:
            message = pose_to_message(pose.T_camera_object)
            self._poses[pose.object_id].publish(PoseStamped(header=header, pose=message))
        for publishers, some in ((self._covariances, poses), (self._filtered, filtered)):
            for pose in some:
                if pose.covariance is not None:
                    publishers[pose.object_id].publish(_with_covariance(pose, header))
        if config.publish_tf:
            self._transforms.publish(filtered or poses, header)
        if self._vision_msgs is not None:
            self._detections.publish(
                build_detections(poses, header, self._library, self._vision_msgs)
            )
        self._markers.publish(self._builder.build(poses, header, config.marker_lifetime_s))
        self._overlay.offer(result, frame)

    def clear(self) -> None:
        """Take all markers out of RViz."""
        self._markers.publish(self._builder.clear())

    def destroy(self) -> None:
        """Take the topics out of the graph."""
        self._overlay.destroy()
        self._transforms.destroy()
        per_object = (self._poses, self._covariances, self._filtered)
        publishers = [p for topics in per_object for p in topics.values()]
        for publisher in (*publishers, self._markers, self._detections):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)


def _sort(poses: tuple[PoseEstimate, ...]) -> tuple[PoseEstimate, ...]:
    return tuple(sorted(poses, key=lambda pose: (pose.object_id, pose.instance)))


def _with_covariance(pose: PoseEstimate, header: Header) -> PoseWithCovarianceStamped:
    assert pose.covariance is not None
    full = PoseWithCovarianceStamped(header=header)
    full.pose.pose = pose_to_message(pose.T_camera_object)
    full.pose.covariance = pose.covariance.ravel().tolist()
    return full
