"""Recordings as streams of ROS messages: a BOP scene and the sample bag."""

import json

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

pytest.importorskip("rosbags", reason="the extra `bag` (rosbags) is not installed")

from heatnet_ros.bags.choice import Wanted
from heatnet_ros.bags.sample import SAMPLE
from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.errors import DataError
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.compressed_depth import encode_depth_mm
from heatnet_ros.ros.frames import ImageSet, Topics, build_frame
from heatnet_ros.ros.messages import stamp_to_ns
from heatnet_ros.ros.recordings import COLOR, DEPTH, INFO, open_recording

RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
DEPTH_MM = np.random.default_rng(1).integers(500, 900, (48, 64)).astype(np.uint16)
K_MATRIX = np.array([[600.0, 0, 31], [0, 610, 23], [0, 0, 1]])
K = K_MATRIX.ravel().tolist()


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "set" / "test" / "000001"
    for name, image in (("rgb", RGB[..., ::-1]), ("depth", DEPTH_MM)):
        (folder / name).mkdir(parents=True)
        for number in (3, 7):
            cv2.imwrite(str(folder / name / f"{number:06d}.png"), image)
    cameras = {str(number): {"cam_K": K, "depth_scale": 1.0} for number in (3, 7)}
    (folder / "scene_camera.json").write_text(json.dumps(cameras))
    return folder


def test_a_bop_scene_is_ten_frames_a_second(scene):
    recording = open_recording(scene, Wanted(), decode=True)
    assert recording.topics == {COLOR: Image, INFO: CameraInfo, DEPTH: Image}
    items = list(recording.read())
    assert len(items) == recording.count == 6 and recording.frames == 2
    assert [item.time_ns for item in items][::3] == [10**9, 10**9 + 10**8] == [*recording.span_ns]
    messages = {item.topic: item.message for item in items[3:]}
    assert {stamp_to_ns(m.header.stamp) for m in messages.values()} == {items[-1].time_ns}
    images = ImageSet(messages[COLOR], messages[DEPTH], messages[INFO], 0.0)
    for rectified in (False, True):
        frame = build_frame(images, Topics("/c", "/i", "/d"), rectified)
        np.testing.assert_array_equal(frame.rgb, RGB)
        np.testing.assert_array_equal(np.rint(frame.depth_m * 1000), DEPTH_MM)
        assert frame.K.ravel().tolist() == K and frame.distortion.is_zero


def test_the_sample_decoded_and_as_recorded_is_the_same_picture():
    path, topics = find_resource(SAMPLE, "Sample"), Topics("/c", "/i", "/d")
    frames = []
    for decode in (True, False):
        recording = open_recording(path, Wanted(), decode)
        kind = Image if decode else CompressedImage
        assert [recording.topics[t] for t in recording.topics if t.startswith(COLOR)] == [kind]
        items = list(recording.read())
        assert len(items) == recording.count
        found = {item.topic: item.message for item in items[:6]}
        color, depth = (
            (COLOR, DEPTH) if decode else (f"{COLOR}/compressed", f"{DEPTH}/compressedDepth")
        )
        frames.append(
            build_frame(ImageSet(found[color], found[depth], found[INFO], 0.0), topics, False)
        )
        poses = [m for m in found.values() if isinstance(m, PoseStamped)]
        assert len(poses) == 3 and all(0.3 < m.pose.position.z < 1.2 for m in poses)
    np.testing.assert_array_equal(frames[0].rgb, frames[1].rgb)
    np.testing.assert_array_equal(frames[0].depth_m, frames[1].depth_m)
    assert frames[0].stamp_ns == frames[1].stamp_ns and frames[0].frame_id == frames[1].frame_id


@pytest.mark.parametrize("bad", [0, 2])
def test_an_image_that_cannot_be_decoded_is_left_out_and_empty_depth_is_not(tmp_path, bad):
    """Also where it is the first, from which the topics' types are taken."""
    path, none = tmp_path / "lab.mcap", np.zeros_like(DEPTH_MM)
    jpeg = cv2.imencode(".jpg", RGB)[1].tobytes()
    with BagWriter(path) as bag:
        for i in range(4):
            t = 10**18 + i * 10**8
            bag.add("/c/color/camera_info", t, bag.make_camera_info(t, "f", K_MATRIX, (64, 48)))
            depth = encode_depth_mm(none if i == bad else DEPTH_MM)
            message = bag.make_compressed(t, "f", *depth)
            bag.add("/c/depth/image_raw/compressedDepth", t, message)
            message = bag.make_compressed(t, "f", "jpeg", jpeg[:40] if i == bad else jpeg)
            bag.add("/c/color/image_raw/compressed", t, message)
    recording = open_recording(path, Wanted(), decode=True)
    assert recording.topics == {COLOR: Image, INFO: CameraInfo, DEPTH: Image}
    for _ in range(2):  # each pass counts anew
        items = list(recording.read())
        assert [item.topic for item in items].count(COLOR) == 3
        depths = [image_depth(item.message) for item in items if item.topic == DEPTH]
        assert [bool(depth.any()) for depth in depths] == [i != bad for i in range(4)]
        assert len(recording.faults) == 1
        assert "expected a whole JPEG or PNG, got 40 bytes" in recording.faults[0]


def image_depth(message):
    return np.frombuffer(message.data, np.float32)


def test_an_unreadable_image_of_a_scene_is_left_out(scene):
    (scene / "rgb" / "000003.png").write_bytes(b"nothing")
    recording = open_recording(scene, Wanted(), decode=True)
    items = list(recording.read())
    assert {item.time_ns for item in items} == {recording.span_ns[1]} and len(items) == 3
    assert len(recording.faults) == 1 and "000003.png" in recording.faults[0]


def test_what_is_no_recording_is_said(tmp_path):
    with pytest.raises(DataError, match=r"is neither a bag .* nor a BOP scene"):
        open_recording(tmp_path, Wanted(), decode=True)
