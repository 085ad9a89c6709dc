"""Crops for HeatNet and small frames for the detector, cut once from a data set's images.

Decoding a PNG for every crop would make the network wait; shards of ready crops do not. They are
kept beside the data set, one folder for each set of options, and made again when those change.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import DetectorConfig, EngineConfig
from heatnet_ros.datasets.bop import BopImage, BopScene
from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.datasets.shards import write_shard
from heatnet_ros.engines import load_engine
from heatnet_ros.errors import DataError
from heatnet_ros.estimators import Detector, build_detector
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import crop_around_box, project
from heatnet_ros.geometry.symmetry import canonicalize
from heatnet_ros.manifest import load_manifest
from heatnet_ros.objects import ObjectLibrary, ObjectModel, load_objects
from heatnet_ros.progress import Progress
from heatnet_ros.types import FloatArray, Frame

DEPTH_STEP_M = 1e-4
IMAGES_PER_SHARD = 100
DETECTED_IOU = 0.5
MIN_PIXELS = 200
# what an evaluation counts (BOP: 10 %), the detector must not learn to be background
MIN_BOX_VISIBLE = 0.1


@dataclass(frozen=True)
class CacheOptions:
    """How crops are cut.

    cache_px: side of a stored crop. margin: its side over the box's. frame_wh: stored frames for
    the detector. min_visible: crops of objects visible to less are left out. detector: a model
    folder; crops then lie around its boxes (paper 3.3: training sees the detector's errors), or
    '' for the true boxes.
    """

    cache_px: int = 160
    margin: float = 1.7
    frame_wh: tuple[int, int] = (320, 240)
    min_visible: float = 0.25
    detector: str = ""


@dataclass(frozen=True, eq=False)
class _Job:
    """What a worker needs to cut one shard."""

    images: tuple[tuple[BopImage, dict[int, str]], ...]
    library_path: Path
    options: CacheOptions
    path: Path


def ensure_cache(dataset: Path, split: str, library: ObjectLibrary, options: CacheOptions) -> Path:
    """Folder of shards of a data set's split (BOP or Linemod_preprocessed); makes what is missing.

    Images are shuffled (the same way each time), so that the first shards are a fair sample.
    Raises DataError naming the file that is missing or damaged.
    """
    scenes = open_dataset(dataset, split)
    images = _shuffled(scenes, library)
    digest = hashlib.sha256()
    digest.update(repr((sorted(asdict(options).items()), len(images))).encode())
    digest.update(library.keypoints_hash(list(library.objects)).encode())
    folder = dataset / "crops" / f"{split}-{digest.hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for i, start in enumerate(range(0, len(images), IMAGES_PER_SHARD)):
        path = folder / f"shard_{i:05d}.npz"
        if not path.exists():
            chunk = tuple(images[start : start + IMAGES_PER_SHARD])
            jobs.append(_Job(chunk, library.path, options, path))
    if jobs:
        _run(jobs)
    return folder


def _run(jobs: Sequence[_Job]) -> None:
    progress = Progress("cutting crops, shard", len(jobs))
    workers = min(os.cpu_count() or 1, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_cut_shard, job) for job in jobs]
        try:
            for future in as_completed(futures):
                progress.step(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _shuffled(
    scenes: Sequence[BopScene], library: ObjectLibrary
) -> list[tuple[BopImage, dict[int, str]]]:
    images = []
    for scene in scenes:
        ids = {truth.obj_id for image in scene.images for truth in image.truths}
        names = {obj_id: scene.name_of(obj_id) for obj_id in ids}
        names = {obj_id: name for obj_id, name in names.items() if name in library.objects}
        images += [(image, names) for image in scene.images]
    if not any(names for _, names in images):
        known = sorted({s.name_of(t.obj_id) for s in scenes for i in s.images for t in i.truths})
        raise DataError(
            f"None of the data set's objects ({', '.join(known) or 'no poses at all'}) is in "
            f"{library.path} ({', '.join(library.objects)}). Give the library of this data set."
        )
    order = np.random.default_rng(0).permutation(len(images))
    return [images[i] for i in order]


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
        frames.append(cv2.resize(frame.rgb, job.options.frame_wh, interpolation=cv2.INTER_AREA))
    if not crops:
        raise DataError(
            f"No object is visible enough in {len(job.images)} images such as "
            f"{job.images[0][0].rgb_path}. Check the data set's scene_gt_info.json."
        )
    arrays: dict[str, Any] = {key: np.stack([crop[key] for crop in crops]) for key in crops[0]}
    arrays |= {"frames": np.stack(frames), "boxes": np.array(boxes, np.float32)}
    write_shard(job.path, arrays)
    return f"{len(crops)} crops"


@lru_cache(maxsize=1)
def _load(library_path: Path, detector: str) -> tuple[ObjectLibrary, Detector | None]:
    library = load_objects(library_path)
    if not detector:
        return library, None
    manifest = load_manifest(Path(detector))
    engine = load_engine(manifest.onnx_path, manifest.choose_engine(EngineConfig()))
    return library, build_detector(engine, manifest, DetectorConfig(model=detector))


def _detected(
    box: tuple[float, ...], name: str, found: Sequence[Any]
) -> tuple[float, float, float, float] | None:
    """The detector's box of an object, or None where it has none that fits."""
    best, best_iou = None, DETECTED_IOU
    for detection in found:
        if detection.object_id != name:
            continue
        a, b = np.array(detection.bbox_xyxy_px), np.array(box)
        common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
        areas = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])
        iou = float(common / max(areas - common, 1e-9))
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
        depth = np.clip(np.rint(metres / DEPTH_STEP_M), 0, 65535).astype(np.uint16)
    return {
        "rgb": crop.warp(frame.rgb),
        "depth": depth,
        "mask": np.asarray(crop.warp(mask.astype(np.uint8), nearest=True)),
        "keypoints": crop.to_crop(points).astype(np.float32),
        "T_camera_object": T_camera_object,
        "K": crop.intrinsics(frame.K),
        "box": crop.to_crop(np.array(box).reshape(2, 2)).reshape(4).astype(np.float32),
    }
