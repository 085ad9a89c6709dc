"""The frames of a bag, paired as ``pose_node`` pairs what arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from heatnet_ros.bags.choice import list_truth
from heatnet_ros.bags.reader import Bag, Recorded
from heatnet_ros.errors import DataError
from heatnet_ros.ros.frames import ImageSet, Topics, build_frame
from heatnet_ros.ros.messages import pose_to_matrix, stamp_to_ns
from heatnet_ros.ros.node_config import NodeConfig
from heatnet_ros.ros.sync import ApproximateTimeSynchronizer, SimpleFilter
from heatnet_ros.types import FloatArray, Frame


@dataclass(frozen=True)
class BagFrame:
    """Where the messages of a frame lie: times of recording and stamps, all in nanoseconds.

    depth_ns is None where the bag has no depth topic.
    """

    stamp_ns: int
    color_ns: int
    info_ns: int
    depth_ns: int | None
    depth_stamp_ns: int | None


class BagFrames:
    """Finds the frames of a bag and reads them one by one.

    ``frames``: those with partners, in the order of recording; ``unpaired``: colour images that
    found no depth within ``config.sync_slop_s``. Raises DataError where there is no frame at all.
    """

    def __init__(self, bag: Bag, topics: Topics, config: NodeConfig) -> None:
        self._bag, self._topics, self._config = bag, topics, config
        self.frames = list(self._pair())
        self.unpaired = bag.count([topics.color]) - len(self.frames)
        if not self.frames:
            raise DataError(
                f"{bag.path}: of {bag.count([topics.color])} images on {topics.color} none has a "
                f"partner on {topics.depth} within {config.sync_slop_s:g} s. Raise sync_slop_s in "
                "the parameter file, or record a camera whose streams are synchronised."
            )

    def load(self, frame: BagFrame) -> Frame:
        """Read and convert one frame. Raises DataError with topic, expected, got and remedy."""
        topics = self._topics
        images = ImageSet(
            self._find(topics.color, frame.color_ns, frame.stamp_ns),
            None
            if topics.depth is None or frame.depth_ns is None
            else self._find(topics.depth, frame.depth_ns, frame.depth_stamp_ns),
            self._find(topics.camera_info, frame.info_ns, None),
            0.0,
        )
        return build_frame(images, topics, self._config.rectified)

    def read_truth(self) -> dict[int, dict[str, FloatArray]]:
        """Stamp -> object -> true T_camera_object, of the topics that ``list_truth`` finds."""
        names = list_truth(self._bag)
        poses: dict[int, dict[str, FloatArray]] = {}
        for item in self._bag.read(list(names)):
            stamp_ns = stamp_to_ns(item.message.header.stamp)
            poses.setdefault(stamp_ns, {})[names[item.topic]] = pose_to_matrix(item.message.pose)
        return poses

    def _find(self, topic: str, time_ns: int, stamp_ns: int | None) -> Any:
        """The message recorded then; the stamp tells those of one moment apart."""
        for item in self._bag.read([topic], time_ns, time_ns + 1):
            if stamp_ns is None or stamp_to_ns(item.message.header.stamp) == stamp_ns:
                return item.message
        raise DataError(f"{self._bag.path}: the message of {topic} at {time_ns} ns is gone.")

    def _pair(self) -> Iterator[BagFrame]:
        topics = self._topics
        # an image that came before it is still of this camera
        info_ns = self._bag.first(topics.camera_info).time_ns
        sets: list[tuple[Any, ...]] = []
        color, depth = SimpleFilter(), SimpleFilter()
        if topics.depth is None:
            color.registerCallback(lambda a: sets.append((a, None)))
        else:
            pairs = ApproximateTimeSynchronizer(
                [color, depth], self._config.sync_queue, self._config.sync_slop_s
            )
            pairs.registerCallback(lambda a, b: sets.append((a, b)))
        wanted = [t for t in (topics.color, topics.camera_info, topics.depth) if t is not None]
        for item in self._bag.read(wanted):
            if item.topic == topics.camera_info:
                info_ns = item.time_ns
                continue
            (color if item.topic == topics.color else depth).signalMessage(_note(item))
            for a, b in sets:
                yield BagFrame(
                    stamp_to_ns(a.header.stamp), a.time_ns, info_ns,
                    b and b.time_ns, b and stamp_to_ns(b.header.stamp),
                )  # fmt: skip
            sets.clear()


def _note(item: Recorded) -> SimpleNamespace:
    """What pairing needs of a message: the pixels of a long bag do not fit into memory."""
    return SimpleNamespace(header=item.message.header, time_ns=item.time_ns)
