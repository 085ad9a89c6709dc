"""The node ``record``: what a camera publishes goes into a bag as it arrives, not decoded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.errors import DataError
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.recordings import COLOR, DEPTH, DEPTH_INFO, INFO
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.status_line import StatusLine

_TOPICS = {
    COLOR: (Image, "", "sensor_msgs/msg/Image"),
    f"{COLOR}/compressed": (CompressedImage, "/compressed", "sensor_msgs/msg/CompressedImage"),
    INFO: (CameraInfo, "", "sensor_msgs/msg/CameraInfo"),
    DEPTH_INFO: (CameraInfo, "", "sensor_msgs/msg/CameraInfo"),
    DEPTH: (Image, "", "sensor_msgs/msg/Image"),
    f"{DEPTH}/compressedDepth": (
        CompressedImage, "/compressedDepth", "sensor_msgs/msg/CompressedImage",
    ),
}  # fmt: skip
_START_LIMIT_S = 20.0


def record_topics(bag: BagWriter, seconds: float, ros_args: list[str]) -> None:
    """Record for so long from the first colour image on. Raises DataError where none comes."""
    start_ros("record", "records a camera", ["--ros-args", *ros_args])
    came: set[str] = set()
    try:
        _record(rclpy.create_node("record"), bag, seconds, came)
    except (KeyboardInterrupt, ExternalShutdownException):  # what came so far is kept
        pass
    finally:
        rclpy.try_shutdown()
    if not {INFO, COLOR} <= {name.removesuffix("/compressed") for name in came}:
        raise DataError(
            f"{', '.join(bag.counts) or 'Nothing'} arrived, and so nothing is written: a "
            "recording needs colour images and their CameraInfo. Remap color/image_raw, "
            "color/camera_info and depth/image_raw to the camera's topics (--ros-args -r FROM:=TO)."
        )


def _record(node: Node, bag: BagWriter, seconds: float, came: set[str]) -> None:
    """``came``: gets the keys of ``_TOPICS`` that had messages."""
    # best effort matches every publisher
    qos = QoSProfile(depth=20, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    first_s: list[float] = []

    def store(name: str, topic: str, kind: str) -> Callable[[bytes], None]:
        def callback(data: bytes) -> None:
            if not first_s:
                first_s.append(time.monotonic())
            came.add(name)
            bag.write(topic, kind, time.time_ns(), data)

        return callback

    resolved = (node.resolve_topic_name(name) for name in (COLOR, INFO, DEPTH))
    depth_info = Topics(*resolved).depth_info
    for name, (cls, ending, kind) in _TOPICS.items():
        # as image_transport names them: below the remapped base topic
        topic = node.resolve_topic_name(name.removesuffix(ending)) + ending
        if name == DEPTH_INFO and depth_info is not None:
            topic = depth_info  # beside the images, wherever these are
            if topic == node.resolve_topic_name(INFO):
                continue  # one for both
        node.create_subscription(cls, topic, store(name, topic, kind), qos, raw=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    begun_s = time.monotonic()
    with StatusLine(sys.stderr) as status:
        while node.context.ok():
            executor.spin_once(timeout_sec=0.1)
            now_s = time.monotonic()
            passed_s = now_s - first_s[0] if first_s else 0.0
            if passed_s > seconds or (not first_s and now_s - begun_s > _START_LIMIT_S):
                break
            status.show_bar(passed_s / seconds, f"{sum(bag.counts.values())} messages")
