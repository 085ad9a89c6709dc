"""One set of ROS messages -> one Frame, or a DataError that says which topic is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.ros.compressed_depth import compressed_to_depth_m
from heatnet_ros.ros.messages import (
    camera_info_to_intrinsics,
    compressed_to_rgb,
    image_size_of,
    image_to_depth_m,
    image_to_rgb,
    stamp_to_ns,
)
from heatnet_ros.types import ALIGN_DEPTH, DepthF32, Frame

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image


@dataclass(frozen=True)
class Topics:
    """Resolved topic names for messages; ``depth`` is None where no depth is used."""

    color: str
    camera_info: str
    depth: str | None

    @property
    def depth_info(self) -> str | None:
        """CameraInfo of the depth camera, beside its images; None where no depth is used."""
        if self.depth is None:
            return None
        folder = self.depth.removesuffix("/compressedDepth").rpartition("/")[0]
        return f"{folder}/camera_info"

    def check_distinct(self) -> None:
        """Raise ConfigError where two streams have the same topic, as after a wrong remap."""
        streams = self.by_stream
        for topic in streams.values():
            same = [stream for stream, other in streams.items() if other == topic]
            if len(same) > 1:
                raise ConfigError(
                    f"{topic}: is the topic of {' and '.join(same)}, expected one for each. "
                    "Correct the remap (-r FROM:=TO) or the option that names it."
                )

    @property
    def by_stream(self) -> dict[str, str]:
        """Stream -> topic, of those that are used."""
        streams = {"color": self.color, "camera_info": self.camera_info, "depth": self.depth}
        return {stream: topic for stream, topic in streams.items() if topic is not None}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Messages that belong together; ``received_s`` is monotonic, when the set was complete."""

    color: Image | CompressedImage
    depth: Image | CompressedImage | None
    info: CameraInfo
    received_s: float


def build_frame(images: ImageSet, topics: Topics, rectified: bool) -> Frame:
    """Convert and check. Raises DataError with topic, expected, got and remedy."""
    color, info = images.color, images.info
    _check_frame_id(color.header.frame_id, info.header.frame_id, topics.color, topics.camera_info)
    K, distortion = camera_info_to_intrinsics(info, rectified, topics.camera_info)
    if is_compressed(color):
        rgb = compressed_to_rgb(color, topics.color, image_size_of(info))
    else:
        rgb = image_to_rgb(color, topics.color)
    size = (rgb.shape[1], rgb.shape[0])
    if image_size_of(info) != size:
        raise DataError(
            f"{topics.camera_info}: describes a {_text(image_size_of(info))} image, {topics.color} "
            f"is {_text(size)}. Publish the CameraInfo of this resolution (and its binning, ROI)."
        )
    depth_m = None
    if images.depth is not None and topics.depth is not None:
        depth = images.depth
        _check_frame_id(color.header.frame_id, depth.header.frame_id, topics.color, topics.depth)
        depth_m = _convert_depth(depth, topics, size)
    return Frame(
        rgb=rgb,
        K=K,
        depth_m=depth_m,
        distortion=distortion,
        stamp_ns=stamp_to_ns(color.header.stamp),
        frame_id=color.header.frame_id,
    )


def is_compressed(message: Image | CompressedImage) -> bool:
    """Tell CompressedImage from Image by its fields, also where a bag's reader made the message."""
    return hasattr(message, "format")


def encoding_of(message: Image | CompressedImage) -> str:
    """Encoding of an Image, format of a CompressedImage."""
    return str(getattr(message, "encoding", "") or getattr(message, "format", ""))


def _convert_depth(
    depth: Image | CompressedImage, topics: Topics, size: tuple[int, int]
) -> DepthF32:
    topic = str(topics.depth)
    if is_compressed(depth):
        depth_m = compressed_to_depth_m(depth, topic, size)
        depth_size = (depth_m.shape[1], depth_m.shape[0])
    else:
        depth_m, depth_size = None, (depth.width, depth.height)
    if depth_size != size:
        raise DataError(
            f"{topic}: depth is {_text(depth_size)}, {topics.color} is {_text(size)}; expected the "
            f"same size. {ALIGN_DEPTH}"
        )
    return image_to_depth_m(depth, topic) if depth_m is None else depth_m


def _check_frame_id(color: str, other: str, color_topic: str, topic: str) -> None:
    if color == other:
        return
    remedy = "Remap camera_info to the colour camera's." if "info" in topic else ALIGN_DEPTH
    raise DataError(
        f"{topic}: frame_id is '{other:.40}', {color_topic} has '{color:.40}'; expected the same. "
        f"{remedy}"
    )


def _text(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"
