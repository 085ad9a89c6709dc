"""Shards of training samples: uncompressed .npz files, read without loading them into memory.

Large arrays are mapped, so that several trainings share one copy in the page cache and a data set
may be larger than the memory.
"""

from __future__ import annotations

import ast
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.files import writing_whole

MAPPED_KEYS = ("rgb", "depth", "mask", "frames")


class ShardedArray:
    """Arrays of several shards as one: ``array[i]`` is a row (read-only, from the mapped file)."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as if the parts were concatenated."""
        return (len(self), *self._parts[0].shape[1:])

    def __getitem__(self, i: int) -> NDArray[Any]:
        part = int(np.searchsorted(self._ends, i, side="right"))
        start = int(self._ends[part - 1]) if part else 0
        return np.asarray(self._parts[part][int(i) - start])


def write_shard(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a shard; it appears whole or not at all. Raises DataError when it cannot be written."""
    with writing_whole(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_shards(
    folder: Path, keys: tuple[str, ...], first: int = 0, last: int | None = None
) -> Mapping[str, Any]:
    """Arrays of shards ``first``..``last``; frame numbers in boxes become global.

    Images are ``ShardedArray``s, everything else is concatenated. Raises DataError without shards
    and where they do not fit each other.
    """
    paths = sorted(folder.glob("shard_*.npz"))[first:last]
    if not paths:
        raise DataError(
            f"No shards in {folder} (wanted {first} to {last}). They are made from a data set by "
            "`python -m heatnet_ros train`; render one: python -m heatnet_ros synthesize --help"
        )
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in keys}
    frames = 0
    for path in paths:
        shard = map_shard(path)
        missing = set(keys) - set(shard)
        if missing:
            raise DataError(f"{path} has no {', '.join(sorted(missing))}. Delete it: made anew.")
        for key in keys:
            array = shard[key]
            if key == "boxes":
                array = array + np.array([frames, 0, 0, 0, 0, 0, 0], array.dtype)
            parts[key].append(array)
        if "boxes" in keys:
            frames += len(shard["frames"])
    for key, arrays in parts.items():
        shapes = sorted({array.shape[1:] for array in arrays})
        if len(shapes) > 1:
            raise DataError(
                f"Shards of {folder} have '{key}' of {shapes[0]} and of {shapes[1]}: expected one "
                "shape. Data sets that are joined need the same cache_px and object library, and "
                "for a detector images of the same shape; folders of shards must come from such."
            )
    return {
        key: ShardedArray(arrays) if key in MAPPED_KEYS else np.concatenate(arrays)
        for key, arrays in parts.items()
    }


def map_shard(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of one shard by name, mapped read-only. Raises DataError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {
                info.filename.removesuffix(".npy"): _map_member(path, file, info)
                for info in archive.infolist()
            }
    except (OSError, ValueError, zipfile.BadZipFile, struct.error) as error:
        raise DataError(f"Shard {path} is damaged: {error}. Delete it: it is made anew.") from error


def _map_member(path: Path, file: Any, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    file.seek(name_length + extra_length, os.SEEK_CUR)
    major, _ = np.lib.format.read_magic(file)
    length = struct.unpack("<H" if major == 1 else "<I", file.read(2 if major == 1 else 4))[0]
    header = ast.literal_eval(file.read(length).decode("latin1"))
    dtype = np.dtype(header["descr"])
    if header["fortran_order"] or not np.prod(header["shape"]):
        return np.zeros(header["shape"], dtype)
    return np.memmap(path, dtype, "r", file.tell(), header["shape"])
