"""What the doctor finds, a running node says of itself on /diagnostics, in the same words.

The camera is this process, ``pose_node`` another, the doctor a third; DDS is between them.
"""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from clinic import Clinic
from fakes import K, World, pose
from sensor_msgs.msg import CameraInfo, CompressedImage
from test_bad_input import damage, filled
from theatre import Theatre

from heatnet_ros.ros.messages import array_to_image

ROOT = Path(__file__).parents[2]
WARN, ERROR = b"\1", b"\2"
LENS = [0.12, -0.25, 0.001, -0.002, 0.0]


@pytest.fixture(scope="module")
def stage(ros, tmp_path_factory):
    world = World(("wedge", pose(-0.15, 0.0, 0.8)))
    folder = tmp_path_factory.mktemp("theatre")
    with Theatre(folder, world, depth_timeout_s=2.0, input_timeout_s=2.0) as theatre:
        theatre.bench.stream_until_poses()
        yield theatre


def message_of(bench):
    return bench.diagnostics["input"].message


def wait_until_said(bench, level, pattern, **changes):
    """Stream until the input's status says it; returns the whole message."""

    def said():
        status = bench.diagnostics.get("input")
        return status and status.level == level and re.search(pattern, status.message)

    bench.stream(said, f"a status like {pattern}", 40, 15, **changes)
    return message_of(bench)


def wait_until_silent(bench, pattern, **changes):
    gone = lambda: not re.search(pattern, message_of(bench))  # noqa: E731
    bench.stream(gone, f"the end of {pattern}", 40, 15, **changes)


def test_depth_of_an_unlikely_unit_in_the_doctor_s_words(stage, tmp_path):
    """16UC1 that holds metres."""
    bench = stage.bench
    in_metres = lambda _: array_to_image(np.full((480, 640), 2, np.uint16), "16UC1")  # noqa: E731
    pattern = r"the median depth is 0.002 m, expected 0.05 to 30 m: '16UC1' must hold millimetres"
    message = wait_until_said(bench, ERROR, pattern, depth=in_metres)
    report = Clinic(tmp_path).look_at(bench, depth=in_metres)
    found = report.one("error", "depth/image_raw", "the median depth is 0.002 m", "depth unit")
    assert f"{found['what']}: {found['evidence']}. {found['remedy']}" in message
    bench.wait_for(lambda: bench.errors(pattern), "the same in the log")
    wait_until_said(bench, ERROR, "the median depth is 50 m.*hold metres", depth=filled(50.0))
    wait_until_silent(bench, "median depth")


def test_depth_of_a_camera_of_its_own(stage):
    bench = stage.bench
    own = bench.create_publisher(CameraInfo, "depth/camera_info")

    def beside(K_depth):
        def publish_both(message):
            k = np.asarray(K_depth, np.float64).ravel()
            own.publish(CameraInfo(header=message.header, width=640, height=480, k=k))
            return message

        return publish_both

    other = [[380.0, 0, 318.0], [0, 380.0, 242.0], [0, 0, 1]]
    pattern = r"depth/image_raw: its CameraInfo \(fx 380.0, cx 318.0, 640x480\) is not that of"
    message = wait_until_said(bench, ERROR, pattern, info=beside(other))
    assert "depth is not aligned to colour. Publish depth aligned to colour" in message
    wait_until_silent(bench, "not aligned", info=beside(K))
    # once it is right, it is not listened to: that would cost a message a frame
    quiet = lambda: own.get_subscription_count() == 0  # noqa: E731
    bench.stream(quiet, "no subscription to depth's CameraInfo", 20, 15, info=beside(K))
    bench._own.node.destroy_publisher(own)


def test_two_publishers_and_another_type(stage):
    bench = stage.bench
    second = bench.create_publisher(CameraInfo, "color/camera_info")
    message = wait_until_said(bench, WARN, r"color/camera_info: 2 publishers \(.*expected one")
    assert "Stop all but one" in message
    bench._own.node.destroy_publisher(second)
    wait_until_silent(bench, "2 publishers")
    bench.destroy_camera("depth")
    context = rclpy.Context()  # one participant cannot give a topic two types
    rclpy.init(context=context)
    other = rclpy.create_node("other", namespace=bench.namespace, context=context)
    other.create_publisher(CompressedImage, "depth/image_raw", 5)
    pattern = r"depth/image_raw: is of type sensor_msgs/msg/CompressedImage, expected sensor_msgs"
    message = wait_until_said(bench, ERROR, pattern, depth=None)
    assert "Remap to the topic of that type" in message
    bench.stream_for(3.0, depth=None, rate_hz=15)  # longer than depth_timeout_s
    assert re.search(pattern, message_of(bench))
    assert "no depth image" not in message_of(bench), "the silence is explained"
    other.destroy_node()
    context.shutdown()
    bench.create_camera("depth")
    wait_until_silent(bench, "is of type")
    bench.stream_until_poses()


def test_calibration_that_stops_while_images_come(stage):
    """Poses go on with the last one, and it is said, in the doctor's words."""
    bench = stage.bench
    wait_until_said(bench, WARN, r"color/camera_info: the last CameraInfo came 6 s ago", info=None)
    bench.poses.clear()
    bench.stream(lambda: bench.poses, "a pose all the same", 20, 15, info=None)
    wait_until_silent(bench, "the last CameraInfo")


def test_a_distortion_that_is_not_used_and_a_principal_point_beside_the_image(stage):
    bench = stage.bench
    P = np.hstack([K, np.zeros((3, 1))]).ravel()
    curved = damage(p=P, distortion_model="plumb_bob", d=LENS)
    assert bench.set_parameter("rectified", True).successful
    message = wait_until_said(bench, WARN, "the distortion plumb_bob of CameraInfo", info=curved)
    assert "Set rectified: false for a raw image" in message
    assert bench.set_parameter("rectified", False).successful
    wait_until_silent(bench, "plumb_bob", info=curved)
    beside = K.copy()
    beside[0, 2] = 700.0
    pattern = "principal point 700, 241 is outside the 640x480 image"
    message = wait_until_said(bench, ERROR, pattern, info=damage(k=beside.ravel()))
    assert "not aligned" not in message, "what depth's CameraInfo was before tells nothing"
    wait_until_silent(bench, "principal point")


@pytest.mark.parametrize(
    ("frame_id", "fault"), [("", "is empty"), ("/camera", "'/camera' begins with a slash")]
)
def test_a_frame_that_tf_does_not_take(stage, tmp_path, frame_id, fault):
    """Poses come, but nothing can be done with them: RViz shows none and says no word of why."""
    bench = stage.bench

    def rename(message):
        message.header.frame_id = frame_id
        return message

    renamed = dict.fromkeys(("color", "info", "depth"), rename)
    pattern = f"color/camera_info: frame_id {fault}: TF and RViz cannot place the poses"
    message = wait_until_said(bench, WARN, pattern, **renamed)
    assert "Set the frame of the camera's driver" in message
    bench.stream_until_poses(**renamed)
    report = Clinic(tmp_path).look_at(bench, **renamed)
    report.one("warning", "color/camera_info", f"frame_id {fault}", "camera_color_optical_frame")
    wait_until_silent(bench, "frame_id")


def test_a_camera_that_leaves_frames_out(stage):
    """Every third image is missing."""
    bench = stage.bench
    begin_ns = time.time_ns()
    kept = (begin_ns + number * 66_000_000 for number in range(10**6) if number % 3)
    message = wait_until_said(bench, WARN, r"\d\d% of the images are missing", stamps=kept)
    assert "color/image_raw" in message and "The camera leaves frames out" in message


def drifting(share):
    """Stamps of a clock that runs ``share`` too slow."""
    begin_ns = time.time_ns()
    while True:
        yield begin_ns + int((1 - share) * (time.time_ns() - begin_ns))


def test_stamps_that_drift_against_the_clock(stage):
    bench = stage.bench
    # a jump back: what was measured before does not count
    bench.publish(time.time_ns() - 3_000_000_000)
    pattern = r"color/image_raw: stamps drift against the clock by \+\d+\.\d ms a second"
    message = wait_until_said(bench, WARN, pattern, stamps=drifting(0.04))
    assert "global_time_enabled:=true" in message
    told = float(bench.values()["stamp_drift_ms_per_s"])
    assert told == pytest.approx(40, abs=15)


KEYS = {
    r"^rejected\..*": "rejected.<object>",
    r"^rejected_age_s\..*": "rejected_age_s.<object>",
    r"^instances\..*": "instances.<object>",
    r"^rejections\..*": "rejections.<reason>",
    r"^engine\..*": "engine.<network>",
    r"^topic\..*": "topic.<stream>",
    r"^stage_.*_ms$": "stage_<stage>_ms",
}


def documented_keys():
    page = (ROOT / "docs" / "topics.md").read_text()
    section = page.split("## What is on /diagnostics")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_every_key_on_diagnostics_is_documented_and_no_other(stage):
    bench, seen = stage.bench, set()
    keys = documented_keys()
    assert len(keys) == len(set(keys)), "each once"

    def note(found):
        def look():
            for key in bench.values():
                for pattern, name in KEYS.items():
                    key = re.sub(pattern, name, key)
                seen.add(key)
            return found in seen

        return look

    bench.stream(note("instances.<object>"), "ids")
    assert bench.set_parameter("gate.min_inliers", 900).successful
    bench.stream(note("rejected.<object>"), "a rejection")
    bench.stream(note("last_problem_age_s"), "a problem", depth=filled(0.0))
    assert bench.set_parameter("gate.min_inliers", 8).successful
    assert seen == set(keys)
