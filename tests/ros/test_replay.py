"""Recorded data over real DDS: ``replay`` and ``record`` are processes of their own."""

import argparse
import itertools
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from bench import Spinner
from child_environment import child_environment
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from heatnet_ros.bags.choice import Wanted, choose_topics
from heatnet_ros.bags.frames import BagFrames
from heatnet_ros.bags.reader import Bag
from heatnet_ros.bags.sample import SAMPLE
from heatnet_ros.bags.writer import BagWriter
from heatnet_ros.ros.child import Child
from heatnet_ros.ros.compressed_depth import encode_depth_mm
from heatnet_ros.ros.messages import stamp_to_ns
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.player import Player
from heatnet_ros.ros.recordings import ImageOptions, open_recording
from heatnet_ros.ros.replay import add_arguments

ROOT = Path(__file__).parents[2]
OBJECTS = ("bracket", "valve", "mug", "connector", "pulley")
SAMPLE_INFO = "/camera/camera/color/camera_info"
MANY = QoSProfile(depth=200)


@contextmanager
def command(log, *words):
    """``python -m heatnet_ros ...`` in a process that ends with the context."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "heatnet_ros", *words],
            stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
            env=child_environment(),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_node(tmp_path, namespace, *options):
    arguments = ["--params-file", str(ROOT / "config/pose_demo.yaml"), "-r", f"__ns:={namespace}"]
    log = tmp_path / f"node{namespace.replace('/', '_')}.log"
    return Child("node", "heatnet_ros.ros.pose_node", [*arguments, *options], log, dict(os.environ))


class Listener:
    """Poses and truth of a namespace, in the order of arrival; the newest diagnostics."""

    def __init__(self, namespace, truth="/synthetic_camera/truth"):
        self.poses, self.truth, self.values = [], {}, {}
        self._name = f"{namespace[1:]}/pose_node"
        node = rclpy.create_node("listener", namespace=namespace)
        self._inputs = []
        for name in OBJECTS:
            self._inputs.append(
                node.create_subscription(
                    PoseStamped, f"pose_node/pose/{name}", self._keep(name, self._on_pose), MANY
                )
            )
            node.create_subscription(
                PoseStamped, f"{truth}/{name}", self._keep(name, self._on_truth), MANY
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, MANY)
        self._spinner = Spinner(node)

    @staticmethod
    def _keep(name, store):
        return lambda message: store(name, stamp_to_ns(message.header.stamp), message)

    def _on_pose(self, name, stamp_ns, message):
        self.poses.append((name, stamp_ns, _position(message)))

    def _on_truth(self, name, stamp_ns, message):
        self.truth[name, stamp_ns] = _position(message)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name.startswith(self._name):
                self.values |= {value.key: value.value for value in status.values}

    def hears_the_node(self):
        """Whether DDS has found the node, which may take seconds: no pose is lost from here on."""
        return all(one.get_publisher_count() for one in self._inputs)

    def knows_the_truth(self):
        """Whether there is truth for every pose: replay does not wait for those who want it."""
        return {(name, ns) for name, ns, _ in list(self.poses)} <= set(self.truth)

    def errors_m(self):
        """Distance of every pose to the truth of its stamp; KeyError where there is none."""
        return [np.linalg.norm(p - self.truth[name, ns]) for name, ns, p in list(self.poses)]

    def stop(self):
        self._spinner.stop()


def _position(message):
    p = message.pose.position
    return np.array([p.x, p.y, p.z])


def wait_for(condition, what, *logs, timeout_s=40.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        told = "\n".join(f"{log}:\n{log.read_text()[-1500:]}" for log in logs if log.exists())
        assert time.monotonic() < deadline, f"Waited in vain: {what}.\n{told}"
        time.sleep(0.02)


@pytest.fixture
def listen(ros):
    with ExitStack() as stack:

        def make(*args):
            listener = Listener(*args)
            stack.callback(listener.stop)
            return listener

        yield make


def jumps_back(stamps):
    return sum(b < a for a, b in itertools.pairwise(stamps))


def test_the_sample_in_a_loop_in_simulated_time(listen, tmp_path):
    """Three passes: right poses in each, no stuck state when the clock is set back."""
    listener, log = listen("/looped"), tmp_path / "replay.log"
    words = ("sample", "--loop", "--clock", "--ros-args", "-r", "__ns:=/looped")
    with start_node(tmp_path, "/looped", "-p", "use_sim_time:=true"):
        wait_for(listener.hears_the_node, "discovery", tmp_path / "node_looped.log")
        with command(log, "replay", *words):
            wait_for(
                lambda: jumps_back([ns for n, ns, _ in listener.poses if n == "mug"]) >= 2
                and int(listener.values.get("clock_resets", 0)) >= 2
                and listener.knows_the_truth(),
                "three passes, every pose of a true stamp", tmp_path / "node_looped.log", log,
            )  # fmt: skip
            values = dict(listener.values)
        recorded = {ns for _, ns in listener.truth}
    assert len(recorded) == 8 and {ns for _, ns, _ in listener.poses} <= recorded
    assert max(listener.errors_m()) < 0.01
    # simulated time: the recording is years old, and this is the delay of the node
    assert -200 < float(values["latency_stamp_p50_ms"]) < 1000
    # each pass shows two tables: the second mug is another one, and a new pass begins anew
    assert values["instances.mug"] in ("0", "1")
    assert values["failed"] == "0" and values["bad_input"] == "0"
    # a frame may be lost where the clock jumps, no more
    passes = jumps_back([ns for n, ns, _ in listener.poses if n == "mug"]) + 1
    assert sum(n == "mug" for n, _, _ in listener.poses) >= 6 * (passes - 1)


class Frames:
    """What replay publishes: name -> (moment of arrival, message)."""

    def __init__(self, namespace, **kinds):
        self.seen = {topic: [] for topic in kinds}
        node = rclpy.create_node("frames", namespace=namespace)
        for name, (kind, topic) in kinds.items():
            node.create_subscription(kind, topic, self._keep(name), MANY)
        self._spinner = Spinner(node)

    def _keep(self, name):
        return lambda message: self.seen[name].append((time.time_ns(), message))

    def stop(self):
        self._spinner.stop()


@pytest.mark.parametrize(
    ("options", "endings", "rate"),
    [(("--stamps", "now"), ("", ""), 1.0), (("--transport", "recorded"), None, 2.0)],
)
def test_replay_keeps_intervals_and_pairs(ros, tmp_path, options, endings, rate):
    kinds = {"info": (CameraInfo, "color/camera_info")}
    if endings is not None:
        kinds |= {"color": (Image, "color/image_raw"), "depth": (Image, "depth/image_raw")}
    else:
        kinds["color"] = CompressedImage, "color/image_raw/compressed"
        kinds["depth"] = CompressedImage, "depth/image_raw/compressedDepth"
    frames = Frames("/kept", **kinds)
    log = tmp_path / "replay.log"
    words = ("sample", "--rate", str(rate), *options, "--ros-args", "-r", "__ns:=/kept")
    begun_ns = time.time_ns()
    with command(log, "replay", *words) as process:
        wait_for(lambda: process.poll() is not None, "the end", log)
    frames.stop()
    assert process.returncode == 0, log.read_text()
    stamps = {
        topic: [stamp_to_ns(m.header.stamp) for _, m in seen] for topic, seen in frames.seen.items()
    }
    assert stamps["color"] == stamps["depth"] == stamps["info"] and len(stamps["color"]) == 8
    arrived = np.diff([ns for ns, _ in frames.seen["color"]]) / 1e9
    np.testing.assert_allclose(np.median(arrived), 0.2 / rate, atol=0.03)
    steps = np.diff(stamps["color"]) / 1e9
    if endings is not None:  # moved to now
        assert stamps["color"][0] > begun_ns
        np.testing.assert_allclose(np.median(steps), 0.2 / rate, atol=0.03)
    else:
        np.testing.assert_allclose(steps, 0.2)
        assert stamps["color"][0] == Bag(ROOT / SAMPLE).first(SAMPLE_INFO).time_ns
        assert frames.seen["depth"][0][1].format == "16UC1; compressedDepth png"


def test_the_rate_is_kept(ros, tmp_path):
    """25 images of VGA with depth a second: no message's own time adds up. Least squares: %."""
    rgb = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    path, log = tmp_path / "lab.mcap", tmp_path / "replay.log"
    with BagWriter(path) as bag:
        for t in range(10**18, 10**18 + 3 * 10**9, 40_000_000):
            bag.add("/color/camera_info", t, bag.make_camera_info(t, "f", np.eye(3), (640, 480)))
            for topic, encoding in (("/depth/image_raw", "16UC1"), ("/color/image_raw", "rgb8")):
                data = rgb[..., :2] if encoding == "16UC1" else rgb
                image = bag.make(
                    "sensor_msgs/msg/Image", t, "f", height=480, width=640, encoding=encoding,
                    is_bigendian=0, step=data.size // 480, data=data.ravel(),
                )  # fmt: skip
                bag.add(topic, t, image)
    frames = Frames("/rated", info=(CameraInfo, "color/camera_info"))
    words = (str(path), "--no-wait", "--delay", "1", "--ros-args", "-r", "__ns:=/rated")
    with command(log, "replay", *words) as process:
        wait_for(lambda: process.poll() is not None, "the end", log)
    frames.stop()
    assert process.returncode == 0, log.read_text()
    arrived_ns, infos = zip(*frames.seen["info"], strict=True)
    stamps_ns = np.array([stamp_to_ns(info.header.stamp) for info in infos])
    assert len(stamps_ns) > 60
    rate = np.polyfit(np.array(arrived_ns) - arrived_ns[0], stamps_ns - stamps_ns[0], 1)[0]
    assert abs(rate - 1) < 0.01, rate


@pytest.mark.parametrize("delay_s", [0.0, 0.8])
def test_the_first_frame_comes_after_the_delay(ros, delay_s):
    parser, published_s = argparse.ArgumentParser(), []
    add_arguments(parser)
    words = ["sample", "--no-wait", "--rate", "1000", "--stamps", "now", "--delay", str(delay_s)]
    args = parser.parse_args(words)
    recording = open_recording(ROOT / SAMPLE, Wanted(), True, ImageOptions())

    class Noted(Player):
        def _publish(self, item, restamp):
            published_s.append(time.monotonic())
            super()._publish(item, restamp)

    player, begun_s = Noted(recording, args), time.monotonic()
    player.run()
    player.destroy_node()
    assert delay_s <= published_s[0] - begun_s < delay_s + 3
    assert len(published_s) == recording.count


def test_a_folder_of_images_is_a_camera(listen, tmp_path):
    """Frames of the sample as files, named by their stamps: the node finds what is in them."""
    bag = Bag(ROOT / SAMPLE)
    frames = BagFrames(bag, choose_topics(bag, Wanted()), NodeConfig())
    stamps = []
    for name in ("rgb", "depth"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    for reference in frames.frames:
        frame = frames.load(reference)
        name = f"{frame.stamp_ns}.png"
        cv2.imwrite(str(tmp_path / "pictures" / "rgb" / name), frame.rgb[..., ::-1])
        depth_mm = np.rint(np.nan_to_num(frame.depth_m) * 1000).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "pictures" / "depth" / name), depth_mm)
        stamps.append(frame.stamp_ns)
    camera = ",".join(str(frame.K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    listener, log = listen("/files"), tmp_path / "replay.log"
    # the node may be slower to find the listener than the other way round: 3 s, no pose before
    words = (str(tmp_path / "pictures"), "--camera", camera, "--delay", "3")
    words += ("--ros-args", "-r", "__ns:=/files")
    with start_node(tmp_path, "/files"):
        wait_for(listener.hears_the_node, "discovery", tmp_path / "node_files.log")
        with command(log, "replay", *words) as process:
            logs = (tmp_path / "node_files.log", log)
            wait_for(lambda: process.poll() is not None, "the end", *logs)
            assert process.returncode == 0, log.read_text()
    mugs = [(ns, position) for name, ns, position in listener.poses if name == "mug"]
    assert {ns for ns, _ in mugs} <= set(stamps) and len(mugs) >= 6


def test_two_cameras_in_two_namespaces_do_not_mix(listen, tmp_path):
    namespaces = {"/left": 0, "/right": 3}
    topics = {
        "/camera/camera/color/image_raw": "color/image_raw",
        "/camera/camera/color/camera_info": "color/camera_info",
        "/camera/camera/aligned_depth_to_color/image_raw": "depth/image_raw",
    }
    with ExitStack() as stack:
        listeners = {n: listen(n, f"{n}/synthetic_camera/truth") for n in namespaces}
        logs = []
        for namespace, seed in namespaces.items():
            remap = [f"{a}:={namespace}/{b}" for a, b in topics.items()]
            arguments = [word for rule in remap for word in ("-r", rule)]
            # no frame before DDS has found the listener of its truth, which may take seconds
            for value in (f"seed:={seed}", "rate_hz:=4.0", "replay:=6", "wait_for_truth:=true"):
                arguments += ["-p", value]
            arguments += ["-r", f"__ns:={namespace}"]
            logs.append(tmp_path / f"camera_{namespace[1:]}.log")
            camera = Child(
                "camera", "heatnet_ros.ros.synthetic_camera", arguments, logs[-1], dict(os.environ)
            )
            stack.enter_context(camera)
            stack.enter_context(start_node(tmp_path, namespace))
            logs.append(tmp_path / f"node_{namespace[1:]}.log")
        wait_for(
            lambda: all(len(one.poses) >= 20 for one in listeners.values()), "poses of both", *logs
        )
    stamps = {n: {ns for _, ns, _ in one.poses} for n, one in listeners.items()}
    assert not stamps["/left"] & stamps["/right"]
    for namespace, one in listeners.items():
        # the truth of a frame comes after its images: the newest may be under way
        wait_for(
            lambda one=one, namespace=namespace: stamps[namespace] <= {ns for _, ns in one.truth},
            f"truth of the stamp of every pose in {namespace}", *logs,
        )  # fmt: skip
        # the scenes differ: a pose of the other camera would be decimetres away, or of no truth
        near = [
            np.linalg.norm(p - one.truth[name, ns]) < 0.02
            for name, ns, p in list(one.poses)
            if (name, ns) in one.truth
        ]
        assert np.mean(near) > 0.9 and len(near) >= 0.9 * len(one.poses)


def test_record_writes_what_the_camera_sends(bench, tmp_path):
    path, log = tmp_path / "lab.mcap", tmp_path / "record.log"
    words = (str(path), "--seconds", "1", "--ros-args", "-r", f"__ns:={bench.namespace}")
    own = bench.create_publisher(CameraInfo, "depth/camera_info")

    def of_both(message):
        own.publish(message)
        return message

    with command(log, "record", *words) as process:
        ended = lambda: process.poll() is not None  # noqa: E731
        bench.stream(ended, "the end of the recording", 40, 10, info=of_both)
    assert process.returncode == 0, log.read_text()
    bag = Bag(path)
    topics = choose_topics(bag, Wanted())
    assert topics.color == f"{bench.namespace}/color/image_raw"
    assert bag.topics[topics.depth_info] == "sensor_msgs/msg/CameraInfo"
    frames = BagFrames(bag, topics, NodeConfig())
    assert len(frames.frames) >= 5
    frame = frames.load(frames.frames[-1])
    np.testing.assert_array_equal(frame.rgb, bench.rgb)
    np.testing.assert_allclose(frame.depth_m, bench.depth_m, atol=6e-4)


def test_record_without_a_camera_says_so(bench, tmp_path):
    path = tmp_path / "a.mcap"
    with command(tmp_path / "log", "record", str(path), "--seconds", "0.3", "--ros-args", "-r",
                 f"__ns:={bench.namespace}") as process:  # fmt: skip
        bench.stream(lambda: process.poll() is not None, "the end", 40, 10, color=None)
    assert process.returncode == 1 and not path.exists()
    assert "recording needs colour images and their CameraInfo" in (tmp_path / "log").read_text()


def test_compressed_depth_over_dds(bench):
    bench.start(depth_transport="compressedDepth")
    text, data = encode_depth_mm((bench.depth_m * 1000).round().astype(np.uint16))
    compressed = CompressedImage(format=text, data=data)
    bench.stream_until_poses(depth=None, compressed_depth=compressed)
    assert not bench.errors()
    broken = CompressedImage(format=text, data=data[:-50])
    bench.stream(
        lambda: bench.errors(r"depth/image_raw/compressedDepth: expected 12 bytes of header"),
        "an error", depth=None, compressed_depth=broken,
    )  # fmt: skip
    bench.stream_until_poses(depth=None, compressed_depth=compressed)


def test_rectified_images_take_P(bench):
    """K and D are those of the raw image, which nobody sends here."""

    def rectify(info):
        info.p = [*info.k[:3], 0.0, *info.k[3:6], 0.0, *info.k[6:], 0.0]
        info.k = [value * (1.3 if i < 6 else 1.0) for i, value in enumerate(info.k)]
        info.d, info.distortion_model = [0.2, 0.1, 0.0, 0.0, 0.0], "plumb_bob"
        return info

    bench.start(rectified=True)
    bench.stream_until_poses(info=rectify)
    bench.wait_for(lambda: len(bench.poses) >= 3, "three poses")
    truth = [T[:3, 3] for _, T in bench.world.truth]
    for _, message in list(bench.poses):
        assert min(np.linalg.norm(_position(message) - t) for t in truth) < 1e-3


def test_a_loop_without_a_clock_is_stamped_now(listen, tmp_path):
    """Two passes: nothing jumps back, so neither log nor doctor has a fault to tell."""
    listener, log = listen("/endless"), tmp_path / "replay.log"
    words = ("sample", "--loop", "--rate", "2", "--ros-args", "-r", "__ns:=/endless")
    with start_node(tmp_path, "/endless"), command(log, "replay", *words):
        wait_for(
            lambda: len({ns for name, ns, _ in listener.poses if name == "mug"}) > 10,
            "two passes", tmp_path / "node_endless.log", log,
        )  # fmt: skip
    stamps = [ns for name, ns, _ in listener.poses if name == "mug"]
    assert jumps_back(stamps) == 0
    assert abs(time.time_ns() - stamps[-1]) < 30e9
    assert "[ERROR]" not in (tmp_path / "node_endless.log").read_text()
