"""The node ``replay``: publishes a recording at its own pace, or faster, or slower."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

from heatnet_ros.bags.choice import Wanted
from heatnet_ros.ros.messages import ns_to_stamp, stamp_to_ns
from heatnet_ros.ros.recordings import INFO, ImageOptions, Item, Recording, open_recording
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.status_line import StatusLine
from heatnet_ros.ros.tool_nodes import use_large_frames_profile

# a writer that goes takes with it what readers have not fetched yet
_LINGER_S = 1.0
_CLOCK_PERIOD_S = 0.02
# images are decoded ahead, but not when the next message is due sooner than this
_DECODE_S = 0.03
_AHEAD = 8
# stamps nearer than this are of one frame: they keep their distance when they are moved
_FRAME_NS = 20_000_000


class Pace:
    """Recorded time <-> this process's time, for one pass through a recording.

    A message that is published too late moves those behind it: they never come in bursts. The
    recording's clock waits meanwhile. With ``now_s`` infinite it stands at the beginning.
    """

    def __init__(self, first_ns: int, rate: float, now_s: float) -> None:
        self._first_ns, self._rate, self._start_s = first_ns, rate, now_s
        self._shown_ns = first_ns

    def due_s(self, time_ns: int) -> float:
        """When (monotonic) what was recorded at ``time_ns`` is due."""
        return self._start_s + (time_ns - self._first_ns) / 1e9 / self._rate

    def recorded_ns(self, now_s: float) -> int:
        """What the recording's clock shows at a moment (monotonic): it never steps back."""
        passed_s = max(now_s - self._start_s, 0.0)
        self._shown_ns = max(self._shown_ns, self._first_ns + round(passed_s * self._rate * 1e9))
        return self._shown_ns

    def delay(self, late_s: float) -> None:
        """Everything that follows comes so much later."""
        self._start_s += late_s


class Restamp:
    """Moves the stamps of a frame to now, all of them by the same amount."""

    def __init__(self) -> None:
        self._from_ns: int | None = None
        self._offset_ns = 0

    def move(self, stamp_ns: int, now_ns: int) -> int:
        """The new stamp of what is published at ``now_ns`` (the system's clock)."""
        if self._from_ns is None or abs(stamp_ns - self._from_ns) > _FRAME_NS:
            self._from_ns, self._offset_ns = stamp_ns, now_ns - stamp_ns
        return stamp_ns + self._offset_ns


class Player(Node):  # type: ignore[misc]
    """Publishes a recording; ``run`` returns after its end or at shutdown."""

    def __init__(self, recording: Recording, args: argparse.Namespace) -> None:
        super().__init__("replay")
        self._recording, self._args = recording, args
        # reliable, as most cameras are by default: it matches every subscriber
        self._outputs = {
            topic: self.create_publisher(kind, topic, QoSProfile(depth=10))
            for topic, kind in recording.topics.items()
        }
        self._clock_output = self.create_publisher(Clock, "/clock", 10) if args.clock else None
        self._clock_s = 0.0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._status = StatusLine(sys.stderr)
        # the clock stands at the beginning: a node that asks for the time gets one
        self._pace = Pace(recording.span_ns[0], args.rate, math.inf)

    def run(self) -> None:
        """Wait for a subscriber, publish, begin again if asked to. Raises DataError."""
        with self._status:
            if not self._args.no_wait:
                self._wait_for_subscribers()
            if self._args.delay:
                self._status.show(f"beginning in {self._args.delay:g} s (--delay)")
            self._spin_until(time.monotonic() + self._args.delay)
            passes = 0
            while self.context.ok():
                passes += 1
                self._play(passes)
                if not self._args.loop:
                    break
        self._spin_until(time.monotonic() + _LINGER_S)

    def _wait_for_subscribers(self) -> None:
        color = next(topic for topic in self._outputs if topic.startswith("color/image_raw"))
        while self.context.ok():
            missing = [
                self._outputs[topic].topic_name
                for topic in (color, INFO)
                if not self._outputs[topic].get_subscription_count()
            ]
            if not missing:
                break
            self._status.show(f"waiting for a subscriber of {', '.join(missing)} (--no-wait)")
            self._spin_until(time.monotonic() + 0.05)

    def _play(self, passes: int) -> None:
        recording = self._recording
        first_ns, last_ns = recording.span_ns
        self._pace = Pace(first_ns, self._args.rate, time.monotonic())
        restamp = Restamp()
        items, waiting, sent = recording.read(), deque[Item](), 0
        while self.context.ok():
            left_s = self._pace.due_s(waiting[0].time_ns) - time.monotonic() if waiting else 1.0
            if len(waiting) < _AHEAD and left_s > _DECODE_S:
                item = next(items, None)
                if item is not None:
                    waiting.append(item)
                    continue
            if not waiting:
                break
            item = waiting.popleft()
            self._spin_until(self._pace.due_s(item.time_ns))
            self._publish(item, restamp)
            sent += 1
            self._status.show_bar(
                sent / recording.count,
                f"{sent}/{recording.count} messages, {(item.time_ns - first_ns) / 1e9:.1f} of "
                f"{(last_ns - first_ns) / 1e9:.1f} s"
                + (f", pass {passes}" if self._args.loop else ""),
            )
        # the last frame has its time, too
        period_ns = (last_ns - first_ns) // max(recording.frames - 1, 1)
        self._spin_until(self._pace.due_s(last_ns + period_ns))
        if recording.faults:
            self.get_logger().warning(
                f"{len(recording.faults)} of {recording.count} messages left out, which cannot be "
                f"decoded. The first: {recording.faults[0]}"
            )

    def _publish(self, item: Item, restamp: Restamp) -> None:
        if not self.context.ok():
            return
        now_s = time.monotonic()
        self._pace.delay(max(now_s - self._pace.due_s(item.time_ns), 0.0))
        if self._args.stamps == "now":
            header = item.message.header
            moved_ns = restamp.move(stamp_to_ns(header.stamp), time.time_ns())
            header.stamp = ns_to_stamp(moved_ns)
        self._tick(now_s)
        self._outputs[item.topic].publish(item.message)

    def _spin_until(self, deadline_s: float) -> None:
        """Serve parameters and the like, and keep the clock going."""
        while self.context.ok():
            now_s = time.monotonic()
            if now_s - self._clock_s >= _CLOCK_PERIOD_S:
                self._tick(now_s)
            left_s = deadline_s - now_s
            slice_s = min(left_s, _CLOCK_PERIOD_S) if self._clock_output else left_s
            self._executor.spin_once(timeout_sec=max(slice_s, 0.0))
            if left_s <= 0:
                break

    def _tick(self, now_s: float) -> None:
        if self._clock_output is None:
            return
        self._clock_s = now_s
        recorded = self._args.stamps == "recorded"
        now_ns = self._pace.recorded_ns(now_s) if recorded else time.time_ns()
        self._clock_output.publish(Clock(clock=ns_to_stamp(now_ns)))


def play(path: Path, args: argparse.Namespace) -> None:
    """Open a recording and publish it, as ``replay``'s options say. Raises HeatnetError."""
    wanted = Wanted(args.color_topic, args.info_topic, args.depth_topic)
    images = ImageOptions(args.camera, args.depth_scale, args.fps)
    recording = open_recording(path, wanted, args.transport == "raw", images)
    use_large_frames_profile()
    start_ros("replay", "publishes a recording", ["--ros-args", *args.ros_args])
    try:
        Player(recording, args).run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
