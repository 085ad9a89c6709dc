"""``synthetic_camera``: what a RealSense would publish, drawn live, and the true poses beside it.

Topics: ``/camera/camera/color/image_raw`` (rgb8) and
``/camera/camera/aligned_depth_to_color/image_raw`` (16UC1, millimetres), each with its
``camera_info`` beside it, all in the frame ``camera_color_optical_frame``; ``~/truth/<object>``
(PoseStamped, of the objects of which at least a tenth can be seen); ``/diagnostics`` (frames
published).

A frame is drawn first and stamped right before it is published, so that the latency measured
against the stamp is that of transport and node, not that of the drawing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from heatnet_ros.config import option
from heatnet_ros.errors import HeatnetError
from heatnet_ros.objects import load_objects
from heatnet_ros.rendering.demo_camera import SIZE_WH, K
from heatnet_ros.rendering.orbit import Film, FilmFrame
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.markers import pose_to_message
from heatnet_ros.ros.messages import array_to_image
from heatnet_ros.ros.publishers import topic_names
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.tool_nodes import declare_options, use_large_frames_profile

TOPICS = Topics(*SYNTHETIC.topics().values())
# subscriptions of one node are found one after the other
_SETTLE_S = 0.5
_LINGER_S = 1.0


@dataclass(frozen=True)
class CameraConfig:
    """Parameters of ``synthetic_camera``."""

    objects_file: str = option("config/objects/demo.yaml", "The object library to draw")
    rate_hz: float = option(10.0, "Frames per second", low=0.1, high=240.0)
    frames: int = option(0, "End after this many frames; 0 never ends", low=0, high=10_000_000)
    seed: int = option(0, "Scenes, noise and holes follow from it", low=0, high=2**31 - 1)
    objects_per_scene: int = option(3, "Known objects on the table", low=1, high=20)
    frames_per_scene: int = option(
        40, "After so many frames the table is laid anew", low=1, high=10**6
    )
    replay: int = option(
        0,
        "Draw so many frames beforehand and publish them to and fro, for rates faster than this "
        "machine draws; 0 draws live",
        low=0,
        high=1000,
    )
    noise: bool = option(True, "Sensor noise, exposure and holes in the depth")
    wait_for_truth: bool = option(
        False, "Begin only when somebody subscribes to the true poses too (the monitor)"
    )


class SyntheticCamera(Node):  # type: ignore[misc]
    """Publishes the film; ``run`` returns after the last frame or at shutdown."""

    def __init__(self) -> None:
        super().__init__("synthetic_camera")
        self.config = declare_options(self, CameraConfig)
        self._library = load_objects(find_resource(self.config.objects_file, "Object library"))
        # reliable, as a RealSense is by default: it matches every subscriber
        qos = QoSProfile(depth=5)
        self._color = self.create_publisher(Image, TOPICS.color, qos)
        self._depth = self.create_publisher(Image, str(TOPICS.depth), qos)
        self._info = self.create_publisher(CameraInfo, TOPICS.camera_info, qos)
        # RViz's depth cloud and depth_image_proc look for it there
        self._depth_info = self.create_publisher(CameraInfo, str(TOPICS.depth_info), qos)
        names = topic_names(list(self._library.objects))
        self._truth = {
            name: self.create_publisher(PoseStamped, f"~/truth/{token}", QoSProfile(depth=50))
            for name, token in names.items()
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._camera_info = _build_camera_info()
        self.published = 0

    def run(self) -> None:
        """Draw, wait for the tick, publish; raises EngineError where nothing can be drawn."""
        config = self.config
        with Film(
            self._library, SIZE_WH, K,
            seed=config.seed,
            rate_hz=config.rate_hz,
            objects_per_scene=config.objects_per_scene,
            frames_per_scene=config.frames_per_scene,
            noise=config.noise,
        ) as film:  # fmt: skip
            drawn = [film.render(i) for i in range(config.replay)]

            drawn += drawn[-2:0:-1]  # to and fro: the camera never jumps

            def draw(index: int) -> FilmFrame:
                return drawn[index % len(drawn)] if drawn else film.render(index)

            frame = draw(0)
            self._wait_for_subscribers()
            tick_s = time.monotonic()
            while self.context.ok():
                self._spin_until(tick_s)
                self._publish(frame)
                if self.published == config.frames:
                    break
                frame = draw(self.published)
                # a frame drawn too late moves the ticks behind it: frames never come in bursts
                tick_s = max(tick_s + 1 / config.rate_hz, time.monotonic())
        self.get_logger().info(f"Published {self.published} frames.")
        # a writer that goes takes with it what readers have not fetched yet
        self._spin_until(time.monotonic() + _LINGER_S)

    def _wait_for_subscribers(self) -> None:
        wanted: list[Publisher] = [self._color, self._info]
        if self.config.wait_for_truth:
            wanted += self._truth.values()
        said_s = time.monotonic()
        while self.context.ok():
            missing = [p.topic_name for p in wanted if not p.get_subscription_count()]
            if not missing:
                break
            if time.monotonic() - said_s > 5.0:
                self.get_logger().info(f"Waiting for a subscriber of {', '.join(missing)}.")
                said_s = time.monotonic()
            self._spin_until(time.monotonic() + 0.05)
        self._spin_until(time.monotonic() + _SETTLE_S)

    def _spin_until(self, deadline_s: float) -> None:
        """Serve parameters and the like; at least once, so that a late camera still answers."""
        while self.context.ok():
            left_s = deadline_s - time.monotonic()
            self._executor.spin_once(timeout_sec=max(left_s, 0.0))
            if left_s <= 0:
                break

    def _publish(self, frame: FilmFrame) -> None:
        color = array_to_image(frame.rgb, "rgb8")
        depth = array_to_image(np.rint(frame.depth_m * 1000).astype(np.uint16), "16UC1")
        poses = {name: PoseStamped(pose=pose_to_message(T)) for name, T in frame.poses_true.items()}
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=SYNTHETIC.frame_id)
        for message in (color, depth, self._camera_info, *poses.values()):
            message.header = header
        self._info.publish(self._camera_info)
        self._depth_info.publish(self._camera_info)
        self._depth.publish(depth)
        self._color.publish(color)
        for name, pose in poses.items():
            self._truth[name].publish(pose)
        self.published += 1
        self._report(header)

    def _report(self, header: Header) -> None:
        values = [KeyValue(key="published", value=str(self.published))]
        status = DiagnosticStatus(name=f"{self.get_name()}: output", values=values)
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status]))


def _build_camera_info() -> CameraInfo:
    info = CameraInfo(width=SIZE_WH[0], height=SIZE_WH[1], distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = K.ravel().tolist()
    info.r = np.eye(3).ravel().tolist()
    info.p = np.hstack([K, np.zeros((3, 1))]).ravel().tolist()
    return info


def main(args: list[str] | None = None) -> int:
    """Entry point of ``ros2 run heatnet_ros synthetic_camera``."""
    use_large_frames_profile()
    purpose = "a rendered RealSense with the true poses beside it"
    start_ros("synthetic_camera", purpose, args, CameraConfig)
    try:
        SyntheticCamera().run()
    except HeatnetError as error:
        rclpy.logging.get_logger("synthetic_camera").fatal(str(error))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0
