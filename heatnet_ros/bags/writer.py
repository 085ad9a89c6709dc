"""Write a bag without ROS: one mcap file of zstd-compressed chunks, as Jazzy's rosbag2 reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.bags.reader import import_rosbags
from heatnet_ros.errors import ConfigError
from heatnet_ros.files import make_folder, reporting
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray


class BagWriter:
    """Use as a context manager: the file takes its name when the context ends well.

    Raises ConfigError where ``path`` is no .mcap, exists already or rosbags is not installed,
    DataError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        import_rosbags()
        from rosbags.typesys import Stores, get_typestore

        if path.suffix != ".mcap":
            raise ConfigError(f"A bag is written to a file NAME.mcap, got {path}.")
        if path.exists():
            raise ConfigError(f"{path} exists already: give another name or delete it.")
        self.path = path
        self.counts: dict[str, int] = {}
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Any] = {}
        self._folder = path.with_name(f"{path.stem}.part")

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        make_folder(self.path.parent)
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with reporting(self.path):
            self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with reporting(self.path):
                self._writer.__exit__(kind, error, trace)
                if kind is None:
                    os.replace(next(self._folder.glob("*.mcap")), self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, topic: str, kind: str, time_ns: int, data: bytes) -> None:
        """Add a serialised message of type ``kind`` (``sensor_msgs/msg/Image``)."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store
            )
        with reporting(self.path):
            self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def add(self, topic: str, time_ns: int, message: Any) -> None:
        """Add a message made by ``make``."""
        kind = message.__msgtype__
        self.write(topic, kind, time_ns, bytes(self._store.serialize_cdr(message, kind)))

    def make(self, kind: str, stamp_ns: int, frame_id: str, **fields: Any) -> Any:
        """A message with a header; ``fields`` are the others, all of them."""
        types = self._store.types
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)
        return types[kind](header=header, **fields)

    def make_compressed(
        self, stamp_ns: int, frame_id: str, text: str, data: bytes | NDArray[np.uint8]
    ) -> Any:
        """A CompressedImage; ``text`` is its ``format``."""
        content = np.frombuffer(data, np.uint8)
        kind = "sensor_msgs/msg/CompressedImage"
        return self.make(kind, stamp_ns, frame_id, format=text, data=content)

    def make_camera_info(
        self, stamp_ns: int, frame_id: str, K: FloatArray, size_wh: tuple[int, int]
    ) -> Any:
        """CameraInfo of a camera without distortion; K 3x3 in pixels."""
        roi = self._store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self.make(
            "sensor_msgs/msg/CameraInfo", stamp_ns, frame_id,
            width=size_wh[0], height=size_wh[1], distortion_model="plumb_bob", d=np.zeros(5),
            k=K.ravel(), r=np.eye(3).ravel(), p=np.hstack([K, np.zeros((3, 1))]).ravel(),
            binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip

    def make_pose(self, stamp_ns: int, frame_id: str, T: FloatArray) -> Any:
        """PoseStamped of a 4x4 in metres."""
        types = self._store.types
        position = _call(types["geometry_msgs/msg/Point"], "xyz", T[:3, 3])
        quaternion = se3.quaternion_from_rotation(T[:3, :3])
        orientation = _call(types["geometry_msgs/msg/Quaternion"], "xyzw", quaternion)
        pose = types["geometry_msgs/msg/Pose"](position=position, orientation=orientation)
        return self.make("geometry_msgs/msg/PoseStamped", stamp_ns, frame_id, pose=pose)


def _call(kind: Any, names: Iterable[str], values: FloatArray) -> Any:
    fields: Mapping[str, float] = dict(zip(names, map(float, values), strict=True))
    return kind(**fields)
