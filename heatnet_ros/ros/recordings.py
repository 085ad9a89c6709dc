"""Recordings as streams of ROS messages: bags and BOP scenes, for ``replay``."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from heatnet_ros.bags.choice import Wanted, choose_topics, list_truth
from heatnet_ros.bags.reader import Bag, is_bag
from heatnet_ros.errors import DataError
from heatnet_ros.predict_inputs import InputSet, list_bop_inputs
from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.compressed_depth import decode_depth_m
from heatnet_ros.ros.frames import is_compressed
from heatnet_ros.ros.messages import array_to_image, compressed_to_rgb, ns_to_stamp, stamp_to_ns

COLOR, INFO, DEPTH = "color/image_raw", "color/camera_info", "depth/image_raw"
_SCENE_PERIOD_NS = 100_000_000


@dataclass(frozen=True, eq=False)
class Item:
    """What to publish: time_ns says when, since the beginning of the recording's clock."""

    topic: str
    time_ns: int
    message: Any


class Recording(Protocol):
    """topics: name -> message type; frames: colour images; count: messages in all.

    faults: why each image that cannot be decoded was left out since ``read`` began.
    """

    topics: dict[str, type]
    frames: int
    count: int
    span_ns: tuple[int, int]
    faults: list[str]

    def read(self) -> Iterator[Item]:
        """All messages, in the order of recording; each call begins anew."""


def open_recording(path: Path, wanted: Wanted, decode: bool) -> Recording:
    """A bag or a BOP scene. ``decode``: compressed images are published raw. Raises DataError."""
    if is_bag(path):
        return BagRecording(Bag(path), wanted, decode)
    inputs = list_bop_inputs(path, None)
    if inputs is None:
        raise DataError(
            f"{path} is neither a bag (.mcap, .db3, .bag, a folder with metadata.yaml) nor a BOP "
            "scene (a folder with scene_camera.json). Check the path."
        )
    return SceneRecording(inputs)


class BagRecording:
    """Colour, CameraInfo, depth and true poses of a bag."""

    def __init__(self, bag: Bag, wanted: Wanted, decode: bool) -> None:
        self._bag, self._decode = bag, decode
        chosen = choose_topics(bag, wanted)
        self._names = {chosen.color: COLOR, chosen.camera_info: INFO}
        if chosen.depth is not None:
            self._names[chosen.depth] = DEPTH
        self._names |= {topic: topic for topic in list_truth(bag)}
        self.topics = {}
        self.faults: list[str] = []
        for item in map(bag.first, self._names):
            kind = self._kind(item.topic, item.message)
            self.topics[self._publish_as(item.topic, kind)] = kind
        self.frames = bag.count([chosen.color])
        self.count = bag.count(list(self._names))
        self.span_ns = bag.span_ns

    def read(self) -> Iterator[Item]:
        """Raises DataError where the file is damaged; an image that is, is left out."""
        self.faults.clear()
        for item in self._bag.read(list(self._names)):
            try:
                message = self._convert(item.topic, item.message)
            except DataError as fault:
                self.faults.append(str(fault))
                continue
            yield Item(self._publish_as(item.topic, type(message)), item.time_ns, message)

    def _kind(self, topic: str, message: Any) -> type:
        """What ``_convert`` makes of it, without decoding: the first image may be damaged."""
        name = self._names[topic]
        if name in (COLOR, DEPTH):
            compressed = is_compressed(message) and not self._decode
            kind: type = CompressedImage if compressed else Image
        else:
            kind = CameraInfo if name == INFO else PoseStamped
        return kind

    def _publish_as(self, topic: str, kind: type) -> str:
        name = self._names[topic]
        if kind is not CompressedImage:
            return name
        return f"{name}/{'compressedDepth' if name == DEPTH else 'compressed'}"

    def _convert(self, topic: str, message: Any) -> Any:
        name, stamp = self._names[topic], message.header.stamp
        header = Header(stamp=ns_to_stamp(stamp_to_ns(stamp)), frame_id=message.header.frame_id)
        made: Any
        if name == INFO:
            made = _to_camera_info(message)
        elif name not in (COLOR, DEPTH):
            made = _to_pose(message)
        elif not is_compressed(message):
            made = _copy(Image, message)
        elif not self._decode:
            made = _copy(CompressedImage, message)
        elif name == COLOR:
            made = array_to_image(compressed_to_rgb(message, topic), "rgb8")
        else:
            made = array_to_image(decode_depth_m(message, topic), "32FC1")
        made.header = header
        return made


class SceneRecording:
    """A BOP scene as ten frames a second; its stamps begin at 1 s."""

    def __init__(self, inputs: InputSet) -> None:
        self._images = inputs.images
        self.faults: list[str] = []
        has_depth = all(image.has_depth for image in inputs.images)
        self.topics: dict[str, type] = {COLOR: Image, INFO: CameraInfo}
        if has_depth:
            self.topics[DEPTH] = Image
        self.frames = len(inputs.images)
        self.count = self.frames * len(self.topics)
        self.span_ns = (10**9, 10**9 + (self.frames - 1) * _SCENE_PERIOD_NS)

    def read(self) -> Iterator[Item]:
        """An image that cannot be read is left out, with its CameraInfo."""
        self.faults.clear()
        for number, image in enumerate(self._images):
            try:
                frame = image.load_frame()
            except DataError as fault:
                self.faults.append(str(fault))
                continue
            time_ns = self.span_ns[0] + number * _SCENE_PERIOD_NS
            header = Header(stamp=ns_to_stamp(time_ns), frame_id=SYNTHETIC.frame_id)
            height, width = frame.size_hw
            info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
            info.k = frame.K.ravel().tolist()
            info.p = [*frame.K[0], 0.0, *frame.K[1], 0.0, *frame.K[2], 0.0]
            info.d = [0.0] * 5
            messages = {INFO: info, COLOR: array_to_image(frame.rgb, "rgb8")}
            if DEPTH in self.topics and frame.depth_m is not None:
                messages[DEPTH] = array_to_image(frame.depth_m, "32FC1")
            for topic, message in messages.items():
                message.header = header
                yield Item(topic, time_ns, message)


def _copy(kind: Callable[..., Any], message: Any) -> Any:
    """An Image or CompressedImage of a bag as the ROS message; the caller sets the header."""
    made = kind()
    for name in made.get_fields_and_field_types():
        if name == "data":
            # array.array is what the setter takes without checking every byte in Python
            made.data = array.array("B", bytes(message.data))
        elif name != "header":
            setattr(made, name, getattr(message, name))
    return made


def _to_camera_info(message: Any) -> CameraInfo:
    info = CameraInfo(
        width=int(message.width), height=int(message.height),
        distortion_model=message.distortion_model,
        binning_x=int(message.binning_x), binning_y=int(message.binning_y),
    )  # fmt: skip
    for name in ("d", "k", "r", "p"):
        setattr(info, name, [float(value) for value in getattr(message, name)])
    for name in ("x_offset", "y_offset", "width", "height", "do_rectify"):
        setattr(info.roi, name, getattr(message.roi, name))
    return info


def _to_pose(message: Any) -> PoseStamped:
    made = PoseStamped()
    for part in ("position", "orientation"):
        source, target = getattr(message.pose, part), getattr(made.pose, part)
        for name in target.get_fields_and_field_types():
            setattr(target, name, float(getattr(source, name)))
    return made
