"""The camera of ``chaos.py``: recorded frames from a file, with faults commanded over a pipe.

    python tests/bench/chaos_camera.py FILM.npz RATE_HZ

A line of standard input is a JSON object: fields of ``State`` that change, or ``{"reset": true}``
for good data again. After a reset the first good frame that has a reader of each of its messages is
answered with a line ``{"good_s": monotonic seconds, "stamp_ns": its stamp, "unheard_s": seconds
since the first good frame}``.

The nanoseconds below a microsecond of a stamp are the frame's number in the film, so that a pose
names its truth whatever was done to the clock; ``DAMAGED`` is the number of a damaged frame.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.messages import array_to_image, ns_to_stamp
from heatnet_ros.ros.synthetic_camera import TOPICS, use_large_frames_profile

DAMAGED = 999
QOS = {
    "reliable": QoSProfile(depth=5),
    "best_effort": QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT),
    "transient_local": QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL),
}
_CONVERSIONS = {
    "bgr8": cv2.COLOR_RGB2BGR,
    "rgba8": cv2.COLOR_RGB2RGBA,
    "mono8": cv2.COLOR_RGB2GRAY,
}


@dataclass(frozen=True)
class State:
    """What is published; the defaults are good data.

    stamps: now, zero, or freeze. offset_s moves all stamps, depth_offset_s those of depth. qos: key
    of ``QOS``. scale: of the resolution; depth_scale: of depth beside it. damaged: every other
    frame's data are cut. sim_s: stamps and /clock count from here; None: the wall's time.
    """

    color: bool = True
    depth: bool = True
    info: bool = True
    stamps: str = "now"
    offset_s: float = 0.0
    depth_offset_s: float = 0.0
    qos: str = "reliable"
    color_encoding: str = "rgb8"
    depth_encoding: str = "16UC1"
    scale: float = 1.0
    depth_scale: float = 1.0
    damaged: bool = False
    sim_s: float | None = None


class Camera:
    """Publishes the film until its standard input ends."""

    def __init__(self, film: Path, rate_hz: float) -> None:
        with np.load(film) as content:
            self._rgb, self._depth_mm, self._K = (content[k] for k in ("rgb", "depth_mm", "K"))
        self._rate_hz, self._state, self._wanted = rate_hz, State(), State()
        self._asked = False  # for an answer with the first good frame
        self._lock = threading.Lock()
        self._node = rclpy.create_node("chaos_camera")
        self._clock = self._node.create_publisher(Clock, "/clock", 10)
        self._topics = {"color": (Image, TOPICS.color), "depth": (Image, TOPICS.depth)}
        self._topics["info"] = (CameraInfo, TOPICS.camera_info)
        self._publishers: dict[str, Any] = {}
        self._sim_since_s = 0.0
        self._frozen_ns = 0
        self._set_qos("reliable")

    def run(self) -> None:
        """Publish on the tick, take commands between frames."""
        threading.Thread(target=self._listen, daemon=True).start()
        number, tick_s, first_s = 0, time.monotonic(), None
        while rclpy.ok():
            if self._obey():
                first_s = time.monotonic()
            heard = all(p.get_subscription_count() for p in self._publishers.values())
            stamp_ns = self._publish(number % len(self._rgb))
            if first_s is not None and heard:
                good_s = time.monotonic()
                answer = {"good_s": good_s, "stamp_ns": stamp_ns, "unheard_s": good_s - first_s}
                print(json.dumps(answer), flush=True)
                first_s = None
            number += 1
            tick_s = max(tick_s + 1 / self._rate_hz, time.monotonic())
            time.sleep(max(tick_s - time.monotonic(), 0.0))

    def _listen(self) -> None:
        for line in sys.stdin:
            change = json.loads(line)
            with self._lock:
                if change.get("reset"):
                    self._wanted, self._asked = State(), True
                else:
                    self._wanted = replace(self._wanted, **change)
        os._exit(0)  # nobody is there any more

    def _obey(self) -> bool:
        """Take the wanted state; whether somebody waits to hear of it."""
        with self._lock:
            before, self._state = self._state, self._wanted
            asked, self._asked = self._asked, False
        if self._state.qos != before.qos:
            self._set_qos(self._state.qos)
        if self._state.sim_s != before.sim_s:
            self._sim_since_s = time.monotonic()
        if self._state.stamps != before.stamps:
            self._frozen_ns = time.time_ns() // 1000 * 1000
        return asked

    def _set_qos(self, name: str) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {
            stream: self._node.create_publisher(kind, topic, QOS[name])
            for stream, (kind, topic) in self._topics.items()
        }

    def _now_ns(self) -> int:
        state = self._state
        if state.stamps == "zero":
            return 0
        if state.stamps == "freeze":
            return self._frozen_ns
        now_ns = time.time_ns()
        if state.sim_s is not None:
            now_ns = int((state.sim_s + time.monotonic() - self._sim_since_s) * 1e9)
            self._clock.publish(Clock(clock=ns_to_stamp(now_ns)))
        return now_ns + int(state.offset_s * 1e9)

    def _publish(self, index: int) -> int:
        state = self._state
        damaged = state.damaged and bool(index % 2)
        # a frozen stamp stays the same whatever is seen
        number = DAMAGED if damaged else 0 if state.stamps == "freeze" else index
        stamp_ns = self._now_ns() // 1000 * 1000 + number
        color, depth, info = self._draw(index)
        for message, shift_s in ((color, 0.0), (depth, state.depth_offset_s), (info, 0.0)):
            stamp = ns_to_stamp(stamp_ns + int(shift_s * 1e9))
            message.header = Header(stamp=stamp, frame_id=SYNTHETIC.frame_id)
        if damaged:
            color.data = color.data[:-100]
        for stream, message in (("info", info), ("depth", depth), ("color", color)):
            if getattr(state, stream):
                self._publishers[stream].publish(message)
        return stamp_ns

    def _draw(self, index: int) -> tuple[Image, Image, CameraInfo]:
        state, rgb, depth = self._state, self._rgb[index], self._depth_mm[index]
        K = self._K.copy()
        if state.scale != 1:
            rgb = _resize(rgb, state.scale)
            K[:2] *= state.scale
            K[:2, 2] += 0.5 * state.scale - 0.5
        if state.scale * state.depth_scale != 1:
            depth = _resize(depth, state.scale * state.depth_scale)
        if state.color_encoding != "rgb8":
            rgb = cv2.cvtColor(rgb, _CONVERSIONS[state.color_encoding])
        if state.depth_encoding == "32FC1":
            depth = depth.astype(np.float32) * np.float32(1e-3)
        info = CameraInfo(width=rgb.shape[1], height=rgb.shape[0], k=K.ravel().tolist())
        color = array_to_image(rgb, state.color_encoding)
        return color, array_to_image(depth, state.depth_encoding), info


def _resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)


def main() -> int:
    use_large_frames_profile()
    rclpy.init(args=[])
    try:
        Camera(Path(sys.argv[1]), float(sys.argv[2])).run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
