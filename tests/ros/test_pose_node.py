"""The node with good input: what it publishes, when, and how it starts and stops."""

import threading
import time

import cv2
import numpy as np
import pytest
from bench import FRAME, TRUTH, build_loader
from rclpy.context import Context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from heatnet_ros.ros.frames import ImageSet
from heatnet_ros.ros.messages import array_to_image, ns_to_stamp, pose_to_matrix
from heatnet_ros.ros.node import PoseNode


def with_stamp(store, stamp_ns):
    return [item for item in store if item[1].header.stamp == ns_to_stamp(stamp_ns)]


def test_poses_come_with_stamp_frame_units_and_instances(bench):
    bench.start()
    bench.stream_until_poses()
    stamp_ns = bench.publish()
    bench.wait_for(lambda: len(with_stamp(bench.covariances, stamp_ns)) == 3, "three poses")
    poses = with_stamp(bench.poses, stamp_ns)
    assert [name for name, _ in poses].count("wedge") == 2
    for name, message in poses:
        assert message.header.frame_id == FRAME
        errors = [np.abs(pose_to_matrix(message.pose) - T).max() for n, T in TRUTH if n == name]
        assert min(errors) < 1e-3
    for _, message in with_stamp(bench.covariances, stamp_ns):
        covariance = np.reshape(message.pose.covariance, (6, 6))
        np.testing.assert_allclose(covariance, covariance.T)
        assert np.all(np.diag(covariance) > 0) and covariance[0, 0] < 0.01


def test_the_order_of_messages_is_the_order_of_instances(bench):
    bench.start()
    stamps = iter(range(time.time_ns(), 2**63, 50_000_000))  # however slow this machine is
    bench.stream_until_poses(stamps=stamps)
    orders = []
    for _ in range(3):
        stamp_ns = bench.publish(next(stamps))
        bench.wait_for(lambda s=stamp_ns: len(with_stamp(bench.poses, s)) == 3, "three poses")
        seen = [m for name, m in with_stamp(bench.poses, stamp_ns) if name == "wedge"]
        orders.append([round(m.pose.position.x, 2) for m in seen])
        bench.world.truth = [TRUTH[1], TRUTH[0], TRUTH[2]]  # the detector's order turns round
    assert sorted(orders[0]) == [-0.15, 0.15] and orders[1] == orders[0] and orders[2] == orders[0]


def test_markers_of_vanished_objects_are_deleted(bench):
    bench.start()
    bench.stream(lambda: bench.markers and bench.poses, "markers")
    shown = {(m.ns, m.id) for m in bench.markers[-1].markers if m.action == m.ADD}
    assert {("wedge/axes", 0), ("wedge/axes", 1), ("brick/label", 0)} <= shown
    assert all(m.lifetime.sec == 1 for m in bench.markers[-1].markers)
    bench.world.truth = bench.world.truth[:1]
    del bench.markers[:]
    deleted = set()

    def all_gone():
        for array in bench.markers:
            deleted.update((m.ns, m.id) for m in array.markers if m.action == m.DELETE)
        return len(deleted) == 6

    bench.stream(all_gone, "six markers are deleted")
    assert deleted == {m for m in shown if m[0].startswith("brick") or m[1] == 1}
    del bench.markers[:]
    bench.change_state("deactivate")

    def last_is_delete_all():  # the frame in work may still come before it
        return bench.markers and [m.action for m in bench.markers[-1].markers] == [3]

    bench.wait_for(last_is_delete_all, "DELETEALL as the last markers")


def test_lifecycle_leaves_no_thread_and_comes_back(bench):
    bench.start(autostart=False, wait=False)
    assert bench.state() == "unconfigured"
    for _ in range(2):
        assert bench.change_state("configure") and bench.state() == "inactive"
        assert bench.change_state("activate") and bench.state() == "active"
        assert [t for t in threading.enumerate() if t.name == "pose_worker"]
        bench.stream_until_poses()
        assert bench.change_state("deactivate") and bench.state() == "inactive"
        assert not [t for t in threading.enumerate() if t.name == "pose_worker"]
        del bench.poses[:]
        bench.stream_for(0.2)
        assert not bench.poses
        assert bench.change_state("cleanup") and bench.state() == "unconfigured"
    bench.change_state("configure")
    bench.change_state("activate")
    assert bench.change_state("shutdown") and bench.state() == "finalized"
    assert not [t for t in threading.enumerate() if t.name == "pose_worker"]


def test_log_says_what_really_runs(bench):
    bench.start()
    bench.wait_for(lambda: any("Configured in" in log.msg for log in bench.logs), "the log")
    message = next(log.msg for log in bench.logs if "Configured in" in log.msg)
    assert "detector: fake CPU fp32" in message and "depth/image_raw" in message


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_colour(bench, extension):
    bench.start(color_transport="compressed")
    data = cv2.imencode(extension, bench.rgb[..., ::-1])[1].tobytes()
    bench.stream_until_poses(color=None, compressed=CompressedImage(format="jpeg", data=data))
    assert bench.poses[0][1].header.frame_id == FRAME


def test_rgb_model_runs_without_depth_topic(bench):
    bench.start(build_loader(bench.world, rgbd=False))
    bench.stream_until_poses(depth=None)
    assert bench.poses[0][1].header.frame_id == FRAME and not bench.errors()


def test_rgb_model_uses_depth_when_asked(bench):
    bench.start(build_loader(bench.world, rgbd=False), use_depth=True)
    bench.stream_until_poses()
    del bench.poses[:]
    bench.stream_for(0.3, depth=None)
    # what was on its way when depth stopped
    bench.wait_for(lambda: int(bench.values().get("processed", 0)) > 0, "diagnostics")
    del bench.poses[:]
    bench.stream_for(0.3, depth=None)
    assert not bench.poses


def test_float_depth_gives_the_same_poses(bench):
    bench.start()
    positions = []
    for depth in ((bench.depth_m * 1000).round().astype("uint16"), bench.depth_m):
        encoding = "16UC1" if depth.dtype == "uint16" else "32FC1"
        bench.stream_for(0.4, depth=array_to_image(depth, encoding))
        bench.stream_until_poses(depth=array_to_image(depth, encoding))
        bench.wait_for(lambda: any(name == "brick" for name, _ in bench.poses), "the brick")
        message = next(message for name, message in reversed(bench.poses) if name == "brick")
        position = message.pose.position
        positions.append([position.x, position.y, position.z])
    # metres and millimetres: a factor of 1000 if one were taken for the other
    assert positions[0] == pytest.approx(positions[1], abs=0.002)


def test_overload_drops_frames_and_keeps_latency_bounded(bench):
    """A camera three times faster than the worker: the newest frame wins."""
    bench.start(build_loader(bench.world, delay_s=0.09))
    bench.stream_until_poses()
    del bench.latencies_s[:]
    bench.stream_for(4.0, rate_hz=30)
    early_s, _, late_s = (np.median(part) for part in np.array_split(bench.latencies_s, 3))
    # with a queue it would grow by 0.67 s a second
    assert late_s < early_s + 0.5, (early_s, late_s)
    bench.stream(lambda: int(bench.values().get("dropped", 0)) > 40, "drops are counted")
    values = bench.values()
    received, processed = int(values["received"]), int(values["processed"])
    lost = sum(int(values[name]) for name in ("dropped", "sync_losses", "no_camera_info"))
    in_work = received - processed - lost
    assert processed > 10 and in_work in (0, 1, 2), "every frame is accounted for"
    assert 90 < float(values["latency_receive_p50_ms"]) <= float(values["latency_stamp_p50_ms"])


def test_diagnostics_tell_rate_engines_and_instances(bench):
    bench.start()
    bench.stream(lambda: float(bench.values().get("rate_hz", 0)) > 5, "a rate")
    values = bench.values()
    assert values["engine.estimator"] == "fake CPU fp32" and values["state"] == "active"
    assert values["instances.wedge"] == "0, 1" and values["sync_losses"] == "0"
    assert bench.diagnostics["pipeline"].level == b"\0"
    assert float(values["rss_mb"]) > 10


def test_simulated_time_is_respected(bench):
    """Latency is measured on the clock that stamps the images; stamps far from today work."""
    clock = bench.create_publisher(Clock, "/clock")
    bench.start(use_sim_time=True)
    now = iter(range(100 * 10**9, 10**12, 20_000_000))

    def stamps():
        for stamp_ns in now:
            clock.publish(Clock(clock=ns_to_stamp(stamp_ns)))
            yield stamp_ns

    bench.stream(
        lambda: bench.poses and "latency_stamp_p50_ms" in bench.values()
        and bench.values()["latency_stamp_p50_ms"] != "none",
        "a latency", stamps=stamps(),
    )  # fmt: skip
    assert 99 < bench.poses[0][1].header.stamp.sec < 1000
    assert 0 <= float(bench.values()["latency_stamp_p50_ms"]) < 1000


def test_ctrl_c_while_a_frame_is_in_work_is_no_fault(bench):
    """ROS ends between two of the frame's messages: no traceback, as of a frame that failed."""
    context = Context()
    context.init()
    node = PoseNode(build_loader(bench.world), namespace=f"{bench.namespace}/own", context=context)
    node.trigger_configure()
    node.trigger_activate()
    publishers = node._configured.publishers
    publish = publishers._markers.publish

    def publish_and_end(message):
        publish(message)
        context.shutdown()
        publish(message)

    publishers._markers.publish = publish_and_end
    node._active.worker.handle(ImageSet(**bench.messages(time.time_ns()), received_s=0.0))
    counted, said = node._statistics.values(), node._problems.present
    node.destroy_node()
    context.try_shutdown()
    assert not said and counted["failed"] == "0" and counted["processed"] == "1"
