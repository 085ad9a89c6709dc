"""From subscription callbacks to the mailbox: pairs colour with depth, notices what is missing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from heatnet_ros.checks import inputs
from heatnet_ros.checks.timeline import Timeline, measure_offsets
from heatnet_ros.ros.frames import ImageSet, Topics
from heatnet_ros.ros.mailbox import Mailbox
from heatnet_ros.ros.messages import stamp_to_ns
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.problems import Problems, Source
from heatnet_ros.ros.statistics import Statistics
from heatnet_ros.ros.sync import ApproximateTimeSynchronizer, SimpleFilter

# A stamp this much older than the newest means that the clock was set back (a bag that starts
# again, a simulation that is reset); a smaller step is a message overtaken on its way.
_CLOCK_RESET_NS = 500_000_000
# so many older ones in a row are no overtaken messages either: a short bag that starts again
_OLDER_IN_A_ROW = 5
# without an image for so long, what was measured before tells nothing of now
_HEARD_S = 3.0
# colour images after which the camera's period is known
_PERIODS = 20
# of each stream's stamps one in so long is held against the clock, and drift is told of so long
_CLOCK_STEP_S, _CLOCK_KEPT, _DRIFT_SPAN_S = 0.05, 600, 10.0


class Intake:
    """Takes messages in, in the executor's thread; every callback only stores.

    ``count_publishers``: topic -> number of publishers, to tell silence from a wrong topic name.
    ``now_ns``: the clock that stamps images. ``explained``: topics of which somebody else says why
    nothing comes.
    """

    def __init__(
        self,
        topics: Topics,
        config: NodeConfig,
        mailbox: Mailbox[ImageSet],
        problems: Problems,
        statistics: Statistics,
        count_publishers: Callable[[str], int],
        now_ns: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._topics, self._mailbox = topics, mailbox
        self._problems, self._statistics = problems, statistics
        self._count_publishers, self._now_ns, self._clock = count_publishers, now_ns, clock
        self.explained: set[str] = set()
        self.camera_info: CameraInfo | None = None
        self._newest_ns: dict[str, int] = {}
        self._older = Counter[str]()  # in a row, by stream
        self._seen_s = dict.fromkeys(("color", "depth", "info", "set"), clock())
        self._unpaired_ns: deque[int] = deque()  # colour images that await their partner
        self._color_times, self._depth_times = Timeline(), Timeline()
        # thinned, so that it covers half a minute: a second tells nothing of a clock
        self._clock_times = Timeline(_CLOCK_KEPT, _DRIFT_SPAN_S)
        self._clock_s = -_CLOCK_STEP_S
        self._published_s: float | None = None  # since when there is a publisher of colour
        self._backwards: str | None = None  # since the last check
        self._repeated = Counter[str]()  # stamps that came again, by topic, since the last check
        self._arrived, self._lost = Counter[str](), Counter[str]()  # since the last check
        self._incompatible: dict[str, tuple[float, str]] = {}
        self._start_pairing()

    def _start_pairing(self) -> None:
        self._color, self._depth = SimpleFilter(), SimpleFilter()
        if self._topics.depth is None:
            self._color.registerCallback(self._on_set)
            return
        self._pairs = ApproximateTimeSynchronizer(
            [self._color, self._depth], self.config.sync_queue, self.config.sync_slop_s
        )
        self._pairs.registerCallback(self._on_set)

    def on_camera_info(self, message: CameraInfo) -> None:
        """Keep the latest calibration."""
        self.camera_info = message
        self._seen_s["info"] = self._clock()

    @property
    def is_heard(self) -> bool:
        """Whether a colour image came a moment ago."""
        return self._clock() - self._seen_s["color"] < _HEARD_S

    def on_color(self, message: Image | CompressedImage) -> None:
        """A colour image arrived."""
        if self.camera_info is None and not self.is_heard:
            self._seen_s["info"] = self._clock()  # the camera came (back): what it lacks counts now
        self._seen_s["color"] = self._clock()
        self._arrived[self._topics.color] += 1
        self._statistics.count("received")
        if self._is_in_order("color", self._topics.color, message):
            stamp_ns = self._newest_ns["color"]
            self._color_times.add(stamp_ns, self._seen_s["color"])
            self._compare_clocks(stamp_ns, self._seen_s["color"])
            self._unpaired_ns.append(stamp_ns)
            self._color.signalMessage(message)

    def _compare_clocks(self, stamp_ns: int, seen_s: float) -> None:
        if seen_s - self._clock_s < _CLOCK_STEP_S or not stamp_ns:  # zero is no stamp
            return
        now_ns = self._now_ns()
        if now_ns:  # a simulation's clock is 0 until it is heard of
            self._clock_s = seen_s
            self._clock_times.add(stamp_ns, seen_s, now_ns)

    def on_depth(self, message: Image | CompressedImage) -> None:
        """A depth image arrived."""
        self._seen_s["depth"] = self._clock()
        self._arrived[str(self._topics.depth)] += 1
        self._statistics.count("received_depth")
        if self._is_in_order("depth", str(self._topics.depth), message):
            self._depth_times.add(self._newest_ns["depth"], self._seen_s["depth"])
            self._depth.signalMessage(message)

    def on_incompatible_qos(self, stream: str, topic: str, policy: str) -> None:
        """A publisher of ``stream`` (color, depth, info) offers less than this node asks for."""
        message = inputs.describe_incompatible_qos(topic, policy).text
        self._incompatible[stream] = (self._clock(), message)
        self._problems.report(Source.QOS, message)

    def on_lost(self, topic: str, number: int) -> None:
        """The middleware knows of messages that were sent and did not arrive."""
        self._statistics.count("lost", number)
        self._lost[topic] += number

    def _is_in_order(self, stream: str, topic: str, message: Any) -> bool:
        stamp = message.header.stamp
        if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
            # rclpy and who hears the poses take neither: a pose with it would end their nodes
            self._statistics.count("bad_input")
            self._problems.report(
                Source.INPUT,
                f"{topic}: the stamp is {stamp.sec} s, {stamp.nanosec} ns; expected none below 0 "
                "and less than 1000000000 ns. The publisher fills the message wrongly.",
            )
            return False
        stamp_ns = stamp_to_ns(message.header.stamp)
        newest_ns = self._newest_ns.get(stream, stamp_ns)
        self._repeated[topic] += int(self._newest_ns.get(stream) == stamp_ns)
        if stamp_ns >= newest_ns:
            self._newest_ns[stream] = stamp_ns
            self._older[stream] = 0
            return True
        self._older[stream] += 1
        backwards = (
            f"{topic}: stamps go backwards, newest {newest_ns / 1e9:.3f} s, then "
            f"{stamp_ns / 1e9:.3f} s; expected rising ones."
        )
        if stamp_ns < newest_ns - _CLOCK_RESET_NS or self._older[stream] >= _OLDER_IN_A_ROW:
            # what waits for a partner is of the other clock
            self._newest_ns.clear()
            self._color_times.clear()
            self._depth_times.clear()
            self._clock_times.clear()
            self._older.clear()
            self._start_pairing()
            self._statistics.count("clock_resets")
            self._statistics.count("sync_losses", len(self._unpaired_ns))
            self._unpaired_ns.clear()
            self._backwards = (
                f"{backwards} Pairing starts anew. Nothing to do after a bag or a simulation began "
                "again; else look for a second publisher (ros2 topic info -v) or a clock that "
                "jumps."
            )
            self._newest_ns[stream] = stamp_ns
            return True
        self._statistics.count("out_of_order")
        self._backwards = (
            f"{backwards} The older image is ignored. Let one publisher only use this topic "
            "(ros2 topic info -v), and publish images in the order they were taken."
        )
        return False

    def _on_set(
        self, color: Image | CompressedImage, depth: Image | CompressedImage | None = None
    ) -> None:
        now = self._clock()
        self._seen_s["set"] = now
        self._forget_unpaired(stamp_to_ns(color.header.stamp))
        if self.camera_info is None:
            self._statistics.count("no_camera_info")
        else:
            self._mailbox.put(ImageSet(color, depth, self.camera_info, now))

    def _forget_unpaired(self, paired_ns: int) -> None:
        """Colour images older than one that was paired find no partner any more."""
        while self._unpaired_ns and self._unpaired_ns[0] <= paired_ns:
            older = self._unpaired_ns.popleft() < paired_ns
            self._statistics.count("sync_losses", int(older))

    def check(self) -> None:
        """Report what did not come for too long, clear what came; call it about once a second."""
        now = self._clock()
        while len(self._unpaired_ns) > self.config.sync_queue:  # what left the queue alone is lost
            self._unpaired_ns.popleft()
            self._statistics.count("sync_losses")
        silent_s = {name: now - seen for name, seen in self._seen_s.items()}
        limit, topics = self.config.input_timeout_s, self._topics
        stamps, losses = self._describe_stamps(), self._describe_losses()
        self._set(Source.LOSS, bool(losses), lambda: losses)
        self._set(Source.STAMPS, bool(stamps), lambda: stamps)
        for stream, (since_s, _) in list(self._incompatible.items()):
            if self._seen_s[stream] > since_s:
                del self._incompatible[stream]  # another publisher, or it was mended
        self._set(Source.QOS, bool(self._incompatible), self._qos_message)
        color_missing = silent_s["color"] > limit and topics.color not in self.explained
        color_missing &= not self._has_just_begun(now, limit)
        self._set(Source.COLOR, color_missing, lambda: self._silence(topics.color, limit))
        if not self.is_heard and not self._count_publishers(topics.camera_info):
            self.camera_info = None  # the camera went away; what comes back may be another one
        info_missing = self.camera_info is None and silent_s["info"] > limit
        info_missing &= not color_missing and topics.camera_info not in self.explained
        self._set(Source.CAMERA_INFO, info_missing, lambda: self._no_info(limit))
        if topics.depth is None:
            return
        depth_missing = silent_s["depth"] > self.config.depth_timeout_s
        depth_missing &= topics.depth not in self.explained
        self._set(Source.DEPTH, depth_missing, self._no_depth)
        both_come = silent_s["color"] < 1.0 and silent_s["depth"] < 1.0
        period_s = self._color_period_s()
        too_large = period_s is not None and self.config.sync_slop_s >= period_s / 2
        self._set(Source.SLOP, too_large, lambda: self._slop_message(period_s or 0.0))
        self._set(Source.SYNC, both_come and silent_s["set"] > limit, self._no_pairs)

    def _has_just_begun(self, now: float, limit_s: float) -> bool:
        """Whether a publisher of colour came so short a time ago that its silence means nothing."""
        if not self._count_publishers(self._topics.color):
            self._published_s = None
            return False
        if self._published_s is None:
            self._published_s = now
        return now - self._published_s <= limit_s

    def _set(self, source: Source, wrong: bool, describe: Callable[[], str]) -> None:
        if wrong:
            self._problems.report(source, describe())
        else:
            self._problems.clear(source)

    def _describe_stamps(self) -> str:
        """What was wrong with the stamps since the last check; before the losses are described."""
        found = [] if self._backwards is None else [self._backwards]
        for topic, again in self._repeated.items():
            if again:
                found.append(
                    f"{topic}: {again} of the last {self._arrived[topic]} stamps are the one "
                    "before; expected rising ones. Stamp each image with the time it was taken "
                    "(zero is no stamp), and let one publisher only use this topic (ros2 topic "
                    "info -v). Until then poses are not filtered over such images."
                )
        self._backwards = None
        self._repeated.clear()
        return " ".join(found)

    def _describe_losses(self) -> str:
        found = []
        for topic, lost in self._lost.items():
            sent = lost + self._arrived[topic]
            if inputs.is_lossy(lost, sent):
                found.append(inputs.describe_losses(topic, lost, sent).text)
        self._lost.clear()
        self._arrived.clear()
        return " ".join(found)

    def _qos_message(self) -> str:
        return " ".join(message for _, message in self._incompatible.values())

    def _color_period_s(self) -> float | None:
        """Median time between the latest colour stamps; None until there are enough."""
        return self._color_times.period_s if len(self._color_times) > _PERIODS else None

    def values(self) -> dict[str, str]:
        """What was measured of the latest images, as text, for diagnostics.

        camera_info_age_s: since the last CameraInfo, at the last colour image. sync_offset_ms:
        median from colour to the nearest depth stamp. drop_rate: part of the
        colour images that is missing between the stamps, unpaired_rate: that has no depth image
        within the slop. stamp_delay_ms, stamp_drift_ms_per_s: of colour, against the clock.
        """
        out = {"drop_rate": f"{self._color_times.drop_share:.3f}"}
        if self.camera_info is not None:
            age_s = self._seen_s["color"] - self._seen_s["info"]
            out["camera_info_age_s"] = f"{max(age_s, 0.0):.1f}"
        period_s = self._color_times.period_s
        out["camera_hz"] = "none" if period_s is None else f"{1 / period_s:.2f}"
        delay_s, drift = self._clock_times.delay_s, self._clock_times.drift
        out["stamp_delay_ms"] = "none" if delay_s is None else f"{1e3 * delay_s:.1f}"
        out["stamp_drift_ms_per_s"] = "none" if drift is None else f"{1e3 * drift:.2f}"
        offsets = measure_offsets(self._color_times, self._depth_times)
        if self._topics.depth is not None:
            known = offsets.size > 0
            out["sync_offset_ms"] = f"{1e3 * np.median(offsets):.2f}" if known else "none"
            apart = np.abs(offsets) >= self.config.sync_slop_s
            out["unpaired_rate"] = f"{apart.mean():.3f}" if offsets.size >= _PERIODS else "none"
        return out

    def _slop_message(self, period_s: float) -> str:
        return inputs.describe_slop(self._topics.color, period_s, self.config.sync_slop_s).text

    def _silence(self, topic: str, limit_s: float) -> str:
        return inputs.describe_silence(topic, self._count_publishers(topic), limit_s).text

    def _no_info(self, limit_s: float) -> str:
        topic = self._topics.camera_info
        return inputs.describe_no_info(topic, self._count_publishers(topic), limit_s).text

    def _no_depth(self) -> str:
        topic, limit_s = str(self._topics.depth), self.config.depth_timeout_s
        number = self._count_publishers(topic)
        return inputs.describe_no_depth(topic, self._topics.color, number, limit_s).text

    def _no_pairs(self) -> str:
        color_ns, depth_ns = (self._newest_ns.get(t, 0) for t in ("color", "depth"))
        color, depth = self._topics.color, str(self._topics.depth)
        offset_s = (color_ns - depth_ns) / 1e9
        return inputs.describe_no_pairs(color, depth, self.config.sync_slop_s, offset_s).text
