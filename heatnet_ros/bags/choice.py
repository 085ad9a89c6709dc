"""Which topics of a bag are the colour image, its CameraInfo and the depth aligned to it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from heatnet_ros.bags.reader import Bag
from heatnet_ros.errors import DataError
from heatnet_ros.ros.cameras import ALIGNED_NAMES
from heatnet_ros.ros.compressed_depth import ENCODINGS
from heatnet_ros.ros.frames import Topics, is_compressed

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRUTH = "/truth/"
_TRUTH_TYPE = "geometry_msgs/msg/PoseStamped"
# parts of the names that drivers use; the earlier the better
_COLOR_NAMES = ("color", "rgb")
_TRANSPORTS = ("/compressed", "/compressedDepth")


@dataclass(frozen=True)
class Wanted:
    """Topics that the user names; None leaves the choice to ``choose_topics``."""

    color: str | None = None
    camera_info: str | None = None
    depth: str | None = None


def add_topic_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which topics of a bag are taken."""
    for name, what in (("color", "colour image"), ("info", "CameraInfo"), ("depth", "depth")):
        parser.add_argument(
            f"--{name}-topic", metavar="TOPIC", help=f"of a bag: the {what} (default: found)"
        )


def choose_topics(bag: Bag, wanted: Wanted) -> Topics:
    """Find the topics of a bag by type, encoding, frame and name.

    Depth is one with the frame_id of colour; without one it is None. Raises DataError, listing
    what the bag has, where there is no colour image or CameraInfo or where several would do.
    """
    first = _first_messages(bag)
    given = (wanted.color, wanted.camera_info, wanted.depth)
    for topic in given:
        if topic is not None and topic not in first:
            raise DataError(f"{bag.path} has no images or calibration on {topic}. {_list(bag)}")
    images = {topic: m for topic, m in first.items() if bag.topics[topic] in IMAGES}
    color = wanted.color or _best(
        bag,
        "colour image",
        "--color-topic",
        {t: _rank_color(t, m) for t, m in images.items() if not _is_depth(t, m)},
    )
    frame_id = first[color].header.frame_id
    infos = {t: m for t, m in first.items() if bag.topics[t] == CAMERA_INFO}
    camera_info = wanted.camera_info or _best(
        bag,
        "CameraInfo",
        "--info-topic",
        {t: _rank_info(t, m, color, frame_id) for t, m in infos.items()},
    )
    aligned = {
        t: _rank_depth(t, m)
        for t, m in images.items()
        if _is_depth(t, m) and m.header.frame_id == frame_id
    }
    depth = wanted.depth
    if depth is None and aligned:
        depth = _best(bag, "depth image in the frame of colour", "--depth-topic", aligned)
    return Topics(color, camera_info, depth)


def list_truth(bag: Bag) -> dict[str, str]:
    """Topics of true poses, as ``synthetic_camera`` names them -> object."""
    return {
        topic: topic.rpartition(TRUTH)[2]
        for topic, kind in bag.topics.items()
        if kind == _TRUTH_TYPE and TRUTH in topic
    }


def _first_messages(bag: Bag) -> dict[str, Any]:
    kinds = (*IMAGES, CAMERA_INFO)
    topics = sorted(topic for topic, kind in bag.topics.items() if kind in kinds)
    return {topic: bag.first(topic).message for topic in topics}


def _is_depth(topic: str, message: Any) -> bool:
    if is_compressed(message):
        return "compressedDepth" in message.format or topic.endswith("/compressedDepth")
    # mono16 is depth (ZED) or a grey image of 16 bit: the name tells
    return message.encoding in ENCODINGS and (message.encoding != "mono16" or "depth" in topic)


def _rank_color(topic: str, message: Any) -> tuple[int, ...]:
    """Smaller is better: what is named colour, then what is not compressed."""
    base = _strip(topic)
    named = [i for i, name in enumerate(_COLOR_NAMES) if name in base]
    is_grey = not is_compressed(message) and message.encoding.startswith(("mono", "8UC1"))
    return min(named, default=len(_COLOR_NAMES)), int(is_grey), int(topic != base)


def _rank_depth(topic: str, message: Any) -> tuple[int, ...]:
    base = _strip(topic)
    named = [i for i, name in enumerate(ALIGNED_NAMES) if name in base]
    return min(named, default=len(ALIGNED_NAMES)), int(topic != base)


def _rank_info(topic: str, message: Any, color: str, frame_id: str) -> tuple[int, ...]:
    beside = f"{_strip(color).rpartition('/')[0]}/camera_info"
    return int(topic != beside), int(message.header.frame_id != frame_id)


def _strip(topic: str) -> str:
    """The base topic of an image_transport."""
    for ending in _TRANSPORTS:
        topic = topic.removesuffix(ending)
    return topic


def _best(bag: Bag, what: str, option: str, ranked: dict[str, tuple[int, ...]]) -> str:
    if not ranked:
        raise DataError(
            f"{bag.path} has no {what}. {_list(bag)} Record it as well, or name it: {option}."
        )
    best = min(ranked.values())
    found = [topic for topic, rank in ranked.items() if rank == best]
    if len(found) > 1:
        raise DataError(f"{bag.path} has several topics that may be the {what}: "
                        f"{', '.join(found)}. Choose one with {option}.")  # fmt: skip
    return found[0]


def _list(bag: Bag) -> str:
    topics = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(bag.topics.items()))
    return f"Its topics: {topics or 'none with messages'}."
