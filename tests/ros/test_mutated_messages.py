"""Mutated messages over DDS, to a node in a process of its own with networks from files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import model_files
import numpy as np
import pytest
import rclpy
from bench import FRAME, STREAMS, Spinner
from child_environment import child_environment
from fakes import SIZE_HW, K, World
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from heatnet_ros.ros.messages import ns_to_stamp, stamp_to_ns

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "bench"))
import mutations  # noqa: E402

NODE = "from heatnet_ros.ros.pose_node import main; main()"
COUNT, SERIALIZED = 300, 150


class Desk:
    """The node as a process, a camera and a listener here."""

    def __init__(self, folder):
        self.log = folder / "node.log"
        parameters = model_files.write_files(folder)
        words = [w for k, v in parameters.items() for w in ("-p", f"{k}:={v}")]
        words += ["-r", f"__ns:=/mutated_{os.getpid()}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NODE, "--ros-args", *words],
                cwd=ROOT, stdout=log, stderr=log, env=child_environment(),
            )  # fmt: skip
        self.own = Spinner(rclpy.create_node("mutator", namespace=f"/mutated_{os.getpid()}"))
        self.publishers = {
            stream: self.own.node.create_publisher(*STREAMS[stream], 5)
            for stream in ("color", "depth", "info")
        }
        self.stamps = []
        for name in model_files.OBJECTS:
            self.own.node.create_subscription(
                PoseStamped, f"pose_node/pose/{name}",
                lambda m: self.stamps.append(stamp_to_ns(m.header.stamp)), QoSProfile(depth=500),
            )  # fmt: skip
        frame = World(*model_files.TRUTH).frame()
        colors = mutations.build_colors(frame.rgb)
        # what the fake networks read from its colours: in these it stays what it is
        self.colors = [colors[name] for name in ("rgb8", "bgr8", "rgba8", "bgra8")]
        depths = mutations.build_depths(frame.depth_m * 1000).values()
        self.depths = [m for m in depths if isinstance(m, Image)]  # this node takes raw depth
        self.info = mutations.build_info(K, SIZE_HW[::-1])
        self.rng = np.random.default_rng(0)

    def stop(self):
        self.own.stop()
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()

    def build(self):
        messages = {
            "info": mutations.copy(self.info),
            "color": mutations.copy(mutations.pick(self.rng, self.colors)),
            "depth": mutations.copy(mutations.pick(self.rng, self.depths)),
        }
        stamp_ns = time.time_ns()
        for message in messages.values():
            message.header.frame_id, message.header.stamp = FRAME, ns_to_stamp(stamp_ns)
        return messages, stamp_ns

    def publish(self, messages):
        for stream, message in messages.items():
            self.publishers[stream].publish(message)
            time.sleep(0.005)

    def stream_until_poses(self, limit_s=30.0):
        deadline, good = time.monotonic() + limit_s, set()
        while not good & set(self.stamps):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            messages, stamp_ns = self.build()
            good.add(stamp_ns)
            self.publish(messages)
            time.sleep(0.03)


@pytest.fixture
def desk(ros, tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.stop()


def test_no_pose_from_a_damaged_frame(desk):
    desk.stream_until_poses()
    bad = set()
    for number in range(COUNT):
        messages, stamp_ns = desk.build()
        stream = mutations.pick(desk.rng, list(messages))
        mutation = mutations.pick(desk.rng, mutations.BY_STREAM[stream])
        if mutation(desk.rng, messages[stream]):
            bad.add(stamp_ns)
        desk.publish(messages)
        time.sleep(0.03)  # the next CameraInfo must not overtake these images
        if number % 50 == 49:
            desk.stream_until_poses()
    desk.stream_until_poses()
    assert len(bad) > COUNT / 2 and not bad & set(desk.stamps)
    assert desk.stop() == 0, desk.log.read_text()[-3000:]
    assert "Traceback" not in desk.log.read_text()


def test_bytes_that_are_no_message(desk):
    """Damaged before it is a message: the middleware and rclpy meet it first."""
    desk.stream_until_poses()
    for _ in range(SERIALIZED):
        messages, _ = desk.build()
        stream = mutations.pick(desk.rng, list(messages))
        data = bytearray(serialize_message(messages[stream]))
        # lengths and strings are in the first bytes
        for at in desk.rng.integers(0, min(len(data), 120), 4):
            data[at] ^= int(desk.rng.integers(1, 256))
        messages[stream] = bytes(data[: desk.rng.choice([len(data), 0, 3, 40, len(data) // 2])])
        desk.publish(messages)
    desk.stream_until_poses()
    assert desk.stop() == 0, desk.log.read_text()[-3000:]
    assert "Traceback" not in desk.log.read_text()
