"""A node that listens to the camera's topics and to ``/diagnostics`` for some seconds.

Images are taken raw, so that a slow listener is not mistaken for a lossy camera.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import (
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from heatnet_ros.checks.streams import Stream
from heatnet_ros.ros.cameras import ALIGNED_NAMES
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.graph import TYPE_NAMES, full_name, list_publishers
from heatnet_ros.ros.messages import stamp_to_ns

_KEPT = 8  # messages of a stream, to find some of one moment


class Listener:
    """One subscription: what came, and the newest messages of it. ``needed`` by the node."""

    def __init__(self, node: Node, topic: str, kind: Any, needed: bool) -> None:
        self.needed = needed
        self.stream = Stream(topic, TYPE_NAMES[kind])
        self._node, self._kind = node, kind
        self._newest: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        # best effort and volatile match every publisher: what the node asks for is compared apart
        qos = QoSProfile(depth=30, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(
            kind, topic, self._take, qos, raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
        )  # fmt: skip

    def _take(self, data: bytes) -> None:
        seen_s = time.monotonic()
        stamp_ns = read_stamp_ns(data)
        clock_ns = int(self._node.get_clock().now().nanoseconds)
        self.stream.times.add(stamp_ns, seen_s, clock_ns)
        self.stream.size_bytes = len(data)
        self._newest.append((stamp_ns, data))

    def _on_lost(self, event: Any) -> None:
        self.stream.lost += event.total_count_change

    def newest(self, near_ns: int | None = None) -> Any:
        """The newest message, or of the last ones the one nearest to a stamp; None of nothing."""
        if not self._newest:
            return None
        kept = list(self._newest)
        chosen = kept[-1] if near_ns is None else min(kept, key=lambda k: abs(k[0] - near_ns))
        return deserialize_message(chosen[1], self._kind)


def read_stamp_ns(data: bytes) -> int:
    """Stamp of a serialised message that begins with a Header: CDR, 4 bytes of encoding first."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Probe(Node):  # type: ignore[misc]
    """Listens while ``listen`` runs. ``namespace``: of relative topic names."""

    def __init__(self, use_sim_time: bool = False) -> None:
        super().__init__(
            "heatnet_ros_doctor",
            parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
            use_global_arguments=False,
        )
        # newest of each pose node: full name -> status -> values, and the message of an error
        self._values: dict[str, dict[str, dict[str, str]]] = {}
        self.problems: dict[str, dict[str, str]] = {}
        self.listeners: dict[str, Listener] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    @property
    def nodes(self) -> dict[str, dict[str, str]]:
        """Pose nodes that report: full name -> all values."""
        return {
            name: parts.get("input", {}) | parts["pipeline"]
            for name, parts in self._values.items()
            if "pipeline" in parts
        }

    def listen(self, seconds: float) -> None:
        """Take messages for so long."""
        started_s = time.monotonic()
        while (left_s := started_s + seconds - time.monotonic()) > 0 and self.context.ok():
            self._executor.spin_once(timeout_sec=left_s)
        for listener in self.listeners.values():
            listener.stream.seconds += seconds

    def find_nodes(self, wanted: str, settle_s: float, limit_s: float) -> None:
        """Listen until the node that is wanted reports, at most ``limit_s``.

        Where none is named: ``settle_s``, and on while somebody is there who may report.
        """
        started_s = time.monotonic()
        while (passed_s := time.monotonic() - started_s) < limit_s and self.context.ok():
            if wanted in self.nodes:
                return
            reporting = bool(self.nodes) or not self.count_publishers("/diagnostics")
            if passed_s >= settle_s and reporting and not wanted:
                return
            self._executor.spin_once(timeout_sec=0.05)

    def wait_for_publishers(self, limit_s: float) -> None:
        """Until the network has told of a publisher for each topic, at most so long."""
        deadline_s = time.monotonic() + limit_s
        topics = [listener.stream.topic for listener in self.listeners.values() if listener.needed]
        while time.monotonic() < deadline_s and self.context.ok():
            if all(self.count_publishers(topic) for topic in topics):
                return
            self._executor.spin_once(timeout_sec=0.05)

    def subscribe(self, topics: Topics) -> None:
        """Begin with the camera's topics, and the CameraInfo beside the depth image."""
        wanted = {
            "color": (topics.color, _type_of(topics.color)),
            "info": (topics.camera_info, CameraInfo),
        }
        if topics.depth is not None:
            wanted["depth"] = (topics.depth, _type_of(topics.depth))
            wanted["depth_info"] = (str(topics.depth_info), CameraInfo)
        for role, (topic, kind) in wanted.items():
            self.listeners[role] = Listener(self, topic, kind, role != "depth_info")

    def describe_graph(self, node: str | None, overrides: Mapping[str, Any]) -> None:
        """Fill in publishers, QoS that does not fit, and other topics of the same type.

        node: whose subscriptions are compared; without one, what ``overrides`` (parameters
        ``qos_overrides...``) would make of the node's default.
        """
        known = self.get_topic_names_and_types()
        for role, listener in self.listeners.items():
            stream = listener.stream
            infos = self.get_publishers_info_by_topic(stream.topic)
            stream.publishers = list_publishers(self, stream.topic)
            wanted = self._asked_qos(node, stream.topic, overrides)
            stream.misfits = [
                (full_name(info), policy)
                for info in infos
                if (policy := find_misfit(info.qos_profile, wanted))
            ]
            stream.alike = [
                name
                for name, types in known
                if stream.type_name in types
                and self._is_of_camera(name)
                # images of colour, or of depth that nobody aligned, would be of no use
                and (role != "depth" or any(part in name for part in ALIGNED_NAMES))
            ]

    def _is_of_camera(self, topic: str) -> bool:
        """Whether anybody but pose nodes publishes it: their overlay is no camera."""
        publishers = {full_name(info) for info in self.get_publishers_info_by_topic(topic)}
        return bool(publishers - set(self.nodes))

    def _asked_qos(self, node: str | None, topic: str, overrides: Mapping[str, Any]) -> QoSProfile:
        for info in self.get_subscriptions_info_by_topic(topic):
            if full_name(info) == node:
                return info.qos_profile
        qos = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        prefix = f"qos_overrides.{topic}.subscription."
        if f"{prefix}reliability" in overrides:
            name = str(overrides[f"{prefix}reliability"])
            qos.reliability = QoSReliabilityPolicy.get_from_short_key(name)
        if f"{prefix}durability" in overrides:
            name = str(overrides[f"{prefix}durability"])
            qos.durability = QoSDurabilityPolicy.get_from_short_key(name)
        return qos

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name, _, part = status.name.partition(": ")
            values = {item.key: item.value for item in status.values}
            name = f"/{name}"
            known = {"pipeline": "state", "input": "last_problem"}.get(part)
            if known not in values:  # another node's
                continue
            self._values.setdefault(name, {})[part] = values
            is_error = status.level == b"\2"
            self.problems.setdefault(name, {})[part] = status.message if is_error else ""


def _type_of(topic: str) -> Any:
    """As image_transport names its topics."""
    return CompressedImage if topic.endswith(("/compressed", "/compressedDepth")) else Image


def find_misfit(offered: QoSProfile, asked: QoSProfile) -> str:
    """The policy in which a publisher offers less than is asked for; empty where none is."""
    compatible, _ = qos_check_compatible(offered, asked)
    if compatible != QoSCompatibility.ERROR:
        return ""
    best_effort, reliable = QoSReliabilityPolicy.BEST_EFFORT, QoSReliabilityPolicy.RELIABLE
    if (offered.reliability, asked.reliability) == (best_effort, reliable):
        return "RELIABILITY"
    volatile = QoSDurabilityPolicy.VOLATILE
    if offered.durability == volatile and asked.durability != volatile:
        return "DURABILITY"
    return "DEADLINE" if asked.deadline != Duration() else "LIVELINESS"


def header_stamp_ns(message: Any) -> int:
    """Stamp of a message with a header, nanoseconds."""
    return stamp_to_ns(message.header.stamp)
