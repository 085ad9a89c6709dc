"""Files that appear whole or not at all, and folders; both tell why they cannot be written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from heatnet_ros.errors import DataError

MAKE_ROOM = (
    "Make room, or let it be written to, and run the same command again: it continues with what "
    "is there."
)


@contextmanager
def writing_whole(path: Path, remedy: str = MAKE_ROOM) -> Iterator[BinaryIO]:
    """A file to write; it takes its name when the context ends well, and is on the disk then.

    Its folder is made. What stood there before stays until then, also through a kill or a full
    disk. Raises DataError with the remedy.
    """
    part = path.with_name(path.name + ".part")
    with reporting(path, remedy):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # the first failure is the one to tell
                part.unlink(missing_ok=True)
            raise


def write_whole(path: Path, content: bytes | str, remedy: str = MAKE_ROOM) -> None:
    """Write a file that appears whole or not at all. Raises DataError with the remedy."""
    with writing_whole(path, remedy) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, document: Mapping[str, Any], remedy: str = MAKE_ROOM) -> None:
    """Write a JSON file that appears whole or not at all. Raises DataError with the remedy."""
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n", remedy)


def make_folder(folder: Path, remedy: str = MAKE_ROOM) -> None:
    """Make a folder where there is none. Raises DataError with the remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {_reason(error)}. {remedy}") from error


@contextmanager
def reporting(path: Path, remedy: str = MAKE_ROOM) -> Iterator[None]:
    """Turn an OSError of the context into a DataError: this path cannot be written."""
    try:
        yield
    except OSError as error:
        raise not_written(path, error, remedy) from error


def not_written(path: Path, error: BaseException, remedy: str = MAKE_ROOM) -> DataError:
    """What to raise for a failed write."""
    return DataError(f"{path} cannot be written: {_reason(error)}. {remedy}")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).partition("\n")[0]


def _sync_folder(folder: Path) -> None:
    """The rename itself reaches the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
