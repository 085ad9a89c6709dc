"""Wait until an object lies still and is seen well, then print its pose; else say what is amiss.

    python3 wait_for_stable_pose.py mug [--ros-args -p node:=/left/pose_node -p timeout_s:=30]

In simulated time add -p use_sim_time:=true. The node and this need ros-$ROS_DISTRO-vision-msgs.
"""

import sys
from collections import deque

import rclpy
from rcl_interfaces.msg import ParameterDescriptor

from heatnet_ros.metrics import pose_errors
from heatnet_ros.ros.messages import pose_to_matrix, stamp_to_ns, to_sigma_mm_deg

try:
    from vision_msgs.msg import Detection3DArray
except ImportError:
    sys.exit("vision_msgs is missing: apt install ros-$ROS_DISTRO-vision-msgs, for node and this.")
COUNT, MAX_AGE_S, MIN_SCORE, MAX_MOVED = 5, 1.0, 0.5, 2.0  # the last of both: mm and degrees
MAX_SIGMA_MM, MAX_SIGMA_DEG = 1.5, 2.5


def find_faults(seen):
    """What forbids to grasp one instance at the newest of its detections; empty: nothing."""
    newest, T = seen[-1].results[0], [pose_to_matrix(d.results[0].pose.pose) for d in seen]
    moved = max(max(pose_errors(T[-1], other)) for other in T)
    sigmas = to_sigma_mm_deg(newest.pose.covariance)  # 0: unknown
    age_s = (node.get_clock().now().nanoseconds - stamp_to_ns(seen[0].header.stamp)) / 1e9
    checks = {
        f"seen in {len(seen)} of {COUNT} images": len(seen) == COUNT,
        f"the first of them {age_s:.2f} s old": abs(age_s) < MAX_AGE_S,
        f"score {newest.hypothesis.score:.2f}": newest.hypothesis.score >= MIN_SCORE,
        "sigma {:.1f} mm, {:.1f} deg".format(*sigmas): 0 < sigmas[0] < MAX_SIGMA_MM
        and 0 < sigmas[1] < MAX_SIGMA_DEG,
        f"moved by {moved:.1f} mm or deg": moved < MAX_MOVED,
    }
    return [text for text, good in checks.items() if not good]


def judge(message):
    """Look at all instances of one image."""
    faults[topic] = [f"the last image shows {[found.id for found in message.detections]}"]
    for found in message.detections:
        if found.results[0].hypothesis.class_id == sys.argv[1] and not stable.done():
            seen.setdefault(found.id, deque(maxlen=COUNT)).append(found)
            faults[found.id] = find_faults(seen[found.id])
            if not faults[found.id]:
                stable.set_result(found)


if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
rclpy.init()
node, stable, seen = rclpy.create_node("wait_for_stable_pose"), rclpy.Future(), {}
topic = node.declare_parameter("node", "/pose_node").value + "/detections"
faults = {topic: ["no message came; python -m heatnet_ros doctor says why"]}
node.create_subscription(Detection3DArray, topic, judge, 10)
any_number = ParameterDescriptor(dynamic_typing=True)  # ROS takes no 10 for 10.0 otherwise
timeout_s = node.declare_parameter("timeout_s", 10.0, any_number).value
if not isinstance(timeout_s, int | float):
    sys.exit(f"timeout_s: expected seconds, got {timeout_s!r}")
rclpy.spin_until_future_complete(node, stable, timeout_sec=timeout_s)
if not stable.done():
    sys.exit(f"No stable {sys.argv[1]} in {timeout_s:g} s: {faults}")
found = stable.result()
print(found.id, "in", found.header.frame_id, found.results[0].pose.pose)
