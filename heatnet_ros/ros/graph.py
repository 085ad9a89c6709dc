"""Who publishes a topic, as the network tells."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

TYPE_NAMES = {
    Image: "sensor_msgs/msg/Image",
    CompressedImage: "sensor_msgs/msg/CompressedImage",
    CameraInfo: "sensor_msgs/msg/CameraInfo",
}


def list_publishers(node: Node, topic: str) -> list[tuple[str, str]]:
    """Full node name and type of each publisher of a topic."""
    infos = node.get_publishers_info_by_topic(topic)
    return [(full_name(info), info.topic_type) for info in infos]


def full_name(info: Any) -> str:
    """The node of a TopicEndpointInfo, with its namespace."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
