"""What the node says besides raw poses: filtered poses, overlay, TF, detections, services."""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from bench import FRAME
from fakes import LIBRARY, SIZE_HW
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from heatnet_ros.ros.messages import ns_to_stamp, stamp_to_ns
from heatnet_ros.ros.services import create_services


def listen(bench, kind, topic):
    """What comes on a topic of the node, from now on."""
    got = []
    bench._own.node.create_subscription(kind, topic, got.append, QoSProfile(depth=200))
    return got


def listen_filtered(bench):
    got = {}
    for name in LIBRARY.objects:
        got[name] = listen(bench, PoseWithCovarianceStamped, f"pose_node/pose_filtered/{name}")
    return got


def names(bench):
    return {name for name, _ in bench.poses}


def test_filtered_poses_stand_beside_the_raw_ones_and_are_steadier(bench):
    filtered = listen_filtered(bench)
    bench.world.noise_px = 1.0
    bench.start()
    bench.stream(lambda: len(filtered["brick"]) > 90, "filtered poses", timeout_s=40)
    raw = {stamp_to_ns(m.header.stamp): m for name, m in list(bench.poses) if name == "brick"}
    pairs = [
        (raw[stamp], m)
        for m in list(filtered["brick"])[20:]
        if (stamp := stamp_to_ns(m.header.stamp)) in raw
    ]
    assert len(pairs) > 50
    spread = np.std(
        [[[p.x, p.y, p.z] for p in (r.pose.position, f.pose.pose.position)] for r, f in pairs],
        axis=0,
    )
    assert np.linalg.norm(spread[1]) < 0.5 * np.linalg.norm(spread[0])
    message = pairs[-1][1]
    assert message.header.frame_id == FRAME
    assert np.linalg.eigvalsh(np.reshape(message.pose.covariance, (6, 6))).min() > 0
    assert bench.set_parameter("filter.enabled", False).successful
    bench.stream_for(0.3)
    del filtered["brick"][:]
    bench.stream_until_poses()
    bench.stream_for(0.3)
    assert not filtered["brick"]


def test_only_the_objects_asked_for_are_looked_for(bench):
    bench.start()
    bench.stream(lambda: names(bench) == {"wedge", "brick"}, "both objects")
    assert bench.set_parameter("objects", ["brick"]).successful
    bench.stream_for(0.3)
    del bench.poses[:]
    bench.stream_for(0.5)
    assert names(bench) == {"brick"}
    assert bench.set_parameter("objects", ["wedge"]).successful
    bench.stream_for(0.3)
    del bench.poses[:]
    bench.stream_for(0.5)
    assert names(bench) == {"wedge"}
    result = bench.set_parameter("objects", ["bric"])
    assert not result.successful and "Did you mean 'brick'?" in result.reason
    assert not bench.set_parameter("objects", "brick").successful
    assert bench.set_parameter("objects", []).successful
    bench.stream(lambda: names(bench) == {"wedge", "brick"}, "both objects again")


def test_an_unknown_object_in_the_parameter_file_is_named(bench):
    bench.start(wait=False, objects=["wegde"])
    bench.wait_for(lambda: bench.errors("Did you mean 'wedge'?"), "a message")
    assert bench.state() == "unconfigured"
    assert bench.set_parameter("objects", ["wedge"]).successful
    assert bench.change_state("configure") and bench.change_state("activate")
    bench.stream_until_poses()
    bench.stream_for(0.3)
    assert names(bench) == {"wedge"}


def first_wedge_x(bench, what):
    """x of the wedge with the smallest id, in a frame that shows both."""
    del bench.poses[:]
    found = {}

    def both():
        for name, message in list(bench.poses):
            if name == "wedge":
                found.setdefault(stamp_to_ns(message.header.stamp), []).append(message)
        pairs = [p for p in found.values() if len(p) >= 2]
        found.clear()
        return pairs

    bench.stream(both, what)
    return both()[-1][0].pose.position.x


def test_reset_starts_ids_anew(bench):
    bench.start(**{"follow.enabled": False})  # the detector's order is that of the world
    before = first_wedge_x(bench, "two wedges")
    bench.world.truth = [bench.world.truth[1], bench.world.truth[0], bench.world.truth[2]]
    bench.stream_for(0.2)
    assert first_wedge_x(bench, "the same ids") == pytest.approx(before, abs=2e-3)
    answer = bench.call(Trigger, "reset", Trigger.Request())
    assert answer.success and "next frame" in answer.message
    bench.stream_for(0.2)
    assert first_wedge_x(bench, "new ids") == pytest.approx(-before, abs=2e-3)
    assert bench.change_state("deactivate")
    assert "Not active" in bench.call(Trigger, "reset", Trigger.Request()).message


def test_without_std_srvs_activation_resets_and_the_log_says_so(bench, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "std_srvs.srv", None)
        said = []
        create_services(
            SimpleNamespace(get_logger=lambda: SimpleNamespace(info=said.append)), lambda: ""
        )
        assert "Deactivate and activate (ros2 lifecycle set) instead of ~/reset" in said[0]
        bench.start(**{"follow.enabled": False})
    before = first_wedge_x(bench, "two wedges")
    bench.world.truth = [bench.world.truth[1], bench.world.truth[0], bench.world.truth[2]]
    assert bench.change_state("deactivate") and bench.change_state("activate")
    assert first_wedge_x(bench, "new ids") == pytest.approx(-before, abs=2e-3)


def test_track_is_the_follow_parameter(bench):
    node = bench.start()
    pipeline = node._configured.pipeline
    for data in (False, True):
        answer = bench.call(SetBool, "track", SetBool.Request(data=data))
        assert answer.success, answer.message
        assert node.get_parameter("follow.enabled").value is data
        bench.stream(
            lambda wanted=data: pipeline.config.follow.enabled is wanted,
            "the worker takes the option with its next frame",
        )
        bench.stream_until_poses()


def overlay_threads():
    return [t for t in threading.enumerate() if t.name == "pose_overlay"]


def test_the_overlay_is_drawn_only_while_somebody_looks(bench):
    bench.start()
    bench.stream_until_poses()
    bench.stream_for(0.3)
    assert not overlay_threads()
    images = listen(bench, Image, "pose_node/overlay")
    bench.stream(lambda: len(images) > 3, "an overlay")
    image = images[-1]
    assert (image.height, image.width, image.encoding) == (*SIZE_HW, "rgb8")
    assert image.header.frame_id == FRAME
    stamps = {stamp_to_ns(m.header.stamp) for _, m in list(bench.poses)}
    assert stamp_to_ns(image.header.stamp) in stamps
    drawn = np.frombuffer(image.data, np.uint8).reshape(*SIZE_HW, 3)
    share = np.any(drawn != bench.rgb, axis=2).mean()
    assert 0.01 < share < 0.7  # something is drawn, and it is the camera's image
    assert bench.change_state("deactivate") and bench.change_state("cleanup")
    assert not overlay_threads()


def test_drawing_does_not_hold_up_the_poses(bench, monkeypatch):
    """A drawing that takes half a second: the poses come as fast as without it."""
    monkeypatch.setattr(
        "heatnet_ros.ros.overlay_drawer.draw_poses",
        lambda rgb, *_, **__: time.sleep(0.5) or rgb,
    )
    bench.start()
    images = listen(bench, Image, "pose_node/overlay")
    bench.stream(lambda: images, "an overlay")
    del bench.latencies_s[:]
    bench.stream_for(1.0)
    assert len(bench.latencies_s) > 10 and np.median(bench.latencies_s) < 0.25


def test_tf_without_tf2_msgs_is_refused_with_the_remedy(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    bench.start()
    result = bench.set_parameter("publish_tf", True)
    assert not result.successful and "Install ros-$ROS_DISTRO-tf2-msgs" in result.reason
    bench.stream_until_poses()


def test_tf_comes_when_asked(bench, extra_messages):
    from tf2_msgs.msg import TFMessage

    bench.start()
    got = listen(bench, TFMessage, "/tf")
    bench.stream_until_poses()
    bench.stream_for(0.3)
    assert not got
    assert bench.set_parameter("publish_tf", True).successful
    bench.stream(lambda: got, "transforms")
    expected = {f"{bench.namespace[1:]}/{name}" for name in ("wedge_0", "wedge_1", "brick_0")}
    assert {t.child_frame_id for t in got[-1].transforms} == expected
    assert {t.header.frame_id for t in got[-1].transforms} == {FRAME}


def test_detections_have_stable_ids_and_are_empty_when_nothing_is_seen(bench, extra_messages):
    from vision_msgs.msg import Detection3DArray

    bench.start()
    got = listen(bench, Detection3DArray, "pose_node/detections")
    bench.stream(lambda: got and len(got[-1].detections) == 3, "detections")
    assert {d.id for d in got[-1].detections} == {"wedge_0", "wedge_1", "brick_0"}
    bench.world.hidden = {0, 1, 2}
    bench.stream(lambda: got and not got[-1].detections, "an empty array")
    assert got[-1].header.frame_id == FRAME and got[-1].header.stamp != ns_to_stamp(0)
