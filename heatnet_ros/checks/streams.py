"""Findings about the camera's topics as somebody beside the node saw them for some seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from heatnet_ros.checks import inputs
from heatnet_ros.checks.finding import Finding, error, ok, warning
from heatnet_ros.checks.timeline import Timeline, measure_offsets

# below it no image is too large for Fast DDS's default segment
_LARGE_BYTES = 400_000
_SMALL_BYTES = 10_000  # not worth a word
# stamps this far from the clock are of another clock
MAX_DELAY_S = 1.0
# a clock that is so much too fast or too slow, seconds a second
MAX_DRIFT = 0.01
# share of colour images with a depth partner
_GOOD_PAIRS, _ANY_PAIRS = 0.9, 0.2


@dataclass
class Stream:
    """What was seen of one topic in ``seconds``.

    type_name: what the node subscribes to. publishers: node name and type of each. misfits:
    (publisher, policy) where the QoS that the node asks for fits no publisher. alike: other topics
    of this type that may be meant. lost: as the middleware counted. size_bytes: of the newest.
    """

    topic: str
    type_name: str
    publishers: Sequence[tuple[str, str]] = ()
    misfits: Sequence[tuple[str, str]] = ()
    alike: Sequence[str] = ()
    seconds: float = 0.0
    lost: int = 0
    size_bytes: int = 0
    times: Timeline = field(default_factory=lambda: Timeline(10_000))

    @property
    def other_types(self) -> list[str]:
        """Types that publishers give the topic, other than the one that the node subscribes to."""
        return sorted({kind for _, kind in self.publishers} - {self.type_name})


def check_publishers(stream: Stream) -> Iterator[Finding]:
    """Who publishes the topic: nobody, several, another type, with a QoS that does not fit."""
    topic = stream.topic
    for publisher, policy in stream.misfits:
        yield inputs.describe_incompatible_qos(topic, policy, f"{publisher}")
    if stream.other_types:
        yield error(
            topic,
            f"is of type {', '.join(stream.other_types)}, expected {stream.type_name}",
            "Remap to the topic of that type (compressed colour: color_transport: compressed and "
            "the name without /compressed).",
        )
    names = sorted(name for name, _ in stream.publishers)
    if len(names) > 1:
        yield warning(
            topic,
            f"{len(names)} publishers ({', '.join(names)}), expected one",
            "Stop all but one, or give each camera its namespace: images of two cameras alternate.",
        )


def check_arrival(stream: Stream, aligned_to: Stream | None = None) -> Iterator[Finding]:
    """Whether messages came, how many a second, and how many on the way got lost.

    aligned_to: of a depth stream the colour images.
    """
    if len(stream.times):
        yield _judge_arrival(stream)
    elif not stream.other_types:  # else the silence is explained
        yield _judge_silence(stream, aligned_to)


def _judge_silence(stream: Stream, aligned_to: Stream | None) -> Finding:
    number, limit_s = len(stream.publishers), round(stream.seconds, 1)
    if aligned_to is not None and len(aligned_to.times) and not number:
        silent = inputs.describe_no_depth(stream.topic, aligned_to.topic, number, limit_s)
    else:
        large = not stream.type_name.endswith("CameraInfo")
        silent = inputs.describe_silence(stream.topic, number, limit_s, large)
    if number or not stream.alike:
        return silent
    known = f"{', '.join(stream.alike[:6])}{', ...' if len(stream.alike) > 6 else ''}"
    what = "Of its type there are" if aligned_to is None else "By their names, aligned are"
    return error(stream.topic, silent.evidence, f"{silent.remedy} {what}: {known}.")


def _judge_arrival(stream: Stream) -> Finding:
    sent = stream.lost + len(stream.times)
    if inputs.is_lossy(stream.lost, sent):
        large = stream.size_bytes > _LARGE_BYTES
        return inputs.describe_losses(stream.topic, stream.lost, sent, large)
    drops = stream.times.drop_share
    text = f"{stream.times.rate_hz:.1f} Hz"
    if stream.size_bytes > _SMALL_BYTES:
        text += f", {stream.size_bytes / 1e6:.2f} MB each"
    if drops > inputs.MAX_LOST and len(stream.times) > 10:
        return warning(
            stream.topic,
            f"{text}, but {drops:.0%} are missing between the stamps and none got lost on the way",
            "The camera leaves frames out: shorten its exposure, use USB 3, lower rate or size.",
        )
    lost = f"{stream.lost} lost" if stream.lost else "none lost"
    return ok(stream.topic, f"{text}, {lost}, {drops:.0%} missing between the stamps")


def check_stamps(stream: Stream) -> Iterator[Finding]:
    """Whether stamps rise, and agree with this machine's clock."""
    times, topic = stream.times, stream.topic
    if len(times) and not any(times.stamps_ns):
        yield error(
            topic,
            "all stamps are 0",
            "Let the driver stamp its images: without stamps colour and depth cannot be paired.",
        )
        return
    if times.backwards or times.repeated:
        yield warning(
            topic,
            f"stamps go backwards {times.backwards} times and repeat {times.repeated} times in "
            f"{len(times)} messages; expected rising ones",
            "Let one publisher only use this topic (ros2 topic info -v), and publish images in the "
            "order they were taken.",
        )
    clock = check_clock(topic, times.delay_s, times.drift)
    if clock is not None:
        yield clock


def check_clock(topic: str, delay_s: float | None, drift: float | None) -> Finding | None:
    """Whether stamps agree with this machine's clock; None while nothing is known of it.

    delay_s, drift: as ``Timeline`` measures them.
    """
    if delay_s is None:
        return None
    if abs(delay_s) > MAX_DELAY_S:
        side = "behind" if delay_s > 0 else "ahead of"
        return warning(
            topic,
            f"stamps are {abs(delay_s):.3f} s {side} this machine's clock",
            "Synchronise the clocks of camera and node (chrony); for recorded or simulated data "
            "set use_sim_time. Latencies are wrong until then.",
        )
    if drift is not None and abs(drift) > MAX_DRIFT:
        return warning(
            topic,
            f"stamps drift against the clock by {1e3 * drift:+.1f} ms a second",
            "The camera's clock runs wrong, or images pile up in its driver: let it stamp with the "
            "computer's clock (RealSense: global_time_enabled:=true) and lower its load.",
        )
    told = "" if drift is None else f", drift {1e3 * drift:+.2f} ms/s"
    return ok(topic, f"stamps rise, {1e3 * delay_s:.1f} ms from stamp to arrival{told}")


def check_pairs(color: Stream, depth: Stream, slop_s: float) -> Iterator[Finding]:
    """Whether colour and depth images are of the same moments."""
    period_s = color.times.period_s
    if period_s is not None and len(color.times) > 10 and slop_s >= period_s / 2:
        yield inputs.describe_slop(color.topic, period_s, slop_s)
    offsets = measure_offsets(color.times, depth.times)
    if not offsets.size:
        if len(color.times) and len(depth.times):
            newest_s = (color.times.stamps_ns[-1] - depth.times.stamps_ns[-1]) / 1e9
            yield inputs.describe_no_pairs(color.topic, depth.topic, slop_s, newest_s)
        return
    share = float(np.mean(np.abs(offsets) < slop_s))
    median_ms = 1e3 * float(np.median(offsets))
    names = f"{color.topic} and {depth.topic}"
    text = f"{share:.0%} of {offsets.size} colour images have a depth image within sync_slop_s "
    text += f"{slop_s:g} s; the nearest is {median_ms:+.2f} ms away (median)"
    if share >= _GOOD_PAIRS:
        yield ok(names, text)
        return
    remedy = (
        "Synchronise the camera's streams (RealSense: enable_sync:=true), give both the same rate, "
        "or raise sync_slop_s (below half the time between two images)."
    )
    yield (warning if share >= _ANY_PAIRS else error)(names, text, remedy)


def count_lost(images: Stream, info: Stream) -> int:
    """Images that were surely sent and did not come: their CameraInfo, a small message, did.

    0 where image and CameraInfo have stamps of their own.
    """
    seen, told = set(images.times.stamps_ns), set(info.times.stamps_ns)
    if len(seen & told) < max(1, len(seen) / 2):
        return 0
    return len({stamp for stamp in told if min(seen) < stamp < max(seen)} - seen)
