"""What ``predict`` and ``evaluate`` run on; here a BOP scene or a split of a data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from heatnet_ros.datasets.bop import (
    BopImage,
    BopScene,
    is_scene,
    load_scene,
    load_split,
    load_targets,
)
from heatnet_ros.datasets.entries import load_json, parse_entry
from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.errors import DataError
from heatnet_ros.evaluate import ImageTruth, TruePose
from heatnet_ros.types import Frame

# BOP challenges and their targets files; sets made for the later one lack the earlier's
_CHALLENGES = ("bop19", "bop24")


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image to run on: read by ``load_frame``; ``name`` is unique among the inputs.

    targets: object -> instances to find, where a targets file says it. stamp_ns: of the image's
    header in a bag, or what its file is called.
    """

    name: str
    path: Path
    scene_id: int
    image_id: int
    has_depth: bool
    load_frame: Callable[[], Frame]
    truths: tuple[TruePose, ...] = ()
    targets: Mapping[str, int] | None = None
    stamp_ns: int | None = None

    def describe_truth(self, frame: Frame) -> ImageTruth:
        """What the image, read as ``frame``, really shows."""
        width = frame.size_hw[1]
        return ImageTruth(self.name, frame.K, width, self.truths, self.targets, frame.depth_m)


@dataclass(frozen=True, eq=False)
class InputSet:
    """All inputs. dataset and split: of BOP, else empty. folder: the data set's.

    object_names: what the data set calls its objects, see ``bop.load_object_names``.
    """

    images: tuple[InputImage, ...]
    dataset: str = ""
    split: str = ""
    has_truth: bool = False
    folder: Path | None = None
    object_names: Mapping[int, str] = field(default_factory=dict)


def list_bop_inputs(folder: Path, targets: Path | None) -> InputSet | None:
    """Inputs of a BOP scene or split, or None where the folder is neither.

    ``targets``: a BOP targets file; only its images are taken and, where it names objects, only
    those are asked for.
    """
    if is_scene(folder):
        scenes = [load_scene(folder)]
        split = folder.resolve().parent
    elif folder.is_dir() and any(is_scene(child) for child in folder.iterdir()):
        scenes = load_split(folder)
        split = folder.resolve()
    else:
        return None
    images = _bop_inputs(scenes, targets)
    if not images:
        raise DataError(f"{folder} has no image (of the targets). Check the folder and --targets.")
    return _build_set(scenes, images, split.name, split.parent)


def list_split_inputs(folder: Path, split: str) -> InputSet:
    """Inputs of a split of a data set with ground truth, BOP or Linemod_preprocessed.

    Its ``test_targets_bop19.json`` or, as in HOPE, ``test_targets_bop24.json`` says what has to be
    found; without one, or where it lists images alone (detection in 2024), it is every instance
    visible to a tenth. Raises DataError without truth or when an image is missing.
    """
    scenes = open_dataset(folder, split)
    targets = find_targets(folder, split)
    images = _bop_inputs(scenes, targets)
    if targets is not None:
        asked = set(_load_wanted(targets))
        lacking = sorted(asked - {(image.scene_id, image.image_id) for image in images})
        if lacking:
            raise DataError(
                f"{targets} asks for {len(asked)} images, {len(lacking)} of them are not in "
                f"{folder / split}, the first is scene {lacking[0][0]}, image {lacking[0][1]}. "
                "Download the data set again."
            )
    if not images or not all(scene.has_truth for scene in scenes):
        raise DataError(
            f"Split '{split}' of {folder} has {len(images)} images and "
            f"{'all' if all(s.has_truth for s in scenes) else 'not all'} ground truth; nothing can "
            "be measured. Choose a split with scene_gt.json in every scene."
        )
    missing = [image.path for image in images if not image.path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images of {folder} are missing, the first is "
            f"{missing[0]}. Download the data set again."
        )
    return _build_set(scenes, images, split, folder)


def find_targets(folder: Path, split: str) -> Path | None:
    """The data set's targets file of a split such as test or test_primesense, if it has one.

    The challenge of 2019 comes first, where a set has the lists of two.
    """
    for challenge in _CHALLENGES:
        path = folder / f"{split.split('_')[0]}_targets_{challenge}.json"
        if path.is_file():
            return path
    return None


def _build_set(
    scenes: Sequence[BopScene], images: Sequence[InputImage], split: str, folder: Path
) -> InputSet:
    has_truth = any(scene.has_truth for scene in scenes)
    names = {obj_id: name for scene in scenes for obj_id, name in scene.object_names.items()}
    return InputSet(tuple(images), scenes[0].dataset, split, has_truth, folder, names)


def _bop_inputs(scenes: Sequence[BopScene], targets: Path | None) -> list[InputImage]:
    """All images, or with a targets file those it names, with what it asks for."""
    images = {
        (image.scene_id, image.image_id): (_bop_input(image, scene), scene)
        for scene in scenes
        for image in scene.images
    }
    if targets is None:
        return [image for image, _ in images.values()]
    wanted = _load_wanted(targets)
    chosen = []
    for place, (image, scene) in images.items():
        if place in wanted:
            counts = wanted[place]
            named = None
            if counts is not None:
                named = {scene.name_of(obj_id): n for obj_id, n in counts.items()}
            chosen.append(replace(image, targets=named))
    return chosen


def _load_wanted(path: Path) -> dict[tuple[int, int], dict[int, int] | None]:
    """A targets file: (scene, image) -> obj_id -> instances, or None where it lists images alone.

    Raises DataError naming the file and the entry that is wrong.
    """
    entries = load_json(path, list)
    if any("obj_id" in entry for entry in entries if isinstance(entry, dict)):
        counts: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for target in load_targets(path):
            counts[target.scene_id, target.image_id][target.obj_id] = target.count
        return {**counts}
    places = [
        parse_entry(path, str(i), lambda e: (int(e["scene_id"]), int(e["im_id"])), entry)
        for i, entry in enumerate(entries)
    ]
    return dict.fromkeys(places)


def _bop_input(image: BopImage, scene: BopScene) -> InputImage:
    truths = tuple(
        TruePose(
            scene.name_of(truth.obj_id),
            truth.T_camera_object,
            truth.visible_fraction,
            truth.bbox_xyxy_px,
        )
        for truth in image.truths
    )
    return InputImage(
        name=f"{image.scene_id:06d}_{image.image_id:06d}",
        path=image.rgb_path,
        scene_id=image.scene_id,
        image_id=image.image_id,
        has_depth=image.depth_path is not None,
        load_frame=image.load_frame,
        truths=truths,
    )
