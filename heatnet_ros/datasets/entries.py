"""Entries of annotation files: what BOP's JSON and LINEMOD's YAML have in common.

Both name a camera ``cam_K`` and ``depth_scale``, a pose ``cam_R_m2c`` and ``cam_t_m2c``, and
count in millimetres.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray

T = TypeVar("T")

M_PER_MM = 1e-3


def read_annotations(path: Path) -> str:
    """Text of an annotation file. Raises DataError naming it when it cannot be read."""
    try:
        return path.read_text()
    except OSError as error:
        raise DataError(
            f"Data set file {path} cannot be read: {error.strerror}. Check that the folder is "
            "complete."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"Data set file {path} is not text: {error}. It is damaged: download it again."
        ) from error


def load_json(path: Path, kind: type) -> Any:
    """Read a JSON file whose top is a ``kind`` (dict or list). Raises DataError naming the file."""
    text = read_annotations(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"Data set file {path} is not valid JSON: {error}. It is damaged: download it again."
        ) from error
    if not isinstance(content, kind):
        raise DataError(
            f"Data set file {path}: expected a JSON {kind.__name__}, got {content!r:.60}."
        )
    return content


def parse_entry(path: Path, key: object, parse: Callable[..., T], *arguments: Any) -> T:
    """Run a parser of one entry; a wrong entry becomes a DataError naming file and entry."""
    try:
        return parse(*arguments)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"Data set file {path}, entry {key}: missing or malformed {error}. It is damaged: "
            "download it again."
        ) from error


def parse_camera(entry: Mapping[str, Any]) -> tuple[FloatArray, float]:
    """3x3 K and metres per unit of the depth image (``depth_scale`` gives millimetres)."""
    K = np.array(entry["cam_K"], np.float64).reshape(3, 3)
    return K, float(entry.get("depth_scale", 1.0)) * M_PER_MM


def parse_pose(entry: Mapping[str, Any]) -> FloatArray:
    """4x4 T_camera_object in metres."""
    R = nearest_rotation(np.array(entry["cam_R_m2c"], np.float64).reshape(3, 3))
    t_m = np.array(entry["cam_t_m2c"], np.float64).reshape(3) * M_PER_MM
    if not np.all(np.isfinite(t_m)):
        raise ValueError(f"translation (not finite): {t_m.tolist()}")
    return se3.make_transform(R, t_m)


def parse_box(values: Any) -> tuple[float, float, float, float] | None:
    """First and last pixel of a box given as top-left pixel and size; None where it is empty."""
    x, y, w, h = (float(value) for value in values)
    # BOP writes -1 as size where nothing is visible
    return (x, y, x + w - 1, y + h - 1) if w > 0 and h > 0 else None


def nearest_rotation(R: FloatArray) -> FloatArray:
    """Nearest rotation. LM-O's published ones carry a scale of up to 1.005, others are rounded.

    Raises ValueError where R is none.
    """
    # written so that NaN fails too
    if not (np.abs(R @ R.T - np.eye(3)).max() <= 0.02 and np.linalg.det(R) > 0):
        raise ValueError(f"rotation (not orthonormal): {R.ravel().tolist()}")
    return se3.orthonormalize(R)


def list_names(folder: Path) -> frozenset[str]:
    """File names in a folder, empty where there is none: one listing instead of many look-ups."""
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries)
