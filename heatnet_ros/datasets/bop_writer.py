"""Write data sets in the BOP layout (https://bop.felk.cvut.cz): scenes that appear whole, models.

Metres become BOP's millimetres here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.files import write_whole
from heatnet_ros.geometry.symmetry import Symmetries
from heatnet_ros.mesh import Mesh, write_ply
from heatnet_ros.types import DepthF32, FloatArray, ImageU8

MM = 1e3


@dataclass(frozen=True, eq=False)
class WrittenObject:
    """One object instance in an image. mask: HxW bool, what is seen of it.

    box_xywh_px: box of the whole silhouette, which may reach beyond the image. pixels: of the
    whole silhouette, of its part with valid depth inside the image, and of what is seen.
    """

    obj_id: int
    T_camera_object: FloatArray
    mask: NDArray[np.bool_]
    box_xywh_px: tuple[int, int, int, int]
    pixels: tuple[int, int, int]


class SceneWriter:
    """Collects images in ``<folder>.part``; ``close`` gives the folder its name.

    A folder that is there already is replaced then.

    Raises DataError when the disk is full; what was written of the scene is removed then.
    """

    def __init__(self, folder: Path, jpeg_quality: int = 92) -> None:
        self.folder, self._quality = folder, jpeg_quality
        self._part = folder.with_name(folder.name + ".part")
        for left_over in (self._part, folder.with_name(folder.name + ".old")):
            shutil.rmtree(left_over, ignore_errors=True)
        for name in ("rgb", "depth", "mask_visib"):
            try:
                (self._part / name).mkdir(parents=True)
            except OSError as error:
                raise self._failed(name, str(error.strerror)) from error
        self._truths: dict[str, list[dict[str, Any]]] = {}
        self._infos: dict[str, list[dict[str, Any]]] = {}
        self._cameras: dict[str, dict[str, Any]] = {}

    def add(
        self, rgb: ImageU8, depth_m: DepthF32, K: FloatArray, objects: Sequence[WrittenObject]
    ) -> None:
        """Append an image. Depth is stored in whole millimetres."""
        number = len(self._cameras)
        name = f"{number:06d}"
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        self._write(f"rgb/{name}.jpg", np.ascontiguousarray(rgb[..., ::-1]), jpeg)
        millimetres = np.clip(np.rint(depth_m * MM), 0, 65535).astype(np.uint16)
        self._write(f"depth/{name}.png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        for i, item in enumerate(objects):
            mask = item.mask.astype(np.uint8) * 255
            self._write(f"mask_visib/{name}_{i:06d}.png", mask, [cv2.IMWRITE_PNG_BILEVEL, 1])
        key = str(number)
        self._truths[key] = [_truth(item) for item in objects]
        self._infos[key] = [_info(item) for item in objects]
        self._cameras[key] = {"cam_K": K.ravel().tolist(), "depth_scale": 1.0}

    def close(self) -> Path:
        """Write the JSON files and put the scene in its place."""
        for name, content in (
            ("scene_gt.json", self._truths),
            ("scene_gt_info.json", self._infos),
            ("scene_camera.json", self._cameras),
        ):
            try:
                (self._part / name).write_text(_lines(content))
            except OSError as error:
                raise self._failed(name, str(error.strerror)) from error
        if self.folder.exists():  # renamed before it goes: half a scene must not look whole
            old = self.folder.with_name(self.folder.name + ".old")
            os.replace(self.folder, old)
            _remove_scene(old)
        os.replace(self._part, self.folder)
        return self.folder

    def _write(self, name: str, image: NDArray[Any], options: Sequence[int]) -> None:
        # encoded in memory: imwrite does not tell a full disk from success
        done, data = cv2.imencode(Path(name).suffix, image, options)
        if not done:
            raise self._failed(name, "it cannot be encoded")
        try:
            (self._part / name).write_bytes(data.tobytes())
        except OSError as error:
            raise self._failed(name, str(error.strerror)) from error

    def _failed(self, name: str, reason: str) -> DataError:
        shutil.rmtree(self._part, ignore_errors=True)
        return DataError(
            f"{self.folder / name} cannot be written: {reason}. Make room (an image takes about "
            "0.3 MB) and run the same command again: it continues after the last whole scene."
        )


def _remove_scene(folder: Path) -> None:
    """Remove a scene folder; what makes it a scene to readers goes first."""
    (folder / "scene_camera.json").unlink(missing_ok=True)
    shutil.rmtree(folder)


def _truth(item: WrittenObject) -> dict[str, Any]:
    T = item.T_camera_object
    return {
        "cam_R_m2c": [float(v) for v in T[:3, :3].ravel()],
        "cam_t_m2c": [round(float(v) * MM, 6) for v in T[:3, 3]],
        "obj_id": item.obj_id,
    }


def _info(item: WrittenObject) -> dict[str, Any]:
    whole, valid, seen = item.pixels
    box = [-1, -1, -1, -1]
    if item.mask.any():
        ys, xs = np.flatnonzero(item.mask.any(axis=1)), np.flatnonzero(item.mask.any(axis=0))
        box = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
    return {
        "bbox_obj": list(item.box_xywh_px),
        "bbox_visib": box,
        "px_count_all": whole,
        "px_count_valid": valid,
        "px_count_visib": seen,
        "visib_fract": round(seen / whole, 6) if whole else 0.0,
    }


def _lines(content: Mapping[str, Any]) -> str:
    """JSON with one line per image, as BOP writes it."""
    rows = [f'  "{key}": {json.dumps(value)}' for key, value in content.items()]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def write_models(
    folder: Path,
    meshes: Mapping[str, Mesh],
    obj_ids: Mapping[str, int],
    diameters_m: Mapping[str, float],
    symmetries: Mapping[str, Symmetries],
) -> None:
    """Write ``models/obj_000001.ply`` (mm) and ``models_info.json`` with the objects' names.

    Raises DataError when they cannot be written.
    """
    infos = {}
    for name, mesh in meshes.items():
        obj_id = obj_ids[name]
        scaled = dataclasses.replace(mesh, vertices_m=mesh.vertices_m * MM)
        write_ply(folder / f"obj_{obj_id:06d}.ply", scaled)
        low, high = mesh.bounds_m * MM
        size = high - low
        infos[str(obj_id)] = {
            "name": name,
            "diameter": diameters_m[name] * MM,
            **{f"min_{c}": float(v) for c, v in zip("xyz", low, strict=True)},
            **{f"size_{c}": float(v) for c, v in zip("xyz", size, strict=True)},
            **_symmetries(symmetries[name]),
        }
    write_whole(folder / "models_info.json", _lines(infos))


def _symmetries(symmetries: Symmetries) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if len(symmetries.discrete) > 1:
        turns = []
        for T in symmetries.discrete[1:]:
            scaled = T.copy()
            scaled[:3, 3] *= MM
            turns.append([float(v) for v in scaled.ravel()])
        found["symmetries_discrete"] = turns
    if symmetries.axis is not None:
        point = np.zeros(3) if symmetries.point_m is None else symmetries.point_m
        found["symmetries_continuous"] = [
            {"axis": [float(v) for v in symmetries.axis], "offset": [float(v * MM) for v in point]}
        ]
    return found
