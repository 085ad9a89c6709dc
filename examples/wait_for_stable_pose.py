"""Wait until an object lies still and is seen well, as a picking pipeline does before it grasps.

    python3 wait_for_stable_pose.py mug [--node /pose_node] [--timeout 10] [--ros-args ...]

Stable: in each of the last --count images that had a pose of it, none older than --max-age seconds,
there is a pose within 2 mm and 2 degrees of the newest, whose own covariance allows no more at two
sigma. Of several instances the first that is stable is taken. How sure the node must be of a pose
is its parameter gate.min_score, for all who listen. Prints the pose; ends with 1 after --timeout
seconds. In simulated time add --ros-args -p use_sim_time:=true.
"""

import argparse
import sys
import time
from collections import deque

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.utilities import remove_ros_args

NEAR = np.array([0.002, np.radians(2)])  # metres, radians


def differ(a, b):
    """Distance in metres and angle in radians of two poses."""
    a, b = ((m.pose.pose.position, m.pose.pose.orientation) for m in (a, b))
    (p_a, q_a), (p_b, q_b) = (
        (np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])) for p, q in (a, b)
    )
    return np.array([np.linalg.norm(p_a - p_b), 2 * np.arccos(min(abs(q_a @ q_b), 1.0))])


def two_sigma(message):
    """The largest in any direction, in metres and radians."""
    covariance = np.array(message.pose.covariance).reshape(6, 6)
    blocks = covariance[:3, :3], covariance[3:, 3:]
    return 2 * np.sqrt([np.linalg.eigvalsh(block)[-1] for block in blocks])


def find_stable(images):
    """The pose of the newest image that all images repeat, or None. images: poses of each."""
    for pose in images[-1]:
        near = [any((differ(pose, other) < NEAR).all() for other in image) for image in images]
        if all(near) and (two_sigma(pose) < NEAR).all():
            return pose
    return None


def wait_for(node, topic, count, max_age_s, timeout_s):
    """The first stable pose on ``topic``, or None after ``timeout_s``."""
    images = deque(maxlen=count)

    def keep(message):  # one message per instance, those of an image in a row
        if not images or images[-1][0].header.stamp != message.header.stamp:
            images.append([])
        images[-1].append(message)

    node.create_subscription(PoseWithCovarianceStamped, topic, keep, 50)
    end = time.monotonic() + timeout_s
    while rclpy.ok() and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
        oldest = rclpy.time.Time.from_msg(images[0][0].header.stamp) if images else None
        fresh = oldest and (node.get_clock().now() - oldest).nanoseconds < max_age_s * 1e9
        if len(images) == count and fresh and (pose := find_stable(images)):
            return pose
    return None


def main():
    """Wait, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("object", help="as its topics are called: ~/TOPIC/OBJECT")
    parser.add_argument("--node", default="/pose_node")
    parser.add_argument(
        "--topic", default="pose_with_covariance", help="or pose_filtered, where it is published"
    )
    parser.add_argument("--count", type=int, default=5, help="images in a row (5)")
    parser.add_argument("--max-age", type=float, default=1.0, help="of the first of them (1.0 s)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds (10)")
    args = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()  # takes what follows --ros-args
    node = rclpy.create_node("wait_for_stable_pose")
    topic = f"{args.node}/{args.topic}/{args.object}"
    pose = wait_for(node, topic, args.count, args.max_age, args.timeout)
    if pose is None:
        sys.exit(f"No stable pose on {topic} in {args.timeout:g} s.")
    p, q, sigma = pose.pose.pose.position, pose.pose.pose.orientation, two_sigma(pose)
    print(f"{args.object} in {pose.header.frame_id}")
    print(f"position    {p.x:.4f} {p.y:.4f} {p.z:.4f} m, within {1e3 * sigma[0]:.1f} mm")
    print(f"orientation {q.x:.4f} {q.y:.4f} {q.z:.4f} {q.w:.4f}, {np.degrees(sigma[1]):.1f} deg")


if __name__ == "__main__":
    main()
