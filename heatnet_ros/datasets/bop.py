"""The BOP layout (https://bop.felk.cvut.cz): scenes with true poses, targets, models, results.

BOP's millimetres become metres here and nowhere else.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from heatnet_ros.datasets.images import load_depth_m, load_rgb
from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray, Frame

T = TypeVar("T")

M_PER_MM = 1e-3

LINEMOD_NAMES = {
    1: "ape", 2: "benchvise", 3: "bowl", 4: "cam", 5: "can", 6: "cat", 7: "cup", 8: "driller",
    9: "duck", 10: "eggbox", 11: "glue", 12: "holepuncher", 13: "iron", 14: "lamp", 15: "phone",
}  # fmt: skip
_LINEMOD_DATASETS = ("lm", "lmo")


@dataclass(frozen=True, eq=False)
class ObjectTruth:
    """The true pose of one object instance (metres).

    visible_fraction: visible part of the silhouette, 0..1, or None without scene_gt_info.json.
    bbox_xyxy_px: box of the visible part (first and last pixel), or None where it is unknown or
    nothing is visible.
    """

    obj_id: int
    T_camera_object: FloatArray
    visible_fraction: float | None
    bbox_xyxy_px: tuple[float, float, float, float] | None


@dataclass(frozen=True, eq=False)
class BopImage:
    """One image of a scene; pixels are read by ``load_frame``.

    K 3x3. depth_path is None where the scene has no depth for this image. truths is empty where
    the data set keeps its ground truth secret.
    """

    scene_id: int
    image_id: int
    rgb_path: Path
    depth_path: Path | None
    K: FloatArray
    metres_per_depth_unit: float
    truths: tuple[ObjectTruth, ...]

    def load_frame(self) -> Frame:
        """Read colour and, where there is one, depth. Raises DataError naming the file."""
        rgb = load_rgb(self.rgb_path)
        depth = None
        if self.depth_path is not None:
            depth = load_depth_m(self.depth_path, self.metres_per_depth_unit, rgb.shape[:2])
        return Frame(rgb, self.K, depth, frame_id=f"{self.scene_id:06d}/{self.image_id:06d}")


@dataclass(frozen=True, eq=False)
class BopScene:
    """One scene folder: its images in the order of their ids, and whether it has truth."""

    folder: Path
    scene_id: int
    dataset: str
    images: tuple[BopImage, ...]
    has_truth: bool


@dataclass(frozen=True)
class Target:
    """One line of a targets file: how many instances of an object to find in an image."""

    scene_id: int
    image_id: int
    obj_id: int
    count: int


@dataclass(frozen=True)
class ModelInfo:
    """One entry of models_info.json; symmetries as the object library writes them (metres)."""

    diameter_m: float
    symmetries: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class BopResult:
    """One estimated pose for the results file; time_s is that of the whole image."""

    scene_id: int
    image_id: int
    obj_id: int
    score: float
    T_camera_object: FloatArray
    time_s: float


def object_name(obj_id: int, dataset: str) -> str:
    """Library name of a BOP object: LINEMOD's names in lm and lmo, else ``obj_000001``."""
    if dataset in _LINEMOD_DATASETS and obj_id in LINEMOD_NAMES:
        return LINEMOD_NAMES[obj_id]
    return f"obj_{obj_id:06d}"


def object_id(name: str, dataset: str) -> int:
    """BOP id of a library name. Raises DataError for a name the data set cannot have."""
    if dataset in _LINEMOD_DATASETS:
        for obj_id, known in LINEMOD_NAMES.items():
            if known == name:
                return obj_id
    number = name.removeprefix("obj_")
    if number != name and number.isdigit():
        return int(number)
    names = [*LINEMOD_NAMES.values()] if dataset in _LINEMOD_DATASETS else ["obj_000001", "..."]
    raise DataError(
        f"Object '{name}' has no id in BOP data set '{dataset}', whose names are "
        f"{', '.join(names)}. Use the object library of this data set."
    )


def is_scene(folder: Path) -> bool:
    """Whether a folder is a BOP scene (it has a scene_camera.json)."""
    return (folder / "scene_camera.json").is_file()


def load_split(folder: Path) -> list[BopScene]:
    """Read every scene of a split such as ``lmo/test``. Raises DataError when it has none."""
    scenes = [p for p in sorted(folder.iterdir()) if is_scene(p)] if folder.is_dir() else []
    if not scenes:
        raise DataError(
            f"{folder} is no BOP split: expected scene folders such as 000002 with a "
            "scene_camera.json. Give the folder above the scenes, for instance lmo/test."
        )
    return [load_scene(scene) for scene in scenes]


def load_scene(folder: Path) -> BopScene:
    """Read a scene folder's JSON files and list its images; no pixel is read.

    Raises DataError naming the file when one is missing, damaged or contradicts another.
    """
    cameras = _load_json(folder / "scene_camera.json", dict)
    truth_path, info_path = folder / "scene_gt.json", folder / "scene_gt_info.json"
    truths = _load_json(truth_path, dict) if truth_path.exists() else {}
    infos = _load_json(info_path, dict) if truths and info_path.exists() else {}
    if not folder.name.isdigit():
        raise DataError(f"BOP scene {folder}: expected a number such as 000002 as folder name.")
    scene_id = int(folder.name)
    images = []
    for key, camera in cameras.items():
        where = folder / "scene_camera.json"
        image_id = _parsed(where, key, int, key)
        K, metres_per_unit = _parsed(where, key, _parse_camera, camera)
        entry, info = truths.get(key, []), infos.get(key)
        if info is not None and len(info) != len(entry):
            raise DataError(
                f"{info_path}: image {key} has {len(info)} entries, {truth_path.name} has "
                f"{len(entry)}; expected the same. Download the scene again."
            )
        rgb, depth = _find_image(folder, image_id), folder / "depth" / f"{image_id:06d}.png"
        parsed = _parsed(truth_path, key, _parse_truths, entry, info)
        images.append(
            BopImage(
                scene_id,
                image_id,
                rgb,
                depth if depth.exists() else None,
                K,
                metres_per_unit,
                parsed,
            )
        )
    images.sort(key=lambda image: image.image_id)
    dataset = folder.resolve().parent.parent.name
    return BopScene(folder, scene_id, dataset, tuple(images), has_truth=bool(truths))


def load_targets(path: Path) -> list[Target]:
    """Read a targets file such as test_targets_bop19.json."""
    entries = _load_json(path, list)
    keys = ("scene_id", "im_id", "obj_id", "inst_count")
    return [
        _parsed(path, str(i), lambda e: Target(*(int(e[key]) for key in keys)), entry)
        for i, entry in enumerate(entries)
    ]


def load_models_info(path: Path) -> dict[int, ModelInfo]:
    """Read models_info.json: obj_id -> diameter and symmetries in metres."""
    content = _load_json(path, dict)
    return {
        _parsed(path, key, int, key): _parsed(path, key, _parse_model_info, entry)
        for key, entry in content.items()
    }


def write_results(path: Path, results: Sequence[BopResult]) -> None:
    """Write a BOP results CSV: scene_id,im_id,obj_id,score,R,t,time; t in mm, R row-major."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scene_id", "im_id", "obj_id", "score", "R", "t", "time"])
        for r in results:
            R = " ".join(f"{value:.9g}" for value in r.T_camera_object[:3, :3].ravel())
            t = " ".join(f"{value / M_PER_MM:.6f}" for value in r.T_camera_object[:3, 3])
            score, time = f"{r.score:.6g}", f"{r.time_s:.6g}"
            writer.writerow([r.scene_id, r.image_id, r.obj_id, score, R, t, time])


def _load_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            f"BOP file {path} cannot be read: {error.strerror}. Check that the folder is complete."
        ) from error
    except ValueError as error:
        raise DataError(
            f"BOP file {path} is not valid JSON: {error}. It is damaged: download it again."
        ) from error
    if not isinstance(content, kind):
        raise DataError(f"BOP file {path}: expected a JSON {kind.__name__}, got {content!r:.60}.")
    return content


def _parsed(path: Path, key: str, parse: Callable[..., T], *arguments: Any) -> T:
    """Run a parser of one entry; a wrong entry becomes a DataError naming file and entry."""
    try:
        return parse(*arguments)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"BOP file {path}, entry {key}: missing or malformed {error}. It is damaged: "
            "download it again."
        ) from error


def _parse_camera(entry: Mapping[str, Any]) -> tuple[FloatArray, float]:
    """3x3 K and metres per unit of the depth image (BOP's depth_scale gives millimetres)."""
    K = np.array(entry["cam_K"], np.float64).reshape(3, 3)
    return K, float(entry.get("depth_scale", 1.0)) * M_PER_MM


def _parse_truths(
    entries: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]] | None
) -> tuple[ObjectTruth, ...]:
    truths = []
    for i, entry in enumerate(entries):
        R = _rotation(np.array(entry["cam_R_m2c"], np.float64).reshape(3, 3))
        t_m = np.array(entry["cam_t_m2c"], np.float64).reshape(3) * M_PER_MM
        fraction, box = None, None
        if infos is not None:
            fraction = float(infos[i]["visib_fract"])
            x, y, w, h = (float(v) for v in infos[i]["bbox_visib"])
            # BOP: top-left pixel and size; -1 and 0 where nothing is visible
            box = (x, y, x + w - 1, y + h - 1) if w > 0 and h > 0 else None
        T_camera_object = se3.make_transform(R, t_m)
        truths.append(ObjectTruth(int(entry["obj_id"]), T_camera_object, fraction, box))
    return tuple(truths)


def _parse_model_info(entry: Mapping[str, Any]) -> ModelInfo:
    symmetries: list[dict[str, Any]] = []
    for values in entry.get("symmetries_discrete", []):
        S = np.array(values, np.float64).reshape(4, 4)
        S = se3.make_transform(_rotation(S[:3, :3]), S[:3, 3] * M_PER_MM)
        symmetries.append({"matrix": [float(value) for value in S.ravel()]})
    for turn in entry.get("symmetries_continuous", []):
        point_m = [float(value) * M_PER_MM for value in turn.get("offset", (0, 0, 0))]
        axis = [float(value) for value in turn["axis"]]
        symmetries.append({"axis": axis, "continuous": True, "point_m": point_m})
    return ModelInfo(float(entry["diameter"]) * M_PER_MM, symmetries)


def _rotation(R: FloatArray) -> FloatArray:
    """Nearest rotation. LM-O's published ones carry a scale of up to 1.005, others are rounded."""
    if not np.allclose(R @ R.T, np.eye(3), atol=0.02) or np.linalg.det(R) < 0:
        raise ValueError(f"rotation (not orthonormal): {R.ravel().tolist()}")
    return se3.orthonormalize(R)


def _find_image(folder: Path, image_id: int) -> Path:
    candidates = [folder / "rgb" / f"{image_id:06d}{suffix}" for suffix in (".png", ".jpg")]
    return next((path for path in candidates if path.exists()), candidates[0])
