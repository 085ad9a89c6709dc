"""Recordings as streams of ROS messages: bags, BOP scenes, folders of images, for ``replay``."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from heatnet_ros.bags.choice import CAMERA_INFO, Wanted, choose_topics, list_truth
from heatnet_ros.bags.reader import Bag, is_bag
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.image_inputs import list_file_inputs
from heatnet_ros.predict_inputs import InputImage, InputSet, list_bop_inputs
from heatnet_ros.ros.cameras import SYNTHETIC
from heatnet_ros.ros.compressed_depth import decode_depth_m
from heatnet_ros.ros.frames import is_compressed
from heatnet_ros.ros.messages import array_to_image, compressed_to_rgb, ns_to_stamp, stamp_to_ns
from heatnet_ros.types import Frame

COLOR, INFO, DEPTH = "color/image_raw", "color/camera_info", "depth/image_raw"
DEPTH_INFO = "depth/camera_info"
# where nothing says when the images were taken
_FIRST_NS = 10**9
IMAGES_PER_S = 10.0
# so many images are tried before the calibration, or whatever they fail for, is to blame
_TRIED = 5


@dataclass(frozen=True)
class ImageOptions:
    """What files of images do not say. camera: see ``load_camera_file``; of a folder of images.

    images_per_s: where their names are no stamps; None: 10, and the user has not asked for any.
    """

    camera: str | None = None
    metres_per_unit: float = 0.001
    images_per_s: float | None = None


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


def open_recording(
    path: Path, wanted: Wanted, decode: bool, options: ImageOptions | None = None
) -> Recording:
    """A bag, a BOP scene or a folder of images. ``decode``: compressed images are published raw.

    Raises DataError and, for a folder of images without calibration, ConfigError.
    """
    options = options or ImageOptions()
    inputs = None if is_bag(path) or not path.is_dir() else list_bop_inputs(path, None)
    if options.camera is not None and (is_bag(path) or inputs is not None):
        raise ConfigError(f"{path} has its own calibration. Leave out --camera.")
    if options.images_per_s is not None and is_bag(path):
        raise ConfigError(f"{path} has its own stamps. Leave out --fps; --rate makes it faster.")
    if is_bag(path):
        return BagRecording(Bag(path), wanted, decode)
    if not path.is_dir():
        raise DataError(
            f"{path} is neither a bag (.mcap, .db3, .bag, a folder with metadata.yaml) nor a BOP "
            "scene (a folder with scene_camera.json) nor a folder of images. Check the path."
        )
    if inputs is None:
        inputs = list_file_inputs(path, None, options.camera, options.metres_per_unit)
    if options.images_per_s is not None and all(i.stamp_ns is not None for i in inputs.images):
        raise ConfigError(
            f"The images of {path} are named by their stamps. Leave out --fps; --rate makes it "
            "faster."
        )
    return ImagesRecording(inputs, options.images_per_s or IMAGES_PER_S)


class BagRecording:
    """Colour, depth, their CameraInfo and true poses of a bag."""

    def __init__(self, bag: Bag, wanted: Wanted, decode: bool) -> None:
        self._bag, self._decode = bag, decode
        chosen = choose_topics(bag, wanted)
        self._names = {chosen.color: COLOR, chosen.camera_info: INFO}
        if chosen.depth is not None:
            self._names[chosen.depth] = DEPTH
            if bag.topics.get(str(chosen.depth_info)) == CAMERA_INFO:
                self._names.setdefault(str(chosen.depth_info), DEPTH_INFO)
        self._names |= {topic: topic for topic in list_truth(bag)}
        self.topics = {}
        self.faults: list[str] = []
        for item in map(bag.first, self._names):
            kind = self._kind(item.topic, item.message)
            self.topics[self._publish_as(item.topic, kind)] = kind
        self.frames = bag.count([chosen.color])
        self.count = bag.count(list(self._names))
        self.span_ns = bag.span_ns(list(self._names))

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
            kind = CameraInfo if name in (INFO, DEPTH_INFO) else PoseStamped
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
        if name in (INFO, DEPTH_INFO):
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


class ImagesRecording:
    """A BOP scene or a folder of images: at their stamps, else evenly, from 1 s on.

    Raises DataError where the first images cannot be read.
    """

    def __init__(self, inputs: InputSet, images_per_s: float) -> None:
        self._images = inputs.images
        self._times_ns = [
            _FIRST_NS + round(number * 1e9 / images_per_s)
            if image.stamp_ns is None else image.stamp_ns
            for number, image in enumerate(self._images)
        ]  # fmt: skip
        self.faults: list[str] = []
        self.topics: dict[str, type] = {COLOR: Image, INFO: CameraInfo}
        with_depth = sum(image.has_depth for image in self._images)
        if with_depth:
            # aligned by definition, so that colour's calibration is depth's
            self.topics |= {DEPTH: Image, DEPTH_INFO: CameraInfo}
        self.frames = len(self._images)
        self.count = 2 * (self.frames + with_depth)
        self.span_ns = self._times_ns[0], self._times_ns[-1]
        if not any(self._load(image) is not None for image in self._images[:_TRIED]):
            raise DataError(self.faults[0])

    def read(self) -> Iterator[Item]:
        """An image that cannot be read is left out, with its CameraInfo."""
        self.faults.clear()
        for time_ns, image in zip(self._times_ns, self._images, strict=True):
            frame = self._load(image)
            if frame is None:
                continue
            header = Header(stamp=ns_to_stamp(time_ns), frame_id=SYNTHETIC.frame_id)
            messages = {INFO: _describe_camera(frame), COLOR: array_to_image(frame.rgb, "rgb8")}
            if frame.depth_m is not None:
                messages[DEPTH_INFO] = _describe_camera(frame)
                messages[DEPTH] = array_to_image(frame.depth_m, "32FC1")
            for topic, message in messages.items():
                message.header = header
                yield Item(topic, time_ns, message)

    def _load(self, image: InputImage) -> Frame | None:
        try:
            return image.load_frame()
        except DataError as fault:
            self.faults.append(str(fault))
            return None


def _describe_camera(frame: Frame) -> CameraInfo:
    """K, D and, for who rectifies the images, a P that keeps K."""
    height, width = frame.size_hw
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    if frame.distortion.model != "none":
        info.distortion_model = frame.distortion.model
        info.d = list(frame.distortion.coefficients)
    info.k = frame.K.ravel().tolist()
    info.r = np.eye(3).ravel().tolist()
    info.p = [*frame.K[0], 0.0, *frame.K[1], 0.0, *frame.K[2], 0.0]
    return info


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
