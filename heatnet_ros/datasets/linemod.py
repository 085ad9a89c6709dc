"""LINEMOD as ``Linemod_preprocessed``: the layout HeatNet and DenseFusion were trained from.

::

    data/01/{rgb,depth,mask}/0000.png   gt.yml   info.yml   train.txt   test.txt
    models/obj_01.ply   models/models_info.yml

One folder holds the images of one object, numbered from 0 as in BOP's edition ``lm``; 03 and 07
are absent. The structures are those of the BOP reader and the data set is called ``lm``, so that
names, ids and results files are BOP's. Millimetres become metres here.

Folder 02 (benchvise) annotates the other objects around it as well. They are kept only on demand
(``all_objects``): the paper, like the literature on LINEMOD, has one target in each image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from heatnet_ros.datasets.bop import LINEMOD_NAMES, BopImage, BopScene, ObjectTruth
from heatnet_ros.datasets.entries import (
    list_names,
    parse_box,
    parse_camera,
    parse_entry,
    parse_pose,
    read_annotations,
)
from heatnet_ros.errors import DataError
from heatnet_ros.types import FloatArray

DATASET = "lm"
# libyaml's loader reads a gt.yml of 1,200 images in 0.2 s, PyYAML's own in 2 s
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def list_object_folders(dataset: Path) -> list[Path]:
    """Object folders such as data/01 of a Linemod_preprocessed folder, sorted by id.

    Empty where the folder has another layout. A folder belongs to the layout by its gt.yml or
    info.yml, so that one that lost either is reported when it is read.
    """
    data = dataset / "data"
    if not data.is_dir():
        return []
    return sorted(
        child
        for child in data.iterdir()
        if child.name.isdigit() and ((child / "gt.yml").exists() or (child / "info.yml").exists())
    )


def load_frame_list(path: Path) -> list[int]:
    """Read train.txt or test.txt: one image number such as 0012 a line, in the file's order.

    Raises DataError naming file and line when one is no number, is there twice, or none is there.
    """
    frames: dict[int, None] = {}  # keeps the order
    for number, line in enumerate(read_annotations(path).splitlines(), start=1):
        text = line.strip()
        if not text:
            continue
        if not text.isdigit() or int(text) in frames:
            raise DataError(
                f"Data set file {path}, line {number}: expected the number of an image, each "
                f"once, such as 0012, got {text!r:.40}. It is damaged: download it again."
            )
        frames[int(text)] = None
    if not frames:
        raise DataError(f"Data set file {path} lists no image. It is damaged: download it again.")
    return list(frames)


def load_linemod_scene(
    folder: Path, frames: Collection[int] | None = None, all_objects: bool = False
) -> BopScene:
    """Read the annotations of one object folder such as data/01; no pixel is read.

    frames: numbers of the images to keep, all of them without. all_objects: keep the truth of
    every annotated object, not only of the folder's own. The masks show the folder's object; the
    others have none. ``visible_fraction`` is None (LINEMOD does not say it) and the box is the
    annotated one of the whole object. Raises DataError naming the file that is missing, damaged
    or contradicts another.
    """
    if not folder.name.isdigit() or int(folder.name) not in LINEMOD_NAMES:
        raise DataError(f"LINEMOD folder {folder}: expected an object's number such as 01 as name.")
    obj_id = int(folder.name)
    gt_path, info_path = folder / "gt.yml", folder / "info.yml"
    truths, cameras = _load_yaml(gt_path), _load_yaml(info_path)
    if truths.keys() != cameras.keys():
        odd = sorted(truths.keys() ^ cameras.keys(), key=str)[0]
        raise DataError(
            f"{gt_path} describes {len(truths)} images and {info_path} {len(cameras)}; expected "
            f"the same ones, image {odd} is in one of them only. Download the folder again."
        )
    missing = sorted(set(frames or ()) - truths.keys())
    if missing:
        raise DataError(
            f"{gt_path} describes no image {missing[0]}, which its split has ({len(missing)} such "
            f"in all, {len(truths)} described). It is cut off: download the folder again."
        )
    wanted = sorted(truths if frames is None else frames)
    present = {kind: list_names(folder / kind) for kind in ("rgb", "depth", "mask")}
    images = []
    for frame in wanted:
        if f"{frame:04d}.png" not in present["rgb"]:
            raise DataError(
                f"Image {folder / 'rgb' / f'{frame:04d}.png'} does not exist, {gt_path.name} "
                "describes it. Download the folder again."
            )
        only = None if all_objects else obj_id
        kept = parse_entry(gt_path, frame, _parse_truths, truths[frame], only)
        if not any(truth.obj_id == obj_id for truth in kept):
            raise DataError(
                f"Data set file {gt_path}, entry {frame}: object {obj_id} of this folder is not "
                "in it. It is damaged: download it again."
            )
        K, metres_per_unit = parse_entry(info_path, frame, _parse_camera, cameras[frame])
        depth, mask = (_path(folder, kind, frame, present[kind]) for kind in ("depth", "mask"))
        masks = tuple(mask if truth.obj_id == obj_id else None for truth in kept)
        rgb = folder / "rgb" / f"{frame:04d}.png"
        images.append(BopImage(obj_id, frame, rgb, depth, K, metres_per_unit, tuple(kept), masks))
    return BopScene(folder, obj_id, DATASET, tuple(images), True, LINEMOD_NAMES)


def _load_yaml(path: Path) -> dict[int, Any]:
    """Read a mapping from numbers. Raises DataError naming the file."""
    text = read_annotations(path)
    try:
        content = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise DataError(
            f"Data set file {path} is not valid YAML: {error}. It is damaged: download it again."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, int) for key in content):
        raise DataError(
            f"Data set file {path}: expected entries numbered 0:, 1:, ..., got {content!r:.60}. "
            "It is damaged: download it again."
        )
    return content


def _parse_camera(entry: Mapping[str, Any]) -> tuple[FloatArray, float]:
    if "depth_scale" not in entry:  # BOP may leave it out, here it was cut off
        raise KeyError("depth_scale")
    return parse_camera(entry)


def _parse_truths(entries: Sequence[Mapping[str, Any]], only: int | None) -> list[ObjectTruth]:
    """Truths of the object ``only``, or of all."""
    return [
        ObjectTruth(int(entry["obj_id"]), parse_pose(entry), None, parse_box(entry["obj_bb"]))
        for entry in entries
        if only in (None, int(entry["obj_id"]))
    ]


def _path(folder: Path, kind: str, frame: int, present: Collection[str]) -> Path | None:
    name = f"{frame:04d}.png"
    return folder / kind / name if name in present else None
