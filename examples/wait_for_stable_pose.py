"""Wait until an object lies still and is seen well, as a picking pipeline does before it grasps.

    python3 wait_for_stable_pose.py mug [--node /pose_node] [--timeout 10] [--min-score 0.5]

Stable: in each of the last --count images, none older than --max-age seconds, there is a pose
within 2 mm and 2 degrees of the newest, whose own covariance allows no more at two sigma. Of
several instances the first that is stable is taken. The node's gate.min_score is set to
--min-score: it publishes nothing below. Prints the pose; ends with 1 after --timeout seconds.
"""

import argparse
import sys
import time
from collections import deque

import numpy as np
import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient

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


def set_min_score(node, pose_node, score):
    """Ask for it; raises SystemExit with a line where no node answers, or it refuses."""
    client = AsyncParameterClient(node, pose_node)
    if not client.wait_for_services(5.0):
        sys.exit(f"No answer from {pose_node}. Is it running? `ros2 node list` shows the names.")
    future = client.set_parameters([Parameter("gate.min_score", value=score)])
    rclpy.spin_until_future_complete(node, future, timeout_sec=5.0)
    if not future.done() or not future.result().results[0].successful:
        sys.exit(f"{pose_node} refuses gate.min_score {score}: {future.result()}")


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
    parser.add_argument("--min-score", type=float, help="set gate.min_score (left as it is)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds (10)")
    args = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("wait_for_stable_pose")
    if args.min_score is not None:
        set_min_score(node, args.node, args.min_score)
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
