"""Network inputs cut from a data set's images, with what is needed to judge the answers.

Free of torch: export and quantization both use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from heatnet_ros.datasets.bop import BopImage, BopScene, ObjectTruth
from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.errors import DataError
from heatnet_ros.estimators.heatnet import MIN_VALID_DEPTH
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.geometry.camera import crop_around_box, fit_letterbox
from heatnet_ros.objects import ObjectLibrary, ObjectModel

REAL = 96
REAL_FRAMES = 64
MIN_VISIBLE = 0.1


@dataclass(frozen=True, eq=False)
class Sample:
    """One network input. feed: tensor name -> array with a batch of one. origin: for the record."""

    feed: dict[str, np.ndarray]
    origin: str


@dataclass(frozen=True, eq=False)
class CropSample(Sample):
    """A crop. warp: 2x3, pixels of the image that K describes -> crop pixels."""

    warp: np.ndarray
    K: np.ndarray
    model: ObjectModel


@dataclass(frozen=True)
class RealImages:
    """A data set's split, such as ``lmo`` and ``test``."""

    dataset: Path
    split: str


@dataclass(frozen=True)
class CropShape:
    """Side of a crop in pixels, whether it has depth, and its size over the box's."""

    crop_px: int
    rgbd: bool
    margin: float


def real_crops(
    images: RealImages,
    library: ObjectLibrary,
    shape: CropShape,
    count: int = REAL,
) -> list[CropSample]:
    """Up to ``count`` crops around the true boxes of real images, cut as the estimator does.

    An object of which the data set does not say how visible it is counts as visible. Raises
    DataError when the split shows none of the library's objects.
    """
    names = list(library.objects)
    wanted = [
        (image, names.index(name), truth.bbox_xyxy_px)
        for image, scene in _images(images)
        if image.depth_path is not None or not shape.rgbd
        for truth in image.truths
        if (name := scene.name_of(truth.obj_id)) in names
        and truth.bbox_xyxy_px is not None
        and _is_visible(truth)
    ]
    samples = []
    for i in spread(len(wanted), count):
        image, index, box = wanted[i]
        model = library[names[index]]
        frame = image.load_frame()
        crop = crop_around_box(box, shape.crop_px, shape.margin)
        depth = None
        if shape.rgbd:
            if frame.depth_m is None:
                continue
            depth_m = np.asarray(crop.warp(frame.depth_m, nearest=True), np.float32)
            if np.mean(np.isfinite(depth_m) & (depth_m > 0)) < MIN_VALID_DEPTH:
                continue
            depth = encode_depth(depth_m, model.diameter_m)
        offset = crop.to_crop(np.zeros(2))
        warp = np.column_stack([crop.scale * np.eye(2), offset])
        feed = crop_feed(np.asarray(crop.warp(frame.rgb), np.uint8), index, depth)
        samples.append(CropSample(feed, "real", warp, frame.K, model))
    if not samples:
        needs = " with depth" if shape.rgbd else ""
        raise DataError(
            f"{images.dataset / images.split} shows none of {', '.join(names)} in an image with "
            f"true poses and boxes{needs}. Give another data set, or leave --images out."
        )
    return samples


def real_frames(
    images: RealImages, input_hw: tuple[int, int], count: int = REAL_FRAMES
) -> list[Sample]:
    """Up to ``count`` whole real images, letterboxed as the detector does."""
    found = [image for image, _ in _images(images)]
    samples = []
    for i in spread(len(found), count):
        rgb = found[i].load_frame().rgb
        image = fit_letterbox(rgb.shape[:2], input_hw).apply(rgb)
        samples.append(Sample({"image": image[None]}, "real"))
    return samples


def crop_feed(rgb: np.ndarray, index: int, depth: np.ndarray | None) -> dict[str, np.ndarray]:
    """The network's inputs by role, a batch of one each."""
    feed = {"rgb": rgb[None], "object_index": np.array([index], np.int64)}
    return feed if depth is None else feed | {"depth": depth[None].astype(np.float32)}


def spread(count: int, wanted: int) -> list[int]:
    """Up to ``wanted`` indices below ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist()


def _is_visible(truth: ObjectTruth) -> bool:
    """Enough of it, where the data set says how much: Linemod_preprocessed does not."""
    return truth.visible_fraction is None or truth.visible_fraction >= MIN_VISIBLE


def _images(images: RealImages) -> Iterator[tuple[BopImage, BopScene]]:
    """Every image of the split, with its scene."""
    for scene in open_dataset(images.dataset, images.split):
        for image in scene.images:
            yield image, scene
