"""Read a bag without ROS. The extra ``bag`` (rosbags, pure Python) does the work."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from heatnet_ros.errors import ConfigError, DataError

SUFFIXES = (".mcap", ".db3", ".bag")
# how far before the end of a bag the last message is looked for, and how that grows
_STEP_NS, _GROWTH = 500_000_000, 8
_METADATA = "metadata.yaml"
# ROS 1 wrote the matrices in capitals
_ROS1_MATRICES = {"D": "d", "K": "k", "R": "r", "P": "p"}


@dataclass(frozen=True, eq=False)
class Recorded:
    """A message of a bag: fields are named as in ROS 2. time_ns: when the recorder received it."""

    topic: str
    time_ns: int
    message: Any


def is_bag(path: Path) -> bool:
    """Whether a path is a bag by its name (a file) or its metadata.yaml (a folder)."""
    if path.is_dir():
        return (path / _METADATA).is_file() or _lone_file(path) is not None
    return path.suffix in SUFFIXES


def _lone_file(folder: Path) -> Path | None:
    """The bag file of a folder whose metadata was never written: its recorder was killed."""
    files = [file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")]
    return files[0] if len(files) == 1 else None


def import_rosbags() -> None:
    """Raise ConfigError, naming the extra, where rosbags is not installed."""
    try:
        import rosbags.highlevel  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Bags need the Python package rosbags ({error}): pip install 'rosbags>=0.11,<0.12'. "
            "No ROS is needed."
        ) from error


class Bag:
    """An open bag. ``topics``: name -> type (``sensor_msgs/msg/Image``), of those with messages.

    The file stays open as long as the object lives or until ``close``. Raises DataError where the
    path is no bag or is damaged, ConfigError where rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        import_rosbags()
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore

        if not path.exists():
            raise DataError(f"Bag {path} does not exist. Check the path.")
        self.path = path
        file = path
        if path.is_dir() and not (path / _METADATA).is_file():
            file = _lone_file(path) or path
        with self._reporting():
            # bags of ROS 2 before Iron do not hold the definitions of their types
            store = get_typestore(Stores.ROS2_JAZZY)
            self._reader = AnyReader([file], default_typestore=store)
            self._reader.open()
            self._connections = [c for c in self._reader.connections if c.msgcount]
        self.topics = {c.topic: c.msgtype for c in self._connections}

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def span_ns(self, topics: Collection[str]) -> tuple[int, int]:
        """When the first and the last message of these topics were recorded; (0, 0) of none.

        A bag that is damaged there counts from its beginning, to its end: ``read`` tells.
        """
        chosen = [c for c in self._connections if c.topic in topics]
        if not chosen:
            return 0, 0
        begin_ns, end_ns = self._reader.start_time, self._reader.end_time - 1
        try:
            with self._reporting():
                first_ns = next((ns for _, ns, _ in self._reader.messages(chosen)), begin_ns)
                return first_ns, self._last_ns(chosen, first_ns, end_ns)
        except DataError:
            return begin_ns, end_ns

    def _last_ns(self, chosen: list[Any], first_ns: int, end_ns: int) -> int:
        """Look from the bag's end backwards, in growing steps: not all messages are read."""
        step_ns = _STEP_NS
        while end_ns - step_ns > first_ns:
            late = self._reader.messages(chosen, end_ns - step_ns)
            last_ns: int | None = max((ns for _, ns, _ in late), default=None)
            if last_ns is not None:
                return last_ns
            step_ns *= _GROWTH
        return int(max((ns for _, ns, _ in self._reader.messages(chosen)), default=first_ns))

    def count(self, topics: Collection[str]) -> int:
        """How many messages these topics have."""
        return sum(c.msgcount for c in self._connections if c.topic in topics)

    def first(self, topic: str) -> Recorded:
        """The first message of a topic. Raises DataError where it cannot be read."""
        found = next(self.read([topic]), None)
        if found is None:
            raise DataError(
                f"Bag {self.path} lists messages on {topic} and holds none: it is damaged. Mend it "
                "(ros2 bag reindex, mcap recover)."
            )
        return found

    def read(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Recorded]:
        """Messages of these topics recorded from start to before stop, in the order of recording.

        Raises DataError at a damaged place.
        """
        chosen = [c for c in self._connections if c.topic in topics]
        if not chosen:
            return
        messages = self._reader.messages(chosen, start_ns, stop_ns)
        while True:
            with self._reporting():
                item = next(messages, None)
                if item is None:
                    return
                connection, time_ns, data = item
                message = self._reader.deserialize(data, connection.msgtype)
                message = _rename(message, connection.msgtype)
            yield Recorded(connection.topic, time_ns, message)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """What rosbags, its storages and decompressors raise -> DataError."""
        import apsw
        from rosbags.highlevel.anyreader import AnyReaderError, ReaderErrors
        from rosbags.typesys import TypesysError

        faults = (
            AnyReaderError, *ReaderErrors, TypesysError, apsw.Error, OSError, EOFError, ValueError,
            LookupError, TypeError, AssertionError, AttributeError, ArithmeticError, MemoryError,
            RuntimeError, struct.error, _zstd_error(),
        )  # fmt: skip
        try:
            yield
        except faults as error:
            raise DataError(
                f"Bag {self.path} cannot be read: {error or type(error).__name__}. Expected a file "
                f"{', '.join(SUFFIXES)} or a folder with {_METADATA}. A recording that was cut off "
                "can often be mended: ros2 bag reindex, mcap recover."
            ) from error


def _zstd_error() -> type[Exception]:
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        from backports import zstd
    error: type[Exception] = zstd.ZstdError
    return error


def _rename(message: Any, kind: str) -> Any:
    """A ROS 1 CameraInfo with the field names of ROS 2; everything else as it is."""
    if kind != "sensor_msgs/msg/CameraInfo" or hasattr(message, "k"):
        return message
    fields = {name: getattr(message, name) for name in message.__dataclass_fields__}
    return SimpleNamespace(**{_ROS1_MATRICES.get(k, k): value for k, value in fields.items()})
