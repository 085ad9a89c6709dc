"""Bad input: one clear message, nothing published, and poses again when good data returns."""

import array
import os
import re
import subprocess
import sys
import time
from types import MappingProxyType

import cv2
import numpy as np
import pytest
from bench import FRAME
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from heatnet_ros.ros.messages import array_to_image, ns_to_stamp, stamp_to_ns


def damage(**attributes):
    """A change that sets attributes of the message; functions get the message."""

    def change(message):
        for name, value in attributes.items():
            setattr(message, name, value(message) if callable(value) else value)
        return message

    return change


def filled(value):
    return lambda message: array_to_image(np.full((480, 640), value, np.float32), "32FC1")


def other_frame(message):
    message.header = type(message.header)(stamp=message.header.stamp, frame_id="depth_frame")
    return message


def resized(message):
    small = array_to_image(np.full((240, 320), 800, np.uint16), "16UC1")
    small.header = message.header
    return small


CASES = {
    "zero CameraInfo": (
        {"info": damage(k=[0.0] * 9)},
        r"color/camera_info: K has focal lengths 0, 0, expected > 0.*Calibrate it",
    ),
    "CameraInfo of another size": (
        {"info": damage(width=1280, height=720)},
        r"camera_info: describes a 1280x720 image, .*color/image_raw is 640x480. Publish",
    ),
    "CameraInfo of another frame": (
        {"info": other_frame},
        r"camera_info: frame_id is 'depth_frame', .*color/image_raw has 'camera_color_optical_f",
    ),
    "unknown distortion": (
        {"info": damage(distortion_model="magic", d=[0.1])},
        r"camera_info: Distortion model 'magic' is not supported; expected one of",
    ),
    "depth of another size": (
        {"depth": resized},
        r"depth/image_raw: depth is 320x240, .*color/image_raw is 640x480; expected .*RealSense",
    ),
    "depth of another frame": (
        {"depth": other_frame},
        r"depth/image_raw: frame_id is 'depth_frame'.*expected the same.*aligned",
    ),
    "depth of another encoding": (
        {"depth": damage(encoding="rgb8")},
        r"depth/image_raw: encoding 'rgb8' .*32FC1",
    ),
    "depth all NaN": ({"depth": filled(np.nan)}, r"depth/image_raw: depth has no valid pixel"),
    "depth all zero": ({"depth": filled(0.0)}, r"depth/image_raw: depth has no valid pixel"),
    "float depth in mm": ({"depth": filled(900.0)}, r"depth/image_raw: .*millimetres"),
    "depth truncated": (
        {"depth": damage(data=lambda m: m.data[:-100])},
        r"depth/image_raw: image data is truncated, got 614300 bytes, expected 614400",
    ),
    "colour truncated": (
        {"color": damage(data=lambda m: array.array("B"))},
        r"color/image_raw: image data is truncated, got 0 bytes, expected 921600",
    ),
    "step smaller than the row": (
        {"color": damage(step=1900)},
        r"color/image_raw: step is 1900, expected at least 1920 bytes",
    ),
    "colour of another encoding": (
        {"color": damage(encoding="yuv999")},
        r"color/image_raw: encoding 'yuv999' .*rgb8",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_message(bench, case):
    changes, pattern = CASES[case]
    bench.start()
    check_refused_then_recovers(bench, pattern, **changes)


def test_damaged_compressed_colour(bench):
    data = cv2.imencode(".jpg", bench.rgb[..., ::-1])[1].tobytes()
    good = CompressedImage(format="jpeg", data=data)
    bad = CompressedImage(format="jpeg", data=data[:-500])
    bench.start(color_transport="compressed")
    pattern = r"color/image_raw/compressed: expected a whole JPEG or PNG, got \d+ bytes.*truncated"
    check_refused_then_recovers(bench, pattern, {"color": None, "compressed": good},
                                color=None, compressed=bad)  # fmt: skip


def check_refused_then_recovers(bench, pattern, good=MappingProxyType({}), **bad):
    """Good frames, a second of bad ones, good ones again."""
    bench.stream_until_poses(**good)
    assert not bench.errors()
    time.sleep(0.2)  # the last good frame is through
    refused = lambda: int(bench.node.node._statistics.values()["bad_input"])  # noqa: E731
    bad_stamps, deadline = set(), time.monotonic() + 20.0
    while refused() < 8 and time.monotonic() < deadline:
        bad_stamps.add(bench.publish(**bad))
        time.sleep(1 / 30)
    assert refused() >= 8
    bench.wait_for(lambda: bench.errors(pattern), f"a message like {pattern}")
    time.sleep(0.1)
    assert len(bench.errors()) == 1, "one clear message, not a flood"
    bench.stream_until_poses(**good)
    stamps = {stamp_to_ns(message.header.stamp) for _, message in bench.poses}
    assert stamps and not stamps & bad_stamps


def test_bad_input_is_in_the_diagnostics_while_it_lasts(bench):
    bench.start()
    status = lambda: bench.diagnostics.get("input", DiagnosticStatus(level=b"9"))  # noqa: E731
    bench.stream(lambda: "no valid" in status().message, "the message", depth=filled(0.0))
    assert status().level == DiagnosticStatus.ERROR
    bench.stream(lambda: "no valid" not in status().message, "diagnostics recover")
    assert status().level != DiagnosticStatus.ERROR  # a busy machine leaves gaps between images
    assert "no valid pixel" in bench.values()["last_problem"]


def test_missing_camera_info(bench):
    bench.start(input_timeout_s=0.5)
    pattern = r"color/camera_info: no CameraInfo for 0.5 s while images come; 1 publisher\(s\)"
    bench.stream(lambda: bench.errors(pattern), "a message", info=None)
    assert not bench.poses and len(bench.errors()) == 1
    bench.stream_until_poses()


def test_no_images_at_all(bench):
    bench.start(input_timeout_s=0.5)
    pattern = r"color/image_raw: 1 publisher\(s\), but nothing came for 0.5 s"
    bench.wait_for(lambda: bench.errors(pattern), "a message")
    bench.stream_until_poses()


def test_nobody_publishes(bench):
    bench.start(wait=False, input_timeout_s=0.5)
    bench.destroy_camera()
    pattern = (
        r"color/image_raw: nobody publishes, nothing came for 0.5 s. Start the camera or remap"
    )
    bench.wait_for(lambda: bench.errors(pattern), "a message")


def test_depth_that_stops(bench):
    bench.start(depth_timeout_s=1.0)
    bench.stream_until_poses()
    time.sleep(0.2)
    del bench.poses[:]
    pattern = r"depth/image_raw: no depth image for 1 s, 1 publisher\(s\); expected depth aligned"
    bench.stream(lambda: bench.errors(pattern), "a message", depth=None)
    assert not bench.poses and len(bench.errors()) == 1
    lost = lambda: int(bench.values().get("sync_losses", 0))  # noqa: E731
    bench.stream(lambda: lost() > 10, "losses are counted", depth=None)
    bench.stream_until_poses()


def test_stamps_that_never_match(bench):
    def late(message):
        stamp = ns_to_stamp(stamp_to_ns(message.header.stamp) - 20_000_000)
        message.header = type(message.header)(stamp=stamp, frame_id=FRAME)
        return message

    bench.start(input_timeout_s=1.0, sync_slop_s=0.001)
    stamps = iter(range(time.time_ns(), 2**63, 40_000_000))  # never within 1 ms
    pattern = r"both come, but no two stamps are within 0.001 s; the newest differ by 0.0[26]0 s"
    bench.stream(lambda: bench.errors(pattern), "a message", depth=late, stamps=stamps)
    assert not bench.poses
    bench.stream_until_poses(stamps=stamps)


def test_clock_set_back(bench):
    """A bag that starts again: 100 s earlier than before."""
    bench.start()
    now = time.time_ns()
    bench.stream_until_poses()
    earlier = iter(range(now - 100_000_000_000, now, 33_000_000))
    del bench.poses[:]
    old = lambda: [m for _, m in bench.poses if stamp_to_ns(m.header.stamp) < now - 90 * 10**9]  # noqa: E731
    bench.stream(lambda: len(old()) >= 6, "poses with old stamps", stamps=earlier)
    pattern = r"(color|depth)/image_raw: stamps go backwards, newest .* then .* starts anew"
    bench.stream(lambda: bench.errors(pattern), "a message", stamps=earlier)

    def said() -> str:  # the first report may come after the first frames
        found = bench.diagnostics.get("input")
        return "" if found is None or found.level != DiagnosticStatus.WARN else found.message

    clock = "stamps are 100.* s behind this machine's clock.*set use_sim_time"
    bench.stream(lambda: re.search(clock, said()), "only the clock is left", stamps=earlier)
    assert len(bench.errors()) == 1


def test_clock_set_back_while_instances_stay_unique(bench):
    bench.start()
    bench.stream_until_poses()
    early = iter(range(10**9, 10**12, 33_000_000))
    bench.stream(lambda: bench.values().get("instances.wedge") == "0, 1", "ids", stamps=early)


def test_incompatible_qos_names_topic_policy_and_remedy(bench):
    bench.destroy_camera("color")
    bench.create_camera("color", QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    override = f"qos_overrides.{bench.namespace}/color/image_raw.subscription.reliability"
    bench.start(**{override: "reliable"}, wait=False)
    pattern = (
        r"color/image_raw: a publisher's QoS is incompatible in RELIABILITY, nothing from it "
        rf"arrives. Set the parameter '{override}'"
    )
    bench.wait_for(lambda: bench.errors(pattern), "a message")
    bench.wait_for(lambda: "QoS" in bench.values().get("last_problem", ""), "diagnostics")
    bench.change_state("deactivate")
    assert bench.set_parameter(override, "best_effort").successful
    bench.change_state("activate")
    bench.stream_until_poses()


def test_two_streams_on_one_topic_are_a_message(bench):
    """A remap too many: DDS itself would only tell of an invalid allocator."""
    info = f"{bench.namespace}/color/camera_info"
    bench.start(remap={"color/image_raw": info}, wait=False)
    pattern = f"Cannot subscribe: {info}: is the topic of color and camera_info.*Correct the remap"
    bench.wait_for(lambda: bench.errors(pattern), "a message")
    assert bench.state() == "inactive"


def test_wrong_qos_override_is_a_message(bench):
    override = f"qos_overrides.{bench.namespace}/color/image_raw.subscription.reliability"
    bench.start(**{override: "perfect"}, wait=False)
    bench.wait_for(lambda: bench.errors("Cannot subscribe: .*reliability.*perfect"), "a message")
    assert bench.state() == "inactive"
    assert bench.set_parameter(override, "best_effort").successful
    assert bench.change_state("activate")
    bench.stream_until_poses()


def test_a_frame_that_breaks_the_pipeline_does_not_end_it(bench):
    bench.start()
    bench.stream_until_poses()
    pipeline, seen = bench.node.node._configured.pipeline, []
    good = pipeline._estimator.engine.answer

    def broken(tensors):
        seen.append(1)
        raise ZeroDivisionError("engine on fire")

    pipeline._estimator.engine.answer = broken
    bench.stream(lambda: len(seen) > 5, "broken frames")
    bench.wait_for(lambda: bench.errors("ZeroDivisionError: engine on fire"), "a message")
    pipeline._estimator.engine.answer = good
    bench.stream_until_poses()
    assert len(bench.errors()) == 1


CAMERA_WITHOUT_PROFILE = """
import array, rclpy, sys, time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera", namespace=sys.argv[1])
publisher = node.create_publisher(Image, "color/image_raw", qos_profile_sensor_data)
data = array.array("B", bytes(3 * 1280 * 720))
while True:
    publisher.publish(Image(height=720, width=1280, step=3840, encoding="rgb8", data=data))
    time.sleep(1 / 30)
"""


def test_large_images_lost_by_the_middleware(bench):
    """A camera in another process, Fast DDS with its default shared memory."""
    bench.start()
    environment = {k: v for k, v in os.environ.items() if "PROFILES" not in k}
    camera = subprocess.Popen(
        [sys.executable, "-c", CAMERA_WITHOUT_PROFILE, bench.namespace], env=environment
    )
    try:
        pattern = r"color/image_raw: \d+ of the last \d+ messages were lost.*large_frames.xml"
        bench.wait_for(lambda: bench.errors(pattern), "a message", 30)
    finally:
        camera.kill()
        camera.wait()
