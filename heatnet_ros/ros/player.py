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
from heatnet_ros.ros.recordings import (
    COLOR,
    DEPTH,
    INFO,
    ImageOptions,
    Item,
    Recording,
    open_recording,
)
from heatnet_ros.ros.start import start_ros
from heatnet_ros.ros.status_line import StatusLine
from heatnet_ros.ros.tool_nodes import use_large_frames_profile

# a writer that goes takes with it what readers have not fetched yet
_LINGER_S = 1.0
_CLOCK_PERIOD_S = 0.02
# images are decoded ahead, but not when the next message is due sooner than this
_DECODE_S = 0.03
_AHEAD = 8
# stamps nearer than this, or than half the time between two frames, are of one frame
_FRAME_NS = 20_000_000
# what is later than this, or than a frame, is not caught up with
_PATIENCE_S = 0.1
_FRAMES_KEPT = 16
_DELAYS_KEPT, _ALWAYS_NS = 8, -(2**63)
# no camera's images come so long after their stamps, or before
_ASTRAY_NS = 1_000_000_000


class Pace:
    """Recorded time <-> this process's time, for one pass through a recording.

    What is late by less than ``patience_s`` is caught up with, so that the rate is kept. More than
    that moves everything behind it: messages never come in long bursts, and the recording's clock
    waits meanwhile. With ``now_s`` infinite it stands at the beginning.
    """

    def __init__(self, first_ns: int, rate: float, now_s: float, patience_s: float = 0.0) -> None:
        self._first_ns, self._rate, self._start_s = first_ns, rate, now_s
        self._patience_s = patience_s
        self._shown_ns = first_ns
        self.delayed_s = 0.0  # in all

    def due_s(self, time_ns: int) -> float:
        """When (monotonic) what was recorded at ``time_ns`` is due."""
        return self._start_s + (time_ns - self._first_ns) / 1e9 / self._rate

    def recorded_ns(self, now_s: float) -> int:
        """What the recording's clock shows at a moment (monotonic): it never steps back."""
        passed_s = max(now_s - self._start_s, 0.0)
        self._shown_ns = max(self._shown_ns, self._first_ns + round(passed_s * self._rate * 1e9))
        return self._shown_ns

    def note_lateness(self, late_s: float) -> None:
        """A message is published so much later than it was due."""
        if late_s > self._patience_s:
            self._start_s += late_s
            self.delayed_s += late_s


class Restamp:
    """Moves the stamps of one pass to now, keeping their intervals, stretched as the rate says.

    Every stamp is moved by the same rule, whenever its message comes: colour and depth images of
    one moment stay of one moment. Delays of the pace count from the next frame on. frame_ns:
    stamps nearer than this are of one frame.
    """

    def __init__(self, rate: float, frame_ns: int) -> None:
        self._rate, self._frame_ns = rate, frame_ns
        self._anchor: tuple[int, int] | None = None  # a stamp and the time that it became
        self._newest_ns = 0
        self._frames: deque[int] = deque(maxlen=_FRAMES_KEPT)  # their first stamps
        # from which stamp on which delay counts
        self._delays: deque[tuple[int, int]] = deque(maxlen=_DELAYS_KEPT)

    def move(self, stamp_ns: int, now_ns: int, delayed_s: float, is_image: bool = True) -> int:
        """The new stamp of what is published at ``now_ns`` (the system's clock).

        delayed_s: ``Pace.delayed_s``. Stamps of images that jump are taken for another clock's;
        of other messages (a CameraInfo that nobody stamped) they become now.
        """
        delayed_ns = round(delayed_s * 1e9)
        if self._anchor is None:
            self._begin(stamp_ns, now_ns, delayed_ns)
        self._note_delay(delayed_ns)
        waits_ns = delayed_ns - self._delay_of(self._frame_of(stamp_ns))  # counts later
        if abs(self._map(stamp_ns) + waits_ns - now_ns) > _ASTRAY_NS:
            if not is_image:
                return now_ns
            self._begin(stamp_ns, now_ns, delayed_ns)
        self._newest_ns = max(self._newest_ns, stamp_ns)
        return self._map(stamp_ns)

    def _begin(self, stamp_ns: int, now_ns: int, delayed_ns: int) -> None:
        self._anchor, self._newest_ns = (stamp_ns, now_ns - delayed_ns), stamp_ns
        self._frames.clear()
        self._delays.clear()
        self._delays.append((_ALWAYS_NS, delayed_ns))

    def _note_delay(self, delayed_ns: int) -> None:
        since_ns, known_ns = self._delays[-1]
        if delayed_ns == known_ns:
            return
        if since_ns > self._newest_ns:  # no frame has it yet
            self._delays[-1] = since_ns, delayed_ns
        else:
            self._delays.append((self._newest_ns + self._frame_ns, delayed_ns))

    def _map(self, stamp_ns: int) -> int:
        assert self._anchor is not None
        from_ns, to_ns = self._anchor
        frame_ns = self._frame_of(stamp_ns)
        moved_ns = to_ns + round((frame_ns - from_ns) / self._rate) + self._delay_of(frame_ns)
        return moved_ns + stamp_ns - frame_ns  # within a frame nothing is stretched

    def _delay_of(self, frame_ns: int) -> int:
        delays = [delay for since, delay in self._delays if since <= frame_ns]
        return delays[-1] if delays else self._delays[0][1]

    def _frame_of(self, stamp_ns: int) -> int:
        """The first stamp of the frame that this one belongs to."""
        for first_ns in self._frames:
            if abs(stamp_ns - first_ns) <= self._frame_ns:
                return first_ns
        self._frames.append(stamp_ns)
        return stamp_ns


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
        rate, period_ns = self._args.rate, (last_ns - first_ns) // max(recording.frames - 1, 1)
        patience_s = min(period_ns / 1e9 / rate, _PATIENCE_S)
        self._pace = Pace(first_ns, rate, time.monotonic(), patience_s)
        restamp = Restamp(rate, min(period_ns // 2, _FRAME_NS))
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
        self._pace.note_lateness(now_s - self._pace.due_s(item.time_ns))
        if self._args.stamps == "now":
            header = item.message.header
            stamp_ns = stamp_to_ns(header.stamp)
            is_image = item.topic.startswith((COLOR, DEPTH))
            moved_ns = restamp.move(stamp_ns, time.time_ns(), self._pace.delayed_s, is_image)
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
    except RuntimeError:  # RCLError
        # rclpy's signal handler may end the context at any moment, as in publishing
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()
