"""Recordings as streams of ROS messages: a BOP scene, a folder of images, the sample bag."""

import json

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

pytest.importorskip("rosbags", reason="the extra `bag` (rosbags) is not installed")

from heatnet_ros.bags.choice import Wanted
from heatnet_ros.bags.reader import Bag
from heatnet_ros.bags.sample import SAMPLE
from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.compressed_depth import encode_depth_mm
from heatnet_ros.ros.frames import ImageSet, Topics, build_frame
from heatnet_ros.ros.messages import stamp_to_ns
from heatnet_ros.ros.recordings import (
    COLOR,
    DEPTH,
    DEPTH_INFO,
    INFO,
    ImageOptions,
    open_recording,
)
from heatnet_ros.types import Distortion

RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
DEPTH_MM = np.random.default_rng(1).integers(500, 900, (48, 64)).astype(np.uint16)
K_MATRIX = np.array([[600.0, 0, 31], [0, 610, 23], [0, 0, 1]])
K = K_MATRIX.ravel().tolist()
WITH_DEPTH = {COLOR: Image, INFO: CameraInfo, DEPTH: Image, DEPTH_INFO: CameraInfo}


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
    assert recording.topics == WITH_DEPTH
    items = list(recording.read())
    assert len(items) == recording.count == 8 and recording.frames == 2
    assert [item.time_ns for item in items][::4] == [10**9, 10**9 + 10**8] == [*recording.span_ns]
    messages = {item.topic: item.message for item in items[4:]}
    assert messages[DEPTH_INFO] == messages[INFO], "depth is aligned"
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


def test_the_calibration_of_depth_is_published_where_the_bag_has_it(tmp_path):
    """Of another K than colour's, so that the node can say that depth is not aligned."""
    path = tmp_path / "lab.mcap"
    with BagWriter(path) as bag:
        t, jpeg = 10**18, cv2.imencode(".jpg", RGB)[1].tobytes()
        bag.add("/c/color/camera_info", t, bag.make_camera_info(t, "f", K_MATRIX, (64, 48)))
        bag.add("/c/color/image_raw", t, bag.make_compressed(t, "f", "jpeg", jpeg))
        bag.add("/c/aligned/camera_info", t, bag.make_camera_info(t, "f", 0.5 * K_MATRIX, (64, 48)))
        depth = bag.make_compressed(t, "f", *encode_depth_mm(DEPTH_MM))
        bag.add("/c/aligned/image_raw/compressedDepth", t, depth)
    recording = open_recording(path, Wanted(), decode=True)
    messages = {item.topic: item.message for item in recording.read()}
    assert recording.topics == WITH_DEPTH and recording.count == 4
    assert messages[DEPTH_INFO].k[0] == 300 and messages[INFO].k[0] == 600


def test_the_span_is_that_of_the_camera_not_of_all_that_the_bag_holds(tmp_path):
    """Odometry from a minute before to five minutes after the camera: no silence is played."""
    path, begin, second = tmp_path / "robot.mcap", 10**18, 10**9
    with BagWriter(path) as bag:

        def odometry(t):
            bag.add("/odom", t, bag.make_pose(t, "odom", np.eye(4)))

        jpeg = cv2.imencode(".jpg", RGB)[1].tobytes()
        odometry(begin - 60 * second)
        for t in range(begin, begin + 3 * second, second // 10):
            bag.add("/c/color/camera_info", t, bag.make_camera_info(t, "f", K_MATRIX, (64, 48)))
            bag.add("/c/color/image_raw", t, bag.make_compressed(t, "f", "jpeg", jpeg))
        odometry(begin + 300 * second)
    recording = open_recording(path, Wanted(), decode=True)
    assert recording.span_ns == (begin, begin + 2_900_000_000)
    assert Bag(path).span_ns(["/odom"]) == (begin - 60 * second, begin + 300 * second)
    assert Bag(path).span_ns([]) == (0, 0)


def image_depth(message):
    return np.frombuffer(message.data, np.float32)


def test_an_unreadable_image_of_a_scene_is_left_out(scene):
    (scene / "rgb" / "000003.png").write_bytes(b"nothing")
    recording = open_recording(scene, Wanted(), decode=True)
    items = list(recording.read())
    assert {item.time_ns for item in items} == {recording.span_ns[1]} and len(items) == 4
    assert len(recording.faults) == 1 and "000003.png" in recording.faults[0]


def write_folder(folder, names, color="rgb", depths=None, K=K_MATRIX):
    """Colour, depth and camera.json; the number in a name is written into a pixel of its depth."""
    for sub, stems in ((color, names), ("depth", names if depths is None else depths)):
        (folder / sub).mkdir(parents=True)
        for i, stem in enumerate(stems):
            image = RGB[..., ::-1] if sub == color else DEPTH_MM + np.uint16(i)
            cv2.imwrite(str(folder / sub / f"{stem}.png"), image)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    numbers = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": 64, "height": 48}
    (folder / "camera.json").write_text(json.dumps(numbers))
    return folder


@pytest.mark.parametrize(("names", "stamps_ns"), [
    (("000000", "000001", "000002"), (10**9, 10**9 + 5 * 10**7, 10**9 + 10**8)),
    (("a", "b"), (10**9, 10**9 + 5 * 10**7)),
    (("1311868164.363181", "1311868165.25"), (1311868164363181000, 1311868165250000000)),
    (("9.5", "10.25"), (9500000000, 10250000000)),  # in their order, not in that of the alphabet
    (("1403636579763555584", "1403636579813555456"), (1403636579763555584, 1403636579813555456)),
    # one of them is no stamp
    (("1311868164.363181", "x"), (10**9, 10**9 + 5 * 10**7)),
])  # fmt: skip
@pytest.mark.parametrize("color", ["rgb", "color"])
def test_a_folder_of_images_has_the_stamps_of_its_names(tmp_path, names, stamps_ns, color):
    folder = write_folder(tmp_path / "pictures", names, color)
    images_per_s = 20.0 if stamps_ns[0] == 10**9 else None
    recording = open_recording(folder, Wanted(), True, ImageOptions(images_per_s=images_per_s))
    assert recording.topics == WITH_DEPTH
    items = list(recording.read())
    assert recording.count == len(items) == 4 * len(names) and not recording.faults
    assert recording.span_ns == (stamps_ns[0], stamps_ns[-1])
    for i, stamp_ns in enumerate(stamps_ns):
        messages = {item.topic: item.message for item in items[4 * i : 4 * i + 4]}
        assert {stamp_to_ns(m.header.stamp) for m in messages.values()} == {stamp_ns}
        images = ImageSet(messages[COLOR], messages[DEPTH], messages[INFO], 0.0)
        frame = build_frame(images, Topics("/c", "/i", "/d"), False)
        np.testing.assert_array_equal(frame.rgb, RGB)
        np.testing.assert_array_equal(np.rint(frame.depth_m * 1000), DEPTH_MM + i)
        assert frame.K.ravel().tolist() == K


def test_a_ros_calibration_and_another_depth_scale(tmp_path):
    folder = write_folder(tmp_path / "pictures", ["1", "2"], depths=["2"])
    (folder / "camera.json").unlink()
    (folder / "camera_info.yaml").write_text(
        "image_width: 64\nimage_height: 48\n"
        f"camera_matrix: {{rows: 3, cols: 3, data: {K}}}\n"
        "distortion_model: plumb_bob\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0.0]}\n"
    )
    recording = open_recording(folder, Wanted(), True, ImageOptions(metres_per_unit=1e-4))
    topics = [item.topic for item in recording.read()]
    assert topics == [INFO, COLOR, INFO, COLOR, DEPTH_INFO, DEPTH] and recording.count == 6
    items = list(recording.read())
    messages = {item.topic: item.message for item in items}
    images = ImageSet(messages[COLOR], messages[DEPTH], messages[INFO], 0.0)
    frame = build_frame(images, Topics("/c", "/i", "/d"), False)
    assert frame.distortion == Distortion("plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.0))
    np.testing.assert_allclose(frame.depth_m, DEPTH_MM * 1e-4, rtol=1e-6)


def test_a_folder_that_cannot_be_published_says_why(tmp_path):
    folder = write_folder(tmp_path / "other", ["1"], depths=["7"])
    with pytest.raises(DataError, match=r"None of the 1 images in .*depth has the name .*1\.png"):
        open_recording(folder, Wanted(), True)
    folder = write_folder(tmp_path / "small", ["1", "2"])
    for name in ("1", "2"):
        cv2.imwrite(str(folder / "rgb" / f"{name}.png"), RGB[:24])
    with pytest.raises(DataError, match=r"1\.png is 64x24, the calibration .* is for 64x48"):
        open_recording(folder, Wanted(), True)
    (folder / "camera.json").unlink()
    with pytest.raises(ConfigError, match=r"No camera calibration .* camera_info\.yaml beside"):
        open_recording(folder, Wanted(), True)
    with pytest.raises(DataError, match=r"is neither a bag .* nor a BOP scene .* nor a folder"):
        open_recording(tmp_path / "nothing", Wanted(), True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no images: .* Nor is it a bag"):
        open_recording(tmp_path / "empty", Wanted(), True)


def test_a_scene_has_its_own_calibration(scene):
    with pytest.raises(ConfigError, match="has its own calibration"):
        open_recording(scene, Wanted(), True, ImageOptions(camera="600,600,32,24"))


def test_images_a_second_are_refused_where_stamps_are_known(tmp_path):
    asked = ImageOptions(images_per_s=30.0)
    folder = write_folder(tmp_path / "stamped", ("9.5", "10.25"))
    with pytest.raises(ConfigError, match=r"named by their stamps.*--rate"):
        open_recording(folder, Wanted(), True, asked)
    with pytest.raises(ConfigError, match=r"has its own stamps.*--rate"):
        open_recording(find_resource(SAMPLE, "Sample"), Wanted(), True, asked)


def test_images_without_depth_of_their_name_are_counted(tmp_path, capsys):
    folder = write_folder(tmp_path / "some", ("a", "b", "c"), depths=("a",))
    recording = open_recording(folder, Wanted(), True)
    assert recording.count == 8
    assert "note: 2 of 3 images have no depth image of their name" in capsys.readouterr().err
