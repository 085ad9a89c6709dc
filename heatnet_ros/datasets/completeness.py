"""Whether the files of a BOP split are all there: half of them read as truth teaches a wrong one.

A scene without truth looks like background to the detector, and an object without a mask like
one that nothing hides.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from heatnet_ros.errors import DataError


def check_annotations(scenes: Sequence[Path]) -> None:
    """Raise DataError where some scenes have a file (or the masks) of truth and others lack it.

    Where none has it the data set keeps its truth secret, which is no error here.
    """
    for name in ("scene_gt.json", "scene_gt_info.json", "mask_visib"):
        lacking = [scene for scene in scenes if not (scene / name).exists()]
        if lacking and len(lacking) < len(scenes):
            raise DataError(
                f"{lacking[0] / name} is missing: {len(lacking)} of the {len(scenes)} scenes of "
                f"{lacking[0].parent} lack it; expected it in all or in none. Download the data "
                "set again, or move the scenes without it out of this folder."
            )


def check_masks(folder: Path, needed: Sequence[str], there: Collection[str]) -> None:
    """Raise DataError where a folder has some, but not all, of the masks that its scene needs."""
    lacking = [name for name in needed if name not in there]
    if there and lacking:
        raise DataError(
            f"{folder / lacking[0]} is missing: {folder} lacks {len(lacking)} of the "
            f"{len(needed)} masks that its scene needs; expected every one, or no such folder. "
            "Download the scene again."
        )


def note_missing_depth(folder: Path, having: int, images: int) -> None:
    """Say on stderr that some images of a split lack the depth that others have."""
    if 0 < having < images:
        _say_once(
            f"note: {images - having} of the {images} images of {folder} have no depth image; "
            "they are used without depth."
        )


def note_missing_visibility(scenes: Sequence[Path]) -> None:
    """Say on stderr that a (checked) split has truth, but nothing of what is visible of it."""
    if (scenes[0] / "scene_gt.json").is_file() and not (scenes[0] / "scene_gt_info.json").is_file():
        _say_once(
            f"note: {scenes[0].parent} has no scene_gt_info.json: what is visible of its objects "
            "is unknown, so that hidden ones count too, and there are no boxes to train with."
        )


@lru_cache(maxsize=64)
def _say_once(text: str) -> None:
    # a split is opened several times in one run
    print(text, file=sys.stderr, flush=True)
