"""Poses as detections and transforms."""

import sys
import time

import numpy as np
import pytest
import rclpy
from fakes import LIBRARY, pose
from std_msgs.msg import Header

from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry.se3 import rotation_from_quaternion, transform
from heatnet_ros.ros.detections import build_detections, import_vision_msgs
from heatnet_ros.ros.messages import pose_to_matrix
from heatnet_ros.ros.transforms import TransformPublisher, build_transform, check_tf_installed
from heatnet_ros.types import PoseEstimate

HEADER = Header(frame_id="camera")
COVARIANCE = np.arange(36.0).reshape(6, 6)


@pytest.fixture
def msg(extra_messages):
    return import_vision_msgs()


def estimate(name, instance, T, covariance=COVARIANCE):
    return PoseEstimate(name, T, 0.9, 1.0, 0.5, "test", instance, covariance=covariance)


def test_a_detection_has_id_class_score_covariance_and_box(msg):
    T = pose(0.1, 0.2, 0.9, (1.0, 0.4, -0.2))
    array = build_detections([estimate("wedge", 3, T)], HEADER, LIBRARY, msg)
    (found,) = array.detections
    assert array.header == found.header == HEADER and found.id == "wedge_3"
    (result,) = found.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("wedge", 0.9)
    np.testing.assert_allclose(pose_to_matrix(result.pose.pose), T, atol=1e-12)
    np.testing.assert_array_equal(np.reshape(result.pose.covariance, (6, 6)), COVARIANCE)
    # the box's corners are those of the object's bounds
    size, bounds = found.bbox.size, LIBRARY["wedge"].bounds_m
    for sign in (-1, 1):
        corner = sign * np.array([size.x, size.y, size.z]) / 2
        np.testing.assert_allclose(
            transform(pose_to_matrix(found.bbox.center), corner),
            transform(T, bounds[(sign + 1) // 2]),
            atol=1e-12,
        )


def test_nothing_seen_is_an_empty_array(msg):
    array = build_detections([], HEADER, LIBRARY, msg)
    assert array.header == HEADER and not list(array.detections)


def test_an_unknown_covariance_is_zero_not_invented(msg):
    array = build_detections(
        [estimate("wedge", 0, pose(0, 0, 1.0), covariance=None)], HEADER, LIBRARY, msg
    )
    assert not np.any(array.detections[0].results[0].pose.covariance)


def test_a_transform_is_a_child_of_the_image_frame_named_after_object_and_instance():
    T = pose(0.1, 0.2, 0.9, (1.0, 0.4, -0.2))
    found = build_transform(estimate("wedge", 2, T), HEADER, "wedge")
    assert (found.header.frame_id, found.child_frame_id) == ("camera", "wedge_2")
    move, q = found.transform.translation, found.transform.rotation
    np.testing.assert_allclose([move.x, move.y, move.z], T[:3, 3])
    R = rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
    np.testing.assert_allclose(R, T[:3, :3], atol=1e-12)


def test_two_cameras_do_not_share_a_child_on_tf(ros, extra_messages):
    """tf2 keeps one parent of each frame."""
    from tf2_msgs.msg import TFMessage

    nodes = [rclpy.create_node("pose_node", namespace=n) for n in ("/", "/left", "/cell/right")]
    got, deadline_s = set(), time.monotonic() + 10
    nodes[0].create_subscription(
        TFMessage, "/tf", lambda m: got.update(t.child_frame_id for t in m.transforms), 100
    )
    publishers = [TransformPublisher(node, {"mug": "mug"}) for node in nodes]
    try:
        while len(got) < 3 and time.monotonic() < deadline_s:
            for publisher in publishers:
                publisher.publish([estimate("mug", 1, pose(0, 0, 1.0))], HEADER)
            rclpy.spin_once(nodes[0], timeout_sec=0.1)
    finally:
        for node in nodes:
            node.destroy_node()
    assert got == {"mug_1", "left/mug_1", "cell/right/mug_1"}


def test_without_tf2_msgs_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    with pytest.raises(ConfigError, match="tf2_msgs is not installed"):
        check_tf_installed()


def test_without_vision_msgs_there_are_no_detections(monkeypatch):
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", None)
    monkeypatch.delattr(sys.modules.get("vision_msgs", sys), "msg", raising=False)
    assert import_vision_msgs() is None
