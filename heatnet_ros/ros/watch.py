"""What the doctor sees of the camera's topics, seen by the node itself.

Nothing in here looks at a frame: it judges, once a second, what the network tells of publishers,
what intake and worker have measured anyway, and CameraInfo. Depth's CameraInfo is subscribed to
only until one has come, and now and then again: the node pays for no message that it does not need.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from heatnet_ros.checks.calibration import check_frame_id
from heatnet_ros.checks.finding import Finding, Level
from heatnet_ros.checks.node_values import check_values
from heatnet_ros.checks.streams import Stream, check_publishers
from heatnet_ros.errors import DataError
from heatnet_ros.ros.camera_checks import judge_calibration, judge_depth_camera, judge_rectified
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.graph import TYPE_NAMES, list_publishers
from heatnet_ros.ros.intake import Intake
from heatnet_ros.ros.problems import Problems, Source

# depth's CameraInfo is looked at again after so long, at once while it is wrong
_AGAIN_S = 30.0
# what was wrong and is not told for so long is not known to be so
_SILENT_S = 5.0


class Watch:
    """From activation to ``close``. ``look``, then ``judge``, once a second in the executor.

    ``subscriptions``: those of the node to the camera's topics, filled in any time.
    """

    def __init__(
        self,
        node: Node,
        topics: Topics,
        intake: Intake,
        problems: Problems,
        subscriptions: Sequence[Subscription],
    ) -> None:
        self._node, self._topics = node, topics
        self._intake, self._problems, self._subscriptions = intake, problems, subscriptions
        self._graph: list[Finding] = []
        self._depth_info: CameraInfo | None = None
        self._depth_info_s = 0.0  # monotonic, when it came
        self._listening: Subscription | None = None

    def close(self) -> None:
        """Unsubscribe."""
        if self._listening is not None:
            self._node.destroy_subscription(self._listening)
            self._listening = None

    def look(self) -> None:
        """Ask who publishes; a topic of another type explains to the intake why nothing comes."""
        self._graph.clear()
        explained = set()
        for subscription in self._subscriptions:
            topic = subscription.topic_name
            publishers = list_publishers(self._node, topic)
            stream = Stream(topic, TYPE_NAMES[subscription.msg_type], publishers)
            self._graph += check_publishers(stream)
            if stream.other_types:
                explained.add(topic)
        self._intake.explained = explained

    def judge(self, values: Mapping[str, str], rectified: bool) -> list[str]:
        """Report what is an error; returns the warnings. ``values``: the node's diagnostics."""
        # what was measured before the camera fell silent says nothing about it now
        measured = check_values(values) if self._intake.is_heard else []
        found = [*self._graph, *measured, *self._judge_cameras(rectified)]
        errors = [finding.text for finding in found if finding.level is Level.ERROR]
        if errors:
            self._problems.report(Source.CHECKS, " ".join(errors))
        else:
            self._problems.clear(Source.CHECKS)
        return [finding.text for finding in found if finding.level is Level.WARNING]

    def _judge_cameras(self, rectified: bool) -> Iterator[Finding]:
        info = self._intake.camera_info
        if info is None:
            return
        try:
            yield judge_calibration(info, self._topics, rectified)
        except DataError:  # the worker says it of every frame
            return
        frame = check_frame_id(self._topics.camera_info, info.header.frame_id)
        if frame is not None:
            yield frame
        called = judge_rectified(info, self._topics, rectified)
        if called is not None:
            yield called
        aligned = (
            None if self._topics.depth_info is None else self._judge_depth_camera(info, rectified)
        )
        if aligned is not None:
            yield aligned

    def _judge_depth_camera(self, info: CameraInfo, rectified: bool) -> Finding | None:
        """Compare what was heard of depth's CameraInfo; listen to it, or be done for a while."""
        age_s, finding = time.monotonic() - self._depth_info_s, None
        if self._depth_info is not None:
            finding = judge_depth_camera(info, self._depth_info, self._topics, rectified)
            # colour's has changed since, or nobody tells depth's any more: nothing is known
            old = self._listening is None or age_s > _SILENT_S
            if finding is not None and finding.level is not Level.OK and old:
                finding = self._depth_info = None
        if finding is None or finding.level is not Level.OK or age_s > _AGAIN_S:
            self._listen()
        else:
            self.close()
        return finding

    def _listen(self) -> None:
        if self._listening is None:
            # best effort matches every publisher
            qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
            self._listening = self._node.create_subscription(
                CameraInfo, str(self._topics.depth_info), self._on_depth_info, qos
            )

    def _on_depth_info(self, message: CameraInfo) -> None:
        self._depth_info, self._depth_info_s = message, time.monotonic()
