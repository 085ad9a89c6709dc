"""``monitor``: how right and how quick ``pose_node`` is, against the true poses of the camera.

Listens to ``/pose_node/pose/<object>``, ``/synthetic_camera/truth/<object>`` and ``/diagnostics``;
logs a table at the end and writes a JSON report while it runs. Latency is the time from an image's
stamp to the moment the pose is received here, on one machine's clock.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from heatnet_ros.config import option
from heatnet_ros.errors import HeatnetError
from heatnet_ros.files import write_json, write_whole
from heatnet_ros.objects import load_objects
from heatnet_ros.overlay import draw_poses
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.messages import (
    camera_info_to_intrinsics,
    image_to_rgb,
    pose_to_matrix,
    stamp_to_ns,
)
from heatnet_ros.ros.publishers import topic_names
from heatnet_ros.ros.scoreboard import Scoreboard
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.synthetic_camera import TOPICS
from heatnet_ros.ros.tool_nodes import declare_options
from heatnet_ros.types import FloatArray, PoseEstimate

_FRAME_COUNTS = ("received", "processed", "dropped")
_PERIOD_S = 0.5
_KEPT_IMAGES = 12


@dataclass(frozen=True)
class MonitorConfig:
    """Parameters of ``monitor``."""

    objects_file: str = option("config/objects/demo.yaml", "The object library")
    pose_node: str = option("/pose_node", "Full name of the node that is watched")
    camera_node: str = option("/synthetic_camera", "Full name of the camera that knows the truth")
    report_file: str = option("", "JSON report, renewed twice a second; empty writes none")
    overlay_file: str = option("", "PNG of one of the last frames with its poses; empty: none")


@dataclass(frozen=True)
class _Received:
    kind: str
    name: str
    message: PoseStamped
    at_ns: int


class Monitor(Node):  # type: ignore[misc]
    """Callbacks only store, so that scoring never delays the next pose; ``update`` scores."""

    def __init__(self) -> None:
        super().__init__("monitor")
        self.config = declare_options(self, MonitorConfig)
        self._library = load_objects(find_resource(self.config.objects_file, "Object library"))
        self._scores = Scoreboard(self._library)
        self._inbox: deque[_Received] = deque()
        self._images: deque[bytes] = deque(maxlen=_KEPT_IMAGES)
        self._info: CameraInfo | None = None
        self._values: dict[str, str] = {}
        self._watching = False
        qos = QoSProfile(depth=100)
        for name, token in topic_names(list(self._library.objects)).items():
            for kind, topic in (
                ("pose", f"{self.config.pose_node}/pose/{token}"),
                ("truth", f"{self.config.camera_node}/truth/{token}"),
            ):
                self.create_subscription(PoseStamped, topic, self._store(kind, name), qos)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos)

    def _store(self, kind: str, name: str) -> Any:
        def callback(message: PoseStamped) -> None:
            at_ns = self.get_clock().now().nanoseconds
            if kind == "pose" and self.config.overlay_file and not self._watching:
                self._watch_images()
            self._inbox.append(_Received(kind, name, message, at_ns))

        return callback

    def _watch_images(self) -> None:
        """Begins with the first pose: the camera starts when the node, not we, wants images."""
        self._watching = True
        qos = QoSProfile(depth=2, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        # raw: an image is only decoded when it is drawn on
        self.create_subscription(Image, TOPICS.color, self._on_image, qos, raw=True)
        self.create_subscription(CameraInfo, TOPICS.camera_info, self._on_info, qos)

    def _on_image(self, data: bytes) -> None:
        self._images.append(data)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        watched = (self.config.pose_node.lstrip("/"), self.config.camera_node.lstrip("/"))
        for status in message.status:
            if status.name.split(":")[0] in watched:
                self._values |= {item.key: item.value for item in status.values}

    def update(self) -> dict[str, Any]:
        """Score what came in since the last call and return (and write) the report."""
        while self._inbox:
            received = self._inbox.popleft()
            stamp_ns = stamp_to_ns(received.message.header.stamp)
            T = pose_to_matrix(received.message.pose)
            if received.kind == "truth":
                self._scores.add_truth(received.name, stamp_ns, T)
            else:
                latency_s = (received.at_ns - stamp_ns) / 1e9
                self._scores.add_pose(received.name, stamp_ns, T, latency_s)
        values = dict(self._values)
        frames = {key: int(values.get(key, 0)) for key in ("published", *_FRAME_COUNTS)}
        engines = {k.removeprefix("engine."): v for k, v in values.items() if "engine." in k}
        report = self._scores.report() | {
            "frames": frames,
            "engine": ", ".join(f"{role}: {text}" for role, text in engines.items()),
        }
        if self.config.report_file:
            write_json(Path(self.config.report_file), report)
        return report

    def draw_overlay(self) -> None:
        """Draw the poses into the image, of the last ones, that has most of them."""
        best: tuple[Image, dict[str, FloatArray]] | None = None
        for data in list(self._images):
            image = deserialize_message(data, Image)
            found = self._scores.poses_at(stamp_to_ns(image.header.stamp))
            if best is None or len(found) >= len(best[1]):
                best = (image, found)
        if best is None or self._info is None:
            self.get_logger().warning("No image was received: the overlay is not drawn.")
            return
        image, found = best
        K, distortion = camera_info_to_intrinsics(self._info, False, TOPICS.camera_info)
        poses = [
            PoseEstimate(name, T, 1.0, 1.0, 0.0, self.config.pose_node) for name, T in found.items()
        ]
        rgb = image_to_rgb(image, TOPICS.color)
        # a PoseStamped says nothing of how sure it is
        rgb = draw_poses(rgb, K, distortion, poses, self._library, with_score=False)
        _, png = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        write_whole(Path(self.config.overlay_file), png.tobytes())


def format_report(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    lines = [
        f"{'object':<12}{'poses':>7}{'of frames':>11}{'ADD(-S) 0.1d':>14}{'median mm':>11}"
        f"{'median deg':>12}"
    ]
    for name, entry in report["objects"].items():
        lines.append(
            f"{name:<12}{entry['poses']:>7}{entry['frames']:>11}"
            f"{_text(entry['recall_add_01d'], 14, 3)}"
            f"{_text(entry['median_error_mm'], 11, 2)}{_text(entry['median_error_deg'], 12, 2)}"
        )
    lines.append(f"{'mean':<12}{'':>18}{_text(report['recall_add_01d'], 14, 3)}")
    latency, frames = report["latency_ms"], report["frames"]
    lines.append(
        f"rate {_text(report['rate_hz'])} Hz, latency p50 {_text(latency['p50'])} ms, "
        f"p95 {_text(latency['p95'])} ms"
    )
    lines.append("frames " + ", ".join(f"{key} {number}" for key, number in frames.items()))
    return "\n".join([*lines, f"engine {report['engine'] or 'unknown'}"])


def _text(value: float | None, width: int = 0, digits: int = 1) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def main(args: list[str] | None = None) -> int:
    """Entry point of ``ros2 run heatnet_ros monitor``; runs until SIGINT or SIGTERM."""
    # rclpy's own handlers would end the context before the last poses are scored
    start_ros(
        "monitor",
        "scores published poses against the synthetic camera's truth",
        args,
        MonitorConfig,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        monitor = Monitor()
        receiver = threading.Thread(target=_receive, args=(monitor,), name="receiver")
        receiver.start()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                monitor.update()
                time.sleep(_PERIOD_S)
        rclpy.shutdown()
        receiver.join()
        report = monitor.update()
        if monitor.config.overlay_file:
            monitor.draw_overlay()
    except HeatnetError as error:
        rclpy.logging.get_logger("monitor").fatal(str(error))
        return 1
    finally:
        rclpy.try_shutdown()
    print(format_report(report), flush=True)
    return 0


def _receive(monitor: Monitor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(monitor)
