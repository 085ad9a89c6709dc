"""Crops for HeatNet and small frames for the detector, cut once from a data set's images.

Decoding a PNG for every crop would make the network wait; shards of ready crops do not. They are
kept beside the data set, one folder for each set of options, and made again when those change.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import DetectorConfig, EngineConfig
from heatnet_ros.datasets.bop import BopImage, BopScene
from heatnet_ros.datasets.images import load_rgb
from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.datasets.shards import map_shard, write_shard
from heatnet_ros.datasets.worker_pool import run_in_workers
from heatnet_ros.engines import load_engine
from heatnet_ros.errors import DataError
from heatnet_ros.estimators import Detector, build_detector
from heatnet_ros.estimators.agreement import build_check
from heatnet_ros.files import make_folder
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.boxes import box_overlaps
from heatnet_ros.geometry.camera import crop_around_box, project
from heatnet_ros.geometry.symmetry import canonicalize
from heatnet_ros.manifest import load_manifest
from heatnet_ros.objects import ObjectLibrary, ObjectModel, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.types import FloatArray, Frame

DEPTH_STEP_M = 1e-4
IMAGES_PER_SHARD = 100
LEAST_SCENES = 10  # fewer are no fair sample of all
ANNOTATIONS = ("scene_camera.json", "scene_gt.json", "scene_gt_info.json", "gt.yml", "info.yml")
DETECTED_IOU = 0.5
MIN_PIXELS = 200
# what an evaluation counts (BOP: 10 %), the detector must not learn to be background
MIN_BOX_VISIBLE = 0.1


@dataclass(frozen=True)
class CacheOptions:
    """How crops are cut.

    cache_px: side of a stored crop. margin: its side over the box's. frame_px: width of the
    frames stored for the detector, as high as the images' shape makes them. min_visible: crops of
    objects visible to less are left out. detector: a model folder; crops then lie around its boxes
    (paper 3.3: training sees the detector's errors), or '' for the true boxes.
    """

    cache_px: int = 160
    margin: float = 1.7
    frame_px: int = 320
    min_visible: float = 0.25
    detector: str = ""


# an image and the library's names of its objects
_Named = tuple[BopImage, dict[int, str]]


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to cut one shard."""

    images: tuple[_Named, ...]
    library_path: Path
    options: CacheOptions
    frame_wh: tuple[int, int]
    path: Path


def ensure_cache(dataset: Path, split: str, library: ObjectLibrary, options: CacheOptions) -> Path:
    """Folder of shards of a data set's split (BOP or Linemod_preprocessed); makes what is missing.

    Which images a shard has is the same each time, see ``_divide``; it may have no crop at all.
    Images whose objects are not all known are left out: to the detector they would be background.
    Raises DataError naming the file that is missing or damaged, where the split has no truth, and
    where no image has a crop.
    """
    scenes = open_dataset(dataset, split)
    _require_truth(scenes, dataset / split)
    shards = _divide(scenes, library)
    frame_wh = _frame_size(scenes[0].images[0], options.frame_px)
    digest = _hash_cache(scenes, library, options, frame_wh)
    folder = dataset / "crops" / f"{split}-{digest[:10]}"
    make_folder(
        folder,
        "Crops are kept beside their data set: make room there and let it be written to, or copy "
        "it to where it can be.",
    )
    paths = [folder / f"shard_{i:05d}.npz" for i in range(len(shards))]
    jobs = [
        (_Job(tuple(images), library.path, options, frame_wh, path),)
        for images, path in zip(shards, paths, strict=True)
        if not path.exists()
    ]
    if jobs:
        progress = Progress("cutting crops, shard", len(jobs))
        workers = min(os.cpu_count() or 1, len(jobs))
        remedy = "Close other programs and run the same command again: it continues."
        run_in_workers(_cut_shard, jobs, workers, progress, remedy)
    if not any(len(map_shard(path)["object"]) for path in paths):
        raise DataError(
            f"No object is visible enough in any of the {sum(map(len, shards))} images of {dataset}"
            f", split {split}, such as {shards[0][0][0].rgb_path}. Check the data set's "
            "scene_gt_info.json and, where a detector crops it, what that finds."
        )
    return folder


def _require_truth(scenes: Sequence[BopScene], split: Path) -> None:
    """Raise DataError where nothing can be cut because nobody says where the objects are."""
    images = [image for scene in scenes for image in scene.images]
    lacking = "scene_gt_info.json" if any(image.truths for image in images) else "scene_gt.json"
    if not any(image.truths and _is_labelled(image) for image in images):
        raise DataError(
            f"{split} has {len(images)} images, and for none of them it is known where its objects "
            f"are; expected entries in {lacking} of each scene, such as "
            f"{scenes[0].folder / lacking}. Download the data set again, or train on a split with "
            "truth."
        )


def _is_labelled(image: BopImage) -> bool:
    """Whether it is known where every object of the image is, if it has any at all."""
    return image.truth_known and all(
        truth.bbox_xyxy_px is not None or truth.visible_fraction is not None
        for truth in image.truths
    )


def _frame_size(image: BopImage, width: int) -> tuple[int, int]:
    """Size of the detector's frames: as wide as asked for, in the shape of the first image."""
    rows, columns = load_rgb(image.rgb_path).shape[:2]
    return width, max(1, round(width * rows / columns))


def _hash_cache(
    scenes: Sequence[BopScene],
    library: ObjectLibrary,
    options: CacheOptions,
    frame_wh: tuple[int, int],
) -> str:
    """Hash of all that crops depend on; of an image its size in bytes must do."""
    digest = hashlib.sha256()
    shown = replace(options, detector=_hash_detector(options.detector))
    digest.update(repr((sorted(asdict(shown).items()), frame_wh)).encode())
    digest.update(library.keypoints_hash(list(library.objects)).encode())
    for scene in scenes:
        for path in sorted(p for p in scene.folder.iterdir() if p.name in ANNOTATIONS):
            digest.update(f"{scene.scene_id} {path.name} ".encode() + path.read_bytes())
        for image in scene.images:
            size = image.rgb_path.stat().st_size if image.rgb_path.exists() else -1
            left_out = "" if _is_labelled(image) else "left out "
            digest.update(f"{image.rgb_path.name} {size} {left_out}".encode())
    return digest.hexdigest()


def _hash_detector(folder: str) -> str:
    """Hash of a detector's network, '' without one."""
    return load_manifest(Path(folder)).onnx_sha256 if folder else ""


def _divide(scenes: Sequence[BopScene], library: ObjectLibrary) -> list[list[_Named]]:
    """Images of each shard, the same each time.

    Images of a scene folder resemble each other. Where the folders are small and many, a shard has
    whole ones, in random order, so that the first shards, which trainings hold out, show nothing
    that is trained on. Else images are shuffled, so that the first shards have a bit of everything.
    """
    named = _name_objects(scenes, library)
    rng = np.random.default_rng(0)
    sizes = [len(images) for images in named]
    total = sum(sizes)
    if len(named) < LEAST_SCENES or max(sizes) > IMAGES_PER_SHARD // 2:
        order = rng.permutation(total)
        images = [image for scene in named for image in scene]
        starts = range(0, total, IMAGES_PER_SHARD)
        return [[images[i] for i in order[k : k + IMAGES_PER_SHARD]] for k in starts]
    scene_order = rng.permutation(len(named))
    images = [image for i in scene_order for image in named[i]]
    ends = np.cumsum([sizes[i] for i in scene_order])[:-1]
    nearest = [np.argmin(abs(ends - k)) for k in range(IMAGES_PER_SHARD, total, IMAGES_PER_SHARD)]
    limits = [0, *(int(ends[i]) for i in nearest), total]
    return [
        [images[i] for i in low + rng.permutation(high - low)]
        for low, high in itertools.pairwise(limits)
    ]


def _name_objects(scenes: Sequence[BopScene], library: ObjectLibrary) -> list[list[_Named]]:
    """Labelled images of each scene that has some, with the names of the library's objects."""
    named = []
    for scene in scenes:
        ids = {truth.obj_id for image in scene.images for truth in image.truths}
        names = {obj_id: scene.name_of(obj_id) for obj_id in ids}
        names = {obj_id: name for obj_id, name in names.items() if name in library.objects}
        named.append([(image, names) for image in scene.images if _is_labelled(image)])
    if not any(names for images in named for _, names in images):
        known = sorted({s.name_of(t.obj_id) for s in scenes for i in s.images for t in i.truths})
        raise DataError(
            f"None of the data set's objects ({', '.join(known) or 'no poses at all'}) is in "
            f"{library.path} ({', '.join(library.objects)}). Give the library of this data set."
        )
    return [images for images in named if images]


def _cut_shard(job: _Job) -> str:
    cv2.setNumThreads(1)
    library, detector = _load(job.library_path, job.options.detector)
    names = list(library.objects)
    crops: list[dict[str, Any]] = []
    frames: list[NDArray[np.uint8]] = []
    boxes: list[list[float]] = []
    for image, known in job.images:
        frame = image.load_frame()
        found = [] if detector is None else detector.detect(frame)
        height, width = frame.rgb.shape[:2]
        for i, truth in enumerate(image.truths):
            visible = 1.0 if truth.visible_fraction is None else truth.visible_fraction
            if truth.obj_id not in known or truth.bbox_xyxy_px is None:
                continue
            if visible < MIN_BOX_VISIBLE:
                continue
            name = known[truth.obj_id]
            x0, y0, x1, y1 = box = truth.bbox_xyxy_px
            if (x1 - x0 + 1) * (y1 - y0 + 1) < MIN_PIXELS or min(x1 - x0, y1 - y0) < 8:
                continue
            edges = [x0 / width, y0 / height, (x1 + 1) / width, (y1 + 1) / height]
            boxes.append([len(frames), names.index(name), *edges, visible])
            if visible < job.options.min_visible:
                continue
            seen = _detected(box, name, found)
            if detector is not None and seen is None:
                continue
            mask = _mask(image, i, library[name], frame)
            T = canonicalize(truth.T_camera_object, library[name].symmetries)
            crop = _cut(frame, mask, T, seen or box, library[name], job.options)
            crops.append({**crop, "object": np.int64(names.index(name)),
                          "visible": np.float32(visible)})  # fmt: skip
        frames.append(cv2.resize(frame.rgb, job.frame_wh, interpolation=cv2.INTER_AREA))
    arrays = _stack(crops, job.options.cache_px, len(library[names[0]].keypoints_m))
    arrays["frames"] = np.stack(frames)
    arrays["boxes"] = np.array(boxes, np.float32).reshape(-1, 7)
    write_shard(job.path, arrays)
    return f"{len(crops)} crops"


def _stack(crops: Sequence[Mapping[str, Any]], side: int, keypoints: int) -> dict[str, Any]:
    """Arrays of all crops by name; with no crop they have no rows."""
    if crops:
        return {key: np.stack([crop[key] for crop in crops]) for key in crops[0]}
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "rgb": ((side, side, 3), np.uint8), "depth": ((side, side), np.uint16),
        "mask": ((side, side), np.uint8), "keypoints": ((keypoints, 2), np.float32),
        "T_camera_object": ((4, 4), np.float64), "K": ((3, 3), np.float64),
        "box": ((4,), np.float32), "object": ((), np.int64), "visible": ((), np.float32),
    }  # fmt: skip
    return {key: np.zeros((0, *shape), kind) for key, (shape, kind) in shapes.items()}


@lru_cache(maxsize=1)
def _load(library_path: Path, detector: str) -> tuple[ObjectLibrary, Detector | None]:
    library = load_objects(library_path)
    if not detector:
        return library, None
    manifest = load_manifest(Path(detector))
    engine = load_engine(
        manifest.onnx_path, manifest.choose_engine(EngineConfig()), partial(build_check, manifest)
    )
    return library, build_detector(engine, manifest, DetectorConfig(model=detector))


def _detected(
    box: tuple[float, ...], name: str, found: Sequence[Any]
) -> tuple[float, float, float, float] | None:
    """The detector's box of an object, or None where it has none that fits."""
    best, best_iou = None, DETECTED_IOU
    for detection in found:
        if detection.object_id != name:
            continue
        iou = float(box_overlaps(np.array([detection.bbox_xyxy_px]), np.array([box]))[0, 0])
        if iou > best_iou:
            best, best_iou = detection.bbox_xyxy_px, iou
    return best


def _mask(image: BopImage, i: int, model: ObjectModel, frame: Frame) -> NDArray[np.bool_]:
    """What is visible of the object; without a mask file its silhouette, as if nothing hid it."""
    if i < len(image.mask_visib_paths) and image.mask_visib_paths[i] is not None:
        return image.load_mask(i, frame.rgb.shape[:2])
    mask = np.zeros(frame.rgb.shape[:2], np.uint8)
    points = project(se3.transform(image.truths[i].T_camera_object, model.surface[:, :3]), frame.K)
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1)
    return mask > 0


def _cut(
    frame: Frame,
    mask: NDArray[np.bool_],
    T_camera_object: FloatArray,
    box: tuple[float, float, float, float],
    model: ObjectModel,
    options: CacheOptions,
) -> dict[str, Any]:
    """Arrays of one crop; see ``ensure_cache``'s shards in docs/data.md."""
    crop = crop_around_box(box, options.cache_px, options.margin)
    points = project(se3.transform(T_camera_object, model.keypoints_m), frame.K)
    depth = np.zeros((options.cache_px, options.cache_px), np.uint16)
    if frame.depth_m is not None:
        metres = np.asarray(crop.warp(frame.depth_m, nearest=True), np.float32)
        metres = np.nan_to_num(metres, nan=0.0, posinf=0.0, neginf=0.0)
        steps = np.rint(metres / DEPTH_STEP_M)
        # beyond 6.5 m there is no number for it, and a wrong one is worse than none
        depth = np.where((steps > 0) & (steps <= 65535), steps, 0).astype(np.uint16)
    return {
        "rgb": crop.warp(frame.rgb),
        "depth": depth,
        "mask": np.asarray(crop.warp(mask.astype(np.uint8), nearest=True)),
        "keypoints": crop.to_crop(points).astype(np.float32),
        "T_camera_object": T_camera_object,
        "K": crop.intrinsics(frame.K),
        "box": crop.to_crop(np.array(box).reshape(2, 2)).reshape(4).astype(np.float32),
    }
