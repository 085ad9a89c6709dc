"""The BOP layout (https://bop.felk.cvut.cz): scenes with true poses, targets, models, results.

BOP's millimetres become metres here and nowhere else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.datasets.completeness import (
    check_annotations,
    check_masks,
    note_missing_depth,
    note_missing_visibility,
)
from heatnet_ros.datasets.entries import (
    M_PER_MM,
    list_names,
    load_json,
    nearest_rotation,
    parse_box,
    parse_camera,
    parse_entry,
    parse_pose,
)
from heatnet_ros.datasets.images import load_depth_m, load_rgb
from heatnet_ros.errors import DataError
from heatnet_ros.files import write_whole
from heatnet_ros.geometry import se3
from heatnet_ros.types import FloatArray, Frame

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
    """One image of a scene; pixels are read by ``load_frame`` and ``load_mask``.

    K 3x3. depth_path is None where the scene has no depth for this image. truths is empty where
    the image shows no object, and where the data set says nothing of it: then truth_known is
    False. mask_visib_paths: one for each truth, None where the data set has no mask of what is
    visible of it.
    """

    scene_id: int
    image_id: int
    rgb_path: Path
    depth_path: Path | None
    K: FloatArray
    metres_per_depth_unit: float
    truths: tuple[ObjectTruth, ...]
    mask_visib_paths: tuple[Path | None, ...] = ()
    truth_known: bool = True

    def load_frame(self) -> Frame:
        """Read colour and, where there is one, depth. Raises DataError naming the file."""
        rgb = load_rgb(self.rgb_path)
        depth = None
        if self.depth_path is not None:
            depth = load_depth_m(self.depth_path, self.metres_per_depth_unit, rgb.shape[:2])
        return Frame(rgb, self.K, depth, frame_id=f"{self.scene_id:06d}/{self.image_id:06d}")

    def load_mask(self, index: int, size_hw: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Read the mask of what is visible of ``truths[index]``: HxW bool.

        Raises DataError when the data set has none, when the file is missing or damaged, or when
        it has another size than ``size_hw``.
        """
        path = self.mask_visib_paths[index] if index < len(self.mask_visib_paths) else None
        if path is None:
            raise DataError(
                f"Scene {self.scene_id}, image {self.image_id} has no visible mask of its object "
                f"{index}. Expected mask_visib/{self.image_id:06d}_{index:06d}.png in its folder."
            )
        return load_mask_file(path, size_hw)


@dataclass(frozen=True, eq=False)
class BopScene:
    """One scene folder: its images in the order of their ids, and whether it has truth.

    object_names: what models_info.json calls the objects, see ``load_object_names``.
    """

    folder: Path
    scene_id: int
    dataset: str
    images: tuple[BopImage, ...]
    has_truth: bool
    object_names: Mapping[int, str] = field(default_factory=dict)

    def name_of(self, obj_id: int) -> str:
        """Library name of an object of this scene."""
        return object_name(obj_id, self.dataset, self.object_names)


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


def object_name(obj_id: int, dataset: str, names: Mapping[int, str] | None = None) -> str:
    """Library name of a BOP object.

    It is the one in ``names`` (``load_object_names``), else LINEMOD's in lm and lmo, else
    ``obj_000001``.
    """
    if names and obj_id in names:
        return names[obj_id]
    if dataset in _LINEMOD_DATASETS and obj_id in LINEMOD_NAMES:
        return LINEMOD_NAMES[obj_id]
    return f"obj_{obj_id:06d}"


def object_id(name: str, dataset: str, names: Mapping[int, str] | None = None) -> int:
    """BOP id of a library name, the inverse of ``object_name``.

    Raises DataError for a name the data set cannot have.
    """
    known = dict(names or {})
    if dataset in _LINEMOD_DATASETS:
        known = LINEMOD_NAMES | known
    for obj_id, candidate in known.items():
        if candidate == name:
            return obj_id
    number = name.removeprefix("obj_")
    if number != name and number.isdigit() and int(number) not in (names or {}):
        return int(number)
    listed = [*known.values()] or ["obj_000001", "..."]
    raise DataError(
        f"Object '{name}' has no id in BOP data set '{dataset}', whose names are "
        f"{', '.join(listed)}. Use the object library of this data set."
    )


def load_object_names(dataset_folder: Path) -> dict[int, str]:
    """Names that the data set itself gives its objects: obj_id -> library name.

    They stand in models/models_info.json (or models_eval, models_cad, ...) under the extra key
    ``name``, which ``synthesize`` writes; BOP's own sets have none, and then the result is empty.
    Raises DataError naming the file when it is damaged or gives a name twice.
    """
    candidates = sorted(dataset_folder.glob("models*/models_info.json"))
    return read_object_names(candidates[0]) if candidates else {}


def read_object_names(path: Path) -> dict[int, str]:
    """Names in this models_info.json, see ``load_object_names``."""
    names: dict[int, str] = {}
    for key, entry in load_json(path, dict).items():
        name = parse_entry(path, key, lambda e: e.get("name"), entry)
        if name is None:
            continue
        if not isinstance(name, str) or not name or name in names.values():
            raise DataError(
                f"Data set file {path}, entry {key}: expected a name of its own for each object, "
                f"got {name!r}. Write the data set again."
            )
        names[parse_entry(path, key, int, key)] = name
    return names


def is_scene(folder: Path) -> bool:
    """Whether a folder is a BOP scene (it has a scene_camera.json)."""
    return (folder / "scene_camera.json").is_file()


def load_split(folder: Path) -> list[BopScene]:
    """Read every scene of a split such as ``lmo/test``.

    Raises DataError when it has none, and when some have files of truth that others lack. Notes on
    stderr that images lack the depth that others have, and that the visible parts are unknown.
    """
    scenes = [p for p in sorted(folder.iterdir()) if is_scene(p)] if folder.is_dir() else []
    if not scenes:
        raise DataError(
            f"{folder} is no BOP split: expected scene folders such as 000002 with a "
            "scene_camera.json. Give the folder above the scenes, for instance lmo/test."
        )
    check_annotations(scenes)
    names = load_object_names(folder.resolve().parent)
    loaded = [load_scene(scene, names) for scene in scenes]
    images = [image for scene in loaded for image in scene.images]
    note_missing_depth(folder, sum(image.depth_path is not None for image in images), len(images))
    note_missing_visibility(scenes)
    return loaded


def load_scene(folder: Path, object_names: Mapping[int, str] | None = None) -> BopScene:
    """Read a scene folder's JSON files and list its images; no pixel is read.

    object_names: the data set's, where they are known already, else they are read.
    Raises DataError naming the file when one is missing, damaged or contradicts another.
    """
    cameras = load_json(folder / "scene_camera.json", dict)
    truth_path, info_path = folder / "scene_gt.json", folder / "scene_gt_info.json"
    truths = load_json(truth_path, dict) if truth_path.exists() else {}
    infos = load_json(info_path, dict) if truths and info_path.exists() else {}
    if not folder.name.isdigit():
        raise DataError(f"BOP scene {folder}: expected a number such as 000002 as folder name.")
    dataset_folder = folder.resolve().parent.parent
    if object_names is None:
        object_names = load_object_names(dataset_folder)
    files = _SceneFiles(folder)
    images = []
    for key, camera in cameras.items():
        where = folder / "scene_camera.json"
        image_id = parse_entry(where, key, int, key)
        K, metres_per_unit = parse_entry(where, key, parse_camera, camera)
        entry, info = truths.get(key, []), infos.get(key)
        if infos and len(info or ()) != len(entry):
            raise DataError(
                f"{info_path}: image {key} has {len(info or ())} entries, {truth_path.name} has "
                f"{len(entry)}; expected the same. Download the scene again."
            )
        images.append(
            BopImage(
                int(folder.name),
                image_id,
                files.find("rgb", image_id) or files.find("gray", image_id) or files.rgb(image_id),
                files.find("depth", image_id),
                K,
                metres_per_unit,
                parse_entry(truth_path, key, _parse_truths, entry, info),
                tuple(files.find_mask(image_id, place) for place in range(len(entry))),
                key in truths,
            )
        )
    images.sort(key=lambda image: image.image_id)
    files.check_masks(images)
    return BopScene(
        folder, int(folder.name), dataset_folder.name, tuple(images), bool(truths), object_names
    )


class _SceneFiles:
    """Finds the files of a scene by listing each folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kinds = ("rgb", "gray", "depth", "mask_visib")
        self._names = {kind: list_names(folder / kind) for kind in kinds}

    def find(self, kind: str, image_id: int) -> Path | None:
        for suffix in (".png", ".jpg", ".tif"):
            name = f"{image_id:06d}{suffix}"
            if name in self._names[kind]:
                return self._folder / kind / name
        return None

    def find_mask(self, image_id: int, place: int) -> Path | None:
        name = _mask_name(image_id, place)
        return self._folder / "mask_visib" / name if name in self._names["mask_visib"] else None

    def check_masks(self, images: Sequence[BopImage]) -> None:
        """Raise DataError where some objects have a mask and others, that are seen, have none.

        Images that are not there need none: parts of a data set keep the JSON files of the whole.
        """
        needed = [
            _mask_name(image.image_id, place)
            for image in images
            if image.rgb_path.name in self._names[image.rgb_path.parent.name]
            for place, truth in enumerate(image.truths)
            if truth.visible_fraction != 0
        ]
        check_masks(self._folder / "mask_visib", needed, self._names["mask_visib"])

    def rgb(self, image_id: int) -> Path:
        """Where the colour image should be: reading it then fails with this name."""
        return self._folder / "rgb" / f"{image_id:06d}.png"


def _mask_name(image_id: int, place: int) -> str:
    return f"{image_id:06d}_{place:06d}.png"


def load_mask_file(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read a mask image, any channel above 0 is true: HxW bool. Raises DataError naming it."""
    if not path.is_file():
        raise DataError(f"Mask {path} does not exist. Check that the folder is complete.")
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise DataError(f"Mask {path} cannot be decoded. The file is damaged: copy it again.")
    # a fourth channel is opacity
    seen: NDArray[np.bool_] = mask > 0 if mask.ndim == 2 else np.any(mask[:, :, :3] > 0, axis=2)
    if size_hw is not None and seen.shape != size_hw:
        raise DataError(
            f"Mask {path} is {seen.shape[1]}x{seen.shape[0]}, the colour image is "
            f"{size_hw[1]}x{size_hw[0]}; expected the same size. Download the scene again."
        )
    return seen


def load_targets(path: Path) -> list[Target]:
    """Read a targets file such as test_targets_bop19.json."""
    entries = load_json(path, list)
    keys = ("scene_id", "im_id", "obj_id", "inst_count")
    return [
        parse_entry(path, str(i), lambda e: Target(*(int(e[key]) for key in keys)), entry)
        for i, entry in enumerate(entries)
    ]


def load_models_info(path: Path) -> dict[int, ModelInfo]:
    """Read models_info.json: obj_id -> diameter and symmetries in metres."""
    content = load_json(path, dict)
    return {
        parse_entry(path, key, int, key): parse_entry(path, key, _parse_model_info, entry)
        for key, entry in content.items()
    }


def write_results(path: Path, results: Sequence[BopResult]) -> None:
    """Write a BOP results CSV: scene_id,im_id,obj_id,score,R,t,time; t in mm, R row-major."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["scene_id", "im_id", "obj_id", "score", "R", "t", "time"])
    for r in results:
        R = " ".join(f"{value:.9g}" for value in r.T_camera_object[:3, :3].ravel())
        t = " ".join(f"{value / M_PER_MM:.6f}" for value in r.T_camera_object[:3, 3])
        score, time = f"{r.score:.6g}", f"{r.time_s:.6g}"
        writer.writerow([r.scene_id, r.image_id, r.obj_id, score, R, t, time])
    write_whole(path, file.getvalue())


def _parse_truths(
    entries: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]] | None
) -> tuple[ObjectTruth, ...]:
    truths = []
    for i, entry in enumerate(entries):
        fraction, box = None, None
        if infos is not None:
            fraction, box = float(infos[i]["visib_fract"]), parse_box(infos[i]["bbox_visib"])
        truths.append(ObjectTruth(int(entry["obj_id"]), parse_pose(entry), fraction, box))
    return tuple(truths)


def _parse_model_info(entry: Mapping[str, Any]) -> ModelInfo:
    symmetries: list[dict[str, Any]] = []
    for values in entry.get("symmetries_discrete", []):
        S = np.array(values, np.float64).reshape(4, 4)
        S = se3.make_transform(nearest_rotation(S[:3, :3]), S[:3, 3] * M_PER_MM)
        symmetries.append({"matrix": [float(value) for value in S.ravel()]})
    for turn in entry.get("symmetries_continuous", []):
        point_m = [float(value) * M_PER_MM for value in turn.get("offset", (0, 0, 0))]
        axis = [float(value) for value in turn["axis"]]
        symmetries.append({"axis": axis, "continuous": True, "point_m": point_m})
    return ModelInfo(float(entry["diameter"]) * M_PER_MM, symmetries)
