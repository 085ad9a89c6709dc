"""Who looks at what the node publishes in ``chaos.py``: a process that can hang and be killed.

    python tests/bench/chaos_watcher.py stay|churn SEED

stay: subscribes and stays. churn: subscribes and goes many times a second. A line of standard
output is the type of a message that came. A process of its own also since Fast DDS 2.14 may read
for ever in a process whose readers come and go so fast (as in eProsima/Fast-DDS issue 6500).
"""

from __future__ import annotations

import random
import sys
import threading
import time
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from heatnet_ros.ros.detections import import_vision_msgs
from heatnet_ros.ros.tool_nodes import use_large_frames_profile

_STAYS_S = (0.0, 0.02, 0.2, 0.6)


def list_topics() -> list[tuple[Any, str]]:
    """The outputs that cost something when they are watched, and the markers."""
    found = [(Image, "/pose_node/overlay"), (MarkerArray, "/pose_node/markers")]
    vision_msgs = import_vision_msgs()
    if vision_msgs is not None:
        found.append((vision_msgs.Detection3DArray, "/pose_node/detections"))
    return found


def churn(node: Node, rng: random.Random) -> None:
    """Subscribe to some topics, reliably or not, and go again."""
    policies = (QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT)
    everything = list_topics()
    while rclpy.ok():
        qos = QoSProfile(depth=rng.choice([1, 10]), reliability=rng.choice(policies))
        some = rng.sample(everything, rng.randint(1, len(everything)))
        subscriptions = [node.create_subscription(kind, name, _say, qos) for kind, name in some]
        time.sleep(rng.choice(_STAYS_S))
        for subscription in subscriptions:
            node.destroy_subscription(subscription)


def _say(message: Any) -> None:
    print(type(message).__name__, flush=True)


def main() -> None:
    use_large_frames_profile()
    rclpy.init(args=[])
    node = rclpy.create_node("chaos_watcher")
    if sys.argv[1] == "churn":
        rng = random.Random(int(sys.argv[2]))
        threading.Thread(target=churn, args=(node, rng), daemon=True).start()
    else:
        for kind, name in list_topics():
            node.create_subscription(kind, name, _say, 10)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
