"""A bench for the real node over DDS: a camera, a listener, and the node in an executor's thread.

The pipeline is the real one over engines that answer with the encoded truth (tests/fakes.py).
"""

from __future__ import annotations

import collections
import itertools
import re
import threading
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from fakes import LIBRARY, SIZE_HW, K, World, pose
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from heatnet_ros.ros.messages import array_to_image, ns_to_stamp, stamp_to_ns
from heatnet_ros.ros.node import PoseNode

FRAME = "camera_color_optical_frame"
ERROR = 40
STREAMS = {
    "color": (Image, "color/image_raw"),
    "compressed": (CompressedImage, "color/image_raw/compressed"),
    "depth": (Image, "depth/image_raw"),
    "compressed_depth": (CompressedImage, "depth/image_raw/compressedDepth"),
    "info": (CameraInfo, "color/camera_info"),
}
_numbers = itertools.count()
# two instances of one object and one of another
TRUTH = (
    ("wedge", pose(-0.15, 0.0, 0.8)),
    ("wedge", pose(0.15, 0.05, 0.9, (1.9, -0.3, 0.4))),
    ("brick", pose(0.0, -0.12, 0.7, (2.4, 0.2, -0.1))),
)


def build_loader(world: World, delay_s: float = 0.0, rgbd: bool = True):
    """A ``pipeline_loader`` whose estimator takes ``delay_s`` longer."""

    def load(config):
        pipeline = world.pipeline(config, rgbd)
        for stage in (pipeline._detector, pipeline._estimator):
            stage.engine.calls = collections.deque(maxlen=1)  # no test here looks at them
        answer = pipeline._estimator.engine.answer

        def slow(tensors):
            time.sleep(delay_s)
            return answer(tensors)

        pipeline._estimator.engine.answer = slow
        return pipeline

    return load


class Spinner:
    """Spins a node in a thread of its own."""

    def __init__(self, node):
        self.node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def stop(self):
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()


class Bench:
    """Camera and listener of one namespace. ``start`` adds the node, ``stop`` ends everything."""

    def __init__(self):
        self.namespace = f"/bench_{next(_numbers)}"
        self.use_world(World(*TRUTH))
        self.poses, self.covariances = [], []
        self.latencies_s = []  # image stamp to pose received
        self.markers, self.logs, self.diagnostics = [], [], {}
        self.node, self._clients = None, {}
        self._own = Spinner(rclpy.create_node("bench", namespace=self.namespace))
        self._listen()
        # early, so that the node has discovered it when it is used
        self._clients["change_state"] = self._own.node.create_client(
            ChangeState, "pose_node/change_state"
        )
        self._publishers = {}
        for stream in STREAMS:
            self.create_camera(stream)

    def use_world(self, world):
        """What the camera sees and, if the node starts afterwards, what its networks know."""
        frame = world.frame()
        self.world, self.rgb, self.depth_m = world, frame.rgb, frame.depth_m

    def create_camera(self, stream, qos=5):
        """Make (again) the publisher of a stream."""
        self._publishers[stream] = self._own.node.create_publisher(*STREAMS[stream], qos)

    def create_publisher(self, kind, topic):
        return self._own.node.create_publisher(kind, topic, 10)

    def destroy_camera(self, *streams):
        """Take publishers out of the graph, all of them if none is named."""
        for stream in streams or STREAMS:
            self._own.node.destroy_publisher(self._publishers.pop(stream))

    def _listen(self):
        node, many = self._own.node, QoSProfile(depth=200)
        for name in LIBRARY.objects:
            node.create_subscription(
                PoseStamped, f"pose_node/pose/{name}", self._keep_pose(name), many
            )
            node.create_subscription(
                PoseWithCovarianceStamped,
                f"pose_node/pose_with_covariance/{name}",
                self._keep(self.covariances, name),
                many,
            )
        node.create_subscription(MarkerArray, "pose_node/markers", self.markers.append, many)
        node.create_subscription(Log, "/rosout", self._on_log, many)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, many)

    @staticmethod
    def _keep(store, name):
        return lambda message: store.append((name, message))

    def _keep_pose(self, name):
        def keep(message):
            self.latencies_s.append((time.time_ns() - stamp_to_ns(message.header.stamp)) / 1e9)
            self.poses.append((name, message))

        return keep

    def _on_log(self, message):
        if message.name == f"{self.namespace[1:]}.pose_node":
            self.logs.append(message)

    def _on_diagnostics(self, message):
        for status in message.status:
            node, _, part = status.name.partition(": ")
            if f"/{node}" == f"{self.namespace}/pose_node":
                self.diagnostics[part] = status

    def start(self, loader=None, wait=True, remap=None, **parameters):
        """Start the node; ``a__b`` as a keyword is the parameter ``a.b``. remap: from -> to."""
        overrides = [
            Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()
        ]
        node = PoseNode(
            loader or build_loader(self.world),
            namespace=self.namespace,
            parameter_overrides=overrides,
            cli_args=[
                "--ros-args",
                *(w for a, b in (remap or {}).items() for w in ("-r", f"{a}:={b}")),
            ],
        )
        self.node = Spinner(node)
        if wait:
            self.wait_for(lambda: self.state() == "active", "the node is active")
            depth = "compressed_depth" if "depth_transport" in parameters else "depth"
            wanted = [depth, "info"] if node._configured.topics.depth else ["info"]
            wanted.append("compressed" if "color_transport" in parameters else "color")
            self.wait_for(
                lambda: all(self._publishers[w].get_subscription_count() for w in wanted),
                "the node's subscriptions are discovered",
            )
            self.wait_for(
                lambda: self._own.node.count_publishers("pose_node/markers"),
                "the node's publishers are discovered",
            )
        return node

    def stop(self):
        if self.node is not None:
            self.node.stop()
            self.node = None
        self._own.stop()

    def call(self, kind, name, request, timeout_s=20.0, retry_s=3.0):
        """Call a service of the node.

        DDS loses a reply when the node has not yet discovered this client: asked again.
        """
        if name not in self._clients:
            self._clients[name] = self._own.node.create_client(kind, f"pose_node/{name}")
        client = self._clients[name]
        assert client.wait_for_service(timeout_s), name
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            future, asked = client.call_async(request), time.monotonic()
            while not future.done() and time.monotonic() < min(deadline, asked + retry_s):
                time.sleep(0.005)
            if future.done():
                return future.result()
        raise AssertionError(f"Service {name} does not answer. {self.said()}")

    def change_state(self, transition):
        """Ask for a lifecycle transition by its label; returns success."""
        request = ChangeState.Request(transition=Transition(label=transition))
        # not asked twice: the second transition would fail
        return self.call(ChangeState, "change_state", request, retry_s=20.0).success

    def set_parameter(self, name, value):
        """Set a parameter through the node's service; returns the SetParametersResult."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, "set_parameters", request).results[0]

    def state(self):
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def messages(self, stamp_ns, **changes):
        """One frame of the camera. ``changes``: stream -> message, function of it, or None."""
        header = Header(stamp=ns_to_stamp(stamp_ns), frame_id=FRAME)
        info = CameraInfo(width=SIZE_HW[1], height=SIZE_HW[0], k=K.ravel().tolist())
        out = {
            "info": info,
            "depth": array_to_image((self.depth_m * 1000).round().astype("uint16"), "16UC1"),
            "color": array_to_image(self.rgb, "rgb8"),
        }
        for message in out.values():
            message.header = header
        for stream, change in changes.items():
            out[stream] = change(out.get(stream)) if callable(change) else change
            if out[stream] is not None and not (callable(change) and out[stream].header.frame_id):
                out[stream].header = header
        return {stream: message for stream, message in out.items() if message is not None}

    def publish(self, stamp_ns=None, **changes):
        stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
        for stream, message in self.messages(stamp_ns, **changes).items():
            self._publishers[stream].publish(message)
        return stamp_ns

    def stream(self, until, what, timeout_s=20.0, rate_hz=30.0, stamps=None, **changes):
        """Publish frames until ``until()`` is true; fails after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, f"{what} did not happen. {self.said()}"
            self.publish(next(stamps) if stamps else None, **changes)
            time.sleep(1 / rate_hz)

    def stream_for(self, seconds, **changes):
        end = time.monotonic() + seconds
        self.stream(lambda: time.monotonic() > end, "the end", seconds + 5, **changes)

    def stream_until_poses(self, **changes):
        """Forget what came, publish good frames until poses come again."""
        del self.poses[:]
        self.stream(lambda: self.poses, "a pose", **changes)

    def wait_for(self, condition, what, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"Waited in vain: {what}. {self.said()}"
            time.sleep(0.01)

    def errors(self, pattern=""):
        """Error messages in the log that match."""
        found = [log.msg for log in list(self.logs) if log.level >= ERROR]
        return [message for message in found if re.search(pattern, message)]

    def values(self):
        """All values of the newest diagnostics."""
        return {v.key: v.value for status in list(self.diagnostics.values()) for v in status.values}

    def said(self):
        return f"Log: {[log.msg for log in self.logs]}, diagnostics: {self.values()}"
