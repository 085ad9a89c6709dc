"""One result of the pipeline through all publishers: who gets raw poses, who filtered ones."""

import time

import numpy as np
import pytest
import rclpy
from bench import Spinner
from fakes import LIBRARY, World, pose
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode

from heatnet_ros.ros.detections import import_vision_msgs
from heatnet_ros.ros.messages import pose_to_matrix, stamp_to_ns
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.publishers import ResultPublishers
from heatnet_ros.types import PipelineResult, PoseEstimate

SPACE = "/published"
RAW, FILTERED = pose(0.1, 0.2, 0.9, (1.0, 0.4, -0.2)), pose(0.11, 0.21, 0.91, (1.1, 0.4, -0.2))
# no two elements alike: exchanged blocks, rows or columns show
COVARIANCE = np.arange(36.0).reshape(6, 6)
STAMP_NS = 1_700_000_000_123_456_789


def estimate(T, covariance):
    return PoseEstimate("wedge", T, 0.9, 1.0, 0.5, "test", 3, covariance=covariance)


@pytest.fixture
def stage(ros, extra_messages):
    """Publishers of an active node and what a listener gets of them: topic -> messages."""
    from tf2_msgs.msg import TFMessage

    node = LifecycleNode("outputs", namespace=SPACE)
    node.trigger_configure()
    publishers = ResultPublishers(node, LIBRARY, print)
    node.trigger_activate()
    heard = {}
    listener = rclpy.create_node("listener", namespace=SPACE)
    for topic, kind in {
        "outputs/pose/wedge": PoseStamped,
        "outputs/pose_with_covariance/wedge": PoseWithCovarianceStamped,
        "outputs/pose_filtered/wedge": PoseWithCovarianceStamped,
        "outputs/detections": import_vision_msgs().Detection3DArray,
        "/tf": TFMessage,
    }.items():
        heard[topic.removeprefix("outputs/")] = got = []
        listener.create_subscription(kind, topic, got.append, 10)
    spinner = Spinner(listener)
    yield publishers, heard, listener
    spinner.stop()
    node.destroy_node()


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_topic_has_its_pose_its_covariance_and_the_image_s_header(stage):
    publishers, heard, _ = stage
    raw, filtered = estimate(RAW, COVARIANCE), estimate(FILTERED, 2 * COVARIANCE)
    frame = World(("wedge", RAW)).frame(STAMP_NS)
    result = PipelineResult((raw,), (), (), {}, {}, filtered=(filtered,))

    def all_heard():  # discovery takes its time: until then it is published anew
        publishers.publish(result, frame, NodeConfig(publish_tf=True))
        time.sleep(0.05)
        return all(heard.values())

    wait_for(all_heard)
    pose_only, full = heard["pose/wedge"][-1], heard["pose_with_covariance/wedge"][-1]
    steady, detections = heard["pose_filtered/wedge"][-1], heard["detections"][-1]
    (moved,) = [t for t in heard["/tf"][-1].transforms if t.child_frame_id == "published/wedge_3"]
    for message in (pose_only, full, steady, detections, moved):
        assert stamp_to_ns(message.header.stamp) == STAMP_NS
        assert message.header.frame_id == frame.frame_id
    (result_of_detection,) = detections.detections[0].results
    for message, T, covariance in (
        (full.pose, RAW, COVARIANCE),
        (steady.pose, FILTERED, 2 * COVARIANCE),
        (result_of_detection.pose, RAW, COVARIANCE),
    ):
        np.testing.assert_allclose(pose_to_matrix(message.pose), T, atol=1e-12)
        np.testing.assert_array_equal(np.reshape(message.covariance, (6, 6)), covariance)
    np.testing.assert_allclose(pose_to_matrix(pose_only.pose), RAW, atol=1e-12)
    move = moved.transform.translation
    np.testing.assert_allclose([move.x, move.y, move.z], FILTERED[:3, 3], atol=1e-12)
    # without a filter TF has the raw poses
    unfiltered = PipelineResult((raw,), (), (), {}, {})
    publishers.publish(unfiltered, frame, NodeConfig(publish_tf=True))
    wait_for(lambda: heard["/tf"][-1].transforms[0].transform.translation.x == RAW[0, 3])


def test_no_topic_stays_in_the_graph(stage):
    publishers, _, listener = stage
    raw = estimate(RAW, COVARIANCE)
    frame = World(("wedge", RAW)).frame(STAMP_NS)
    publishers.publish(PipelineResult((raw,), (), (), {}, {}), frame, NodeConfig(publish_tf=True))

    def published():
        names = listener.get_publisher_names_and_types_by_node("outputs", SPACE)
        own = f"{SPACE}/outputs/transition_event"  # the lifecycle's, which stays
        ours = (name for name, _ in names if name.startswith(f"{SPACE}/outputs/") or name == "/tf")
        return set(ours) - {own}

    wait_for(lambda: "/tf" in published() and f"{SPACE}/outputs/overlay" in published())
    assert len(published()) == 3 * len(LIBRARY.objects) + 4  # markers, detections, overlay, /tf
    publishers.destroy()
    wait_for(lambda: not published())
