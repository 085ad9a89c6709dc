"""Bags written and read back: topics found, frames paired as the node pairs, damage named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="the extra `bag` (rosbags) is not installed")

from heatnet_ros.bags.choice import Wanted, choose_topics, list_truth
from heatnet_ros.bags.frames import BagFrames
from heatnet_ros.bags.reader import Bag, is_bag
from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.ros.compressed_depth import encode_depth_m, encode_depth_mm
from heatnet_ros.ros.node_config import NodeConfig

K = np.array([[600.0, 0.0, 31.0], [0.0, 610.0, 23.0], [0.0, 0.0, 1.0]])
SIZE_WH = (64, 48)
BASE = "/camera/camera"
COLOR = f"{BASE}/color/image_raw"
INFO = f"{BASE}/color/camera_info"
DEPTH = f"{BASE}/aligned_depth_to_color/image_raw"
MS = 1_000_000
RGB = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
DEPTH_MM = np.random.default_rng(1).integers(500, 900, (48, 64)).astype(np.uint16)


def image(bag, stamp_ns, pixels, encoding, frame_id="optical"):
    height, width = pixels.shape[:2]
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    return bag.make(
        "sensor_msgs/msg/Image", stamp_ns, frame_id,
        height=height, width=width, encoding=encoding, is_bigendian=0,
        step=len(data) // height, data=data,
    )  # fmt: skip


def write(path, offsets_ms=(0, 0, 0), color=COLOR, **more):
    """Frames at 30 Hz; the depth of frame i has a stamp ``offsets_ms[i]`` later."""
    with BagWriter(path) as bag:
        for i, offset in enumerate(offsets_ms):
            stamp = 10**9 + i * 33 * MS
            bag.add(INFO, stamp, bag.make_camera_info(stamp, "optical", K, SIZE_WH))
            depth_stamp = stamp + offset * MS
            bag.add(DEPTH, depth_stamp + 1, image(bag, depth_stamp, DEPTH_MM + i, "16UC1"))
            bag.add(color, stamp + 5 * MS, image(bag, stamp, RGB, "rgb8"))
            for topic, build in more.items():
                bag.add(topic, stamp, build(bag, stamp))
    return path


def frames_of(path, **config):
    bag = Bag(path)
    return BagFrames(bag, choose_topics(bag, Wanted()), NodeConfig(**config))


def test_pixels_calibration_and_stamps_come_back(tmp_path):
    found = frames_of(write(tmp_path / "a.mcap"))
    assert [f.stamp_ns for f in found.frames] == [10**9, 10**9 + 33 * MS, 10**9 + 66 * MS]
    assert found.unpaired == 0
    frame = found.load(found.frames[2])
    np.testing.assert_array_equal(frame.rgb, RGB)
    np.testing.assert_array_equal(np.rint(frame.depth_m * 1000), DEPTH_MM + 2)
    np.testing.assert_array_equal(frame.K, K)
    assert frame.frame_id == "optical" and frame.stamp_ns == 10**9 + 66 * MS


def test_frames_are_paired_within_the_slop(tmp_path):
    path = write(tmp_path / "a.mcap", (0, 7, 12, 2))
    found = frames_of(path)
    assert [f.stamp_ns - 10**9 for f in found.frames] == [0, 33 * MS, 99 * MS]
    assert found.unpaired == 1
    assert len(frames_of(path, sync_slop_s=0.02).frames) == 4
    far = write(tmp_path / "b.mcap", (15, 15, 15))
    with pytest.raises(DataError, match=r"of 3 images .* none has a partner .*Raise sync_slop_s"):
        frames_of(far)


def test_rectified_takes_P(tmp_path):
    def other(bag, stamp):
        info = bag.make_camera_info(stamp, "optical", K, SIZE_WH)
        info.p = np.array([500.0, 0, 30, 0, 0, 505, 20, 0, 0, 0, 1, 0])
        info.d = np.array([0.1, 0.0, 0.0, 0.0, 0.0])
        return info

    path = tmp_path / "a.mcap"
    with BagWriter(path) as bag:
        bag.add(INFO, 5, other(bag, 10**9))
        bag.add(COLOR, 6, image(bag, 10**9, RGB, "rgb8"))
    raw, rectified = frames_of(path), frames_of(path, rectified=True)
    frame = raw.load(raw.frames[0])
    assert frame.K[0, 0] == 600 and frame.distortion.coefficients[0] == 0.1
    assert frame.depth_m is None
    frame = rectified.load(rectified.frames[0])
    assert frame.K[0, 0] == 500 and frame.distortion.is_zero


def test_the_camera_is_found_among_other_topics(tmp_path):
    more = {
        "/camera/camera/ir/image_rect_raw": lambda b, s: image(b, s, RGB[..., 0], "mono8", "ir"),
        "/camera/camera/ir/camera_info": lambda b, s: b.make_camera_info(s, "ir", K, SIZE_WH),
        "/camera/camera/depth/raw": lambda b, s: image(b, s, DEPTH_MM, "16UC1", "depth"),
        f"{COLOR}/compressed": lambda b, s: b.make_compressed(
            s, "optical", "rgb8; jpeg compressed bgr8", cv2.imencode(".jpg", RGB)[1].tobytes()
        ),
        "/synthetic_camera/truth/mug": lambda b, s: b.make_pose(s, "optical", np.eye(4)),
    }  # fmt: skip
    bag = Bag(write(tmp_path / "a.mcap", **more))
    topics = choose_topics(bag, Wanted())
    assert (topics.color, topics.camera_info, topics.depth) == (COLOR, INFO, DEPTH)
    assert list_truth(bag) == {"/synthetic_camera/truth/mug": "mug"}
    chosen = choose_topics(bag, Wanted(color=f"{COLOR}/compressed"))
    assert (chosen.color, chosen.camera_info) == (f"{COLOR}/compressed", INFO)
    with pytest.raises(DataError, match=r"no images or calibration on /nowhere. Its topics: "):
        choose_topics(bag, Wanted(color="/nowhere"))


def test_two_cameras_are_a_question_for_the_user(tmp_path):
    other = "/left/color/image_raw"
    path = write(tmp_path / "a.mcap", **{other: lambda b, s: image(b, s, RGB, "rgb8")})
    with pytest.raises(DataError, match=f"several .*{COLOR}, {other}. Choose one with --color-top"):
        choose_topics(Bag(path), Wanted())


@pytest.mark.parametrize(
    "encoded",
    [encode_depth_mm(DEPTH_MM), encode_depth_m((DEPTH_MM / 1000).astype(np.float32))],
    ids=["16UC1", "32FC1"],
)
def test_compressed_colour_and_depth(tmp_path, encoded):
    path = tmp_path / "a.mcap"
    png = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
    with BagWriter(path) as bag:
        bag.add(INFO, 1, bag.make_camera_info(7, "optical", K, SIZE_WH))
        depth = bag.make_compressed(7, "optical", *encoded)
        bag.add(f"{DEPTH}/compressedDepth", 2, depth)
        color = bag.make_compressed(7, "optical", "rgb8; png compressed bgr8", png)
        bag.add(f"{COLOR}/compressed", 3, color)
    found = frames_of(path)
    frame = found.load(found.frames[0])
    np.testing.assert_array_equal(frame.rgb, RGB)
    np.testing.assert_allclose(frame.depth_m * 1000, DEPTH_MM, atol=0.1)


def test_a_folder_of_rosbag2_with_sqlite(tmp_path):
    from rosbags.rosbag2 import StoragePlugin, Writer

    source, folder = Bag(write(tmp_path / "a.mcap")), tmp_path / "bag"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        store = source._reader.typestore
        connections = {
            t: writer.add_connection(t, kind, typestore=store) for t, kind in source.topics.items()
        }
        for item in source.read(source.topics):
            kind = source.topics[item.topic]
            data = store.serialize_cdr(item.message, kind)
            writer.write(connections[item.topic], item.time_ns, data)
    assert is_bag(folder) and not is_bag(tmp_path / "nothing")
    assert is_bag(tmp_path)  # a recorder that was killed leaves one file and no metadata
    found = frames_of(folder)
    assert len(found.frames) == 3
    np.testing.assert_array_equal(found.load(found.frames[1]).rgb, RGB)


def test_a_bag_of_ros_1(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store, path = get_typestore(Stores.ROS1_NOETIC), tmp_path / "old.bag"
    types = store.types
    header = types["std_msgs/msg/Header"](
        seq=1, stamp=types["builtin_interfaces/msg/Time"](sec=3, nanosec=5), frame_id="optical"
    )
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = types["sensor_msgs/msg/CameraInfo"](
        header=header, height=48, width=64, distortion_model="plumb_bob", D=np.zeros(5),
        K=K.ravel(), R=np.eye(3).ravel(), P=np.zeros(12), binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip
    color = types["sensor_msgs/msg/Image"](
        header=header, height=48, width=64, encoding="bgr8", is_bigendian=0, step=64 * 3,
        data=RGB.ravel(),
    )  # fmt: skip
    with Writer(path) as writer:
        for topic, message in ((INFO, info), (COLOR, color)):
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 3 * 10**9, store.serialize_ros1(message, kind))
    found = frames_of(path)
    frame = found.load(found.frames[0])
    np.testing.assert_array_equal(frame.K, K)
    np.testing.assert_array_equal(frame.rgb, RGB[..., ::-1])
    assert frame.stamp_ns == 3 * 10**9 + 5


def test_what_lacks_is_named(tmp_path):
    path = tmp_path / "a.mcap"
    with BagWriter(path) as bag:
        bag.add(COLOR, 1, image(bag, 1, RGB, "rgb8"))
    with pytest.raises(DataError, match=r"has no CameraInfo. Its topics: .*--info-topic"):
        choose_topics(Bag(path), Wanted())


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -9])
def test_a_damaged_file_is_named(tmp_path, keep):
    path = write(tmp_path / "a.mcap")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"Bag {path} cannot be read: .*(reindex|recover)"):
        for _ in Bag(path).read([COLOR, DEPTH]):
            pass


def test_bytes_changed_in_the_middle_do_no_harm(tmp_path):
    """Either the bag reads on, or DataError; nothing else."""
    path = write(tmp_path / "a.mcap")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    failed = 0
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(8, len(whole), 20):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            found = frames_of(path)
            found.load(found.frames[0])
        except DataError:
            failed += 1
    assert failed > 30


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Bag .*no.mcap does not exist"):
        Bag(tmp_path / "no.mcap")


def test_writing_needs_the_right_name_and_keeps_what_is_there(tmp_path):
    with pytest.raises(ConfigError, match=r"NAME.mcap, got .*a.bag"):
        BagWriter(tmp_path / "a.bag")
    path = write(tmp_path / "a.mcap")
    with pytest.raises(ConfigError, match="exists already"):
        BagWriter(path)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), BagWriter(tmp_path / "a.mcap") as bag:
        bag.add(COLOR, 1, image(bag, 1, RGB, "rgb8"))
        raise RuntimeError("stop")
    assert not list(Path(tmp_path).iterdir())
