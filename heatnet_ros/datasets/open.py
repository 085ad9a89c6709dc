"""Open a data set folder whatever its layout: BOP or Linemod_preprocessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from heatnet_ros.datasets.bop import BopScene, is_scene, load_split
from heatnet_ros.datasets.linemod import list_object_folders, load_frame_list, load_linemod_scene
from heatnet_ros.datasets.splits import draw_paper_split
from heatnet_ros.errors import DataError

STANDARD_SPLITS = ("train", "test")
# the paper's 90/10, and its validation part with what is left to learn from (90 = 72 + 18)
PAPER_PARTS = {"train-90": "train", "test-10": "test", "val-18": "validation", "train-72": "fit"}
# "classes 03 and 07 were excluded due to inconsistency in annotations" (section 3.2)
_EXCLUDED_BY_PAPER = (3, 7)


def open_dataset(folder: Path, split: str) -> list[BopScene]:
    """Scenes of a split of a data set; annotations only, pixels are read image by image.

    BOP: ``split`` is the name of a folder such as train_pbr or test. Linemod_preprocessed:
    ``train`` and ``test`` are the lists of the literature. ``train-90`` and ``test-10`` are the
    paper's split (``splits.py``) of Linemod_preprocessed and of BOP's edition of LINEMOD
    (``lm/test``); ``val-18`` is its validation part and ``train-72`` the rest of ``train-90``.
    Raises DataError naming what was expected and what was found.
    """
    if not folder.is_dir():
        raise DataError(
            f"Data set {folder} does not exist. Give the folder above the splits "
            "(`download lmo --out data` fetches one)."
        )
    linemod_folders = list_object_folders(folder)
    if linemod_folders:
        return [_open_linemod(path, split) for path in linemod_folders]
    if split in PAPER_PARTS and folder.resolve().name == "lm" and list_splits(folder):
        scenes = load_split(folder / "test")
        return [_draw(scene, split) for scene in scenes if scene.scene_id not in _EXCLUDED_BY_PAPER]
    if split in list_splits(folder):
        return load_split(folder / split)
    raise DataError(f"{folder} has no split '{split}'. {_describe(folder, split)}")


def list_splits(folder: Path) -> list[str]:
    """Names of the BOP splits in a folder: the folders that hold scenes."""
    return sorted(
        child.name
        for child in folder.iterdir()
        if child.is_dir() and any(is_scene(scene) for scene in child.iterdir())
    )


def _open_linemod(folder: Path, split: str) -> BopScene:
    if split in STANDARD_SPLITS:
        return load_linemod_scene(folder, load_frame_list(folder / f"{split}.txt"))
    if split in PAPER_PARTS:
        return _draw(load_linemod_scene(folder), split)
    raise DataError(
        f"{folder.parent.parent} has no split '{split}'. It is Linemod_preprocessed, whose splits "
        f"are {', '.join(STANDARD_SPLITS)} (of the literature) and {', '.join(PAPER_PARTS)} (of "
        "the paper)."
    )


def _draw(scene: BopScene, split: str) -> BopScene:
    """Keep the part of a LINEMOD scene, all images of one object, that belongs to the split."""
    if scene.images and scene.images[-1].image_id != len(scene.images) - 1:
        raise DataError(
            f"{scene.folder} has {len(scene.images)} images, the last is number "
            f"{scene.images[-1].image_id}; the paper split all images of LINEMOD, and some are "
            "missing here. Download part test_all of lm, not the BOP challenge's selection."
        )
    parts = draw_paper_split(len(scene.images), scene.scene_id)
    kept: Collection[int] = getattr(parts, PAPER_PARTS[split])
    return dataclasses.replace(scene, images=tuple(scene.images[i] for i in kept))


def _describe(folder: Path, split: str) -> str:
    """Say what the folder is and what to do."""
    splits = list_splits(folder)
    if split in PAPER_PARTS and splits:
        return (
            f"It is the paper's split of LINEMOD, which needs Linemod_preprocessed or BOP's data "
            f"set lm (a folder of that name); this one has {', '.join(splits)}."
        )
    if splits:
        return f"It is a BOP data set with {', '.join(splits)}. Give one of these."
    if is_scene(folder) or any(is_scene(child) for child in folder.iterdir()):
        return "It is a part of a BOP data set. Give the folder above, such as lmo, not lmo/test."
    names = sorted(child.name for child in folder.iterdir())
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return (
        f"Expected BOP ({split}/000001/scene_camera.json) or Linemod_preprocessed "
        f"(data/01/gt.yml), found {listed or 'nothing'}. Download it again or give the right "
        "folder."
    )
