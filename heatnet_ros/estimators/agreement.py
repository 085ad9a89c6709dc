"""Does an arithmetic change what a network says? Inputs to try it on, and the comparison.

A backend cannot know what its numbers mean; the engines get a ``Check`` from here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.engines import Check, Difference, Tensors
from heatnet_ros.errors import ModelError
from heatnet_ros.estimators.heatnet import FIT_RADIUS_PX, decode_heatmaps
from heatnet_ros.estimators.heatnet_input import encode_depth
from heatnet_ros.files import writing_whole
from heatnet_ros.manifest import Manifest

SAMPLES_FILE = "calibration.npz"  # in the model's folder
USED_CONFIDENCE = 0.3  # a flat heatmap's maximum is arbitrary: only these keypoints are compared
USED_BOX_SCORE = 0.4
# two maxima so near to each other in height are no unique maximum: the last bit picks one
AMBIGUOUS = 0.01
# the 99th percentile may differ by so much: one keypoint with two equal peaks is no loss, PnP
# takes it for an outlier
MAX_KEYPOINT_PX, MAX_BOX_PX = 0.5, 2.0
DRAWN_SAMPLES = 8
_DRAWN_DIAMETER_M, _DRAWN_DISTANCE_M = 0.2, 0.8


def build_check(manifest: Manifest) -> Check:
    """How answers of this network are compared, and on what.

    On the samples of ``calibration.npz`` in the model's folder, else on a drawn pattern. Raises
    ModelError when that file does not hold the network's inputs, or the manifest
    does not name them.
    """
    needed = {"image"} if manifest.estimator == "yolo" else {"rgb", "object_index"}
    answer = "detections" if manifest.estimator == "yolo" else "heatmaps"
    if not needed <= manifest.inputs.keys() or answer not in manifest.outputs:
        raise ModelError(
            f"Model '{manifest.name}': expected inputs {', '.join(sorted(needed))} and the output "
            f"{answer}, the manifest names {', '.join([*manifest.inputs, *manifest.outputs])}. "
            "Export the model again."
        )
    path = manifest.folder / SAMPLES_FILE
    real = path.exists()
    samples = load_samples(path, tuple(manifest.inputs.values())) if real else _draw(manifest)

    def compare(expected: Sequence[Tensors], got: Sequence[Tensors]) -> Difference:
        if manifest.estimator == "yolo":
            name = manifest.outputs["detections"]
            return compare_rows([o[name][0] for o in expected], [o[name][0] for o in got])
        name = manifest.outputs["heatmaps"]
        return compare_heatmaps([o[name] for o in expected], [o[name] for o in got], manifest)

    limit_px = MAX_BOX_PX if manifest.estimator == "yolo" else MAX_KEYPOINT_PX
    return Check(samples, real, compare, limit_px)


def compare_heatmaps(
    expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]], manifest: Manifest
) -> Difference:
    """Heatmaps (N, K, h, w) per sample; of the sure keypoints the 99th percentile, crop pixels."""
    before, after = np.concatenate(expected), np.concatenate(got)
    if not np.all(np.isfinite(after)):
        return Difference(np.inf, before.shape[0] * before.shape[1], np.inf)
    points, confidence = decode_heatmaps(before, manifest.stride)
    again, _ = decode_heatmaps(after, manifest.stride)
    unclear = np.stack([find_ambiguous(maps) for maps in before])
    used = (confidence > USED_CONFIDENCE) & ~unclear
    distance = np.linalg.norm(points - again, axis=-1)[used]
    span = max(float(np.ptp(before)), float(np.finfo(np.float32).tiny))
    return Difference(_p99(distance), distance.size, float(np.abs(before - after).max()) / span)


def find_ambiguous(heatmaps: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the heatmaps (K, h, w) have a second peak within 1 % of the highest -> K bool.

    A second peak is a local maximum outside the window that decoding fits around the highest.
    """
    k, h, w = heatmaps.shape
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    neighbours = [
        padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    ]
    is_peak = np.all([heatmaps >= neighbour for neighbour in neighbours], axis=0)
    top = heatmaps.reshape(k, -1).argmax(axis=1)
    y, x = (index[:, None, None] for index in (top // w, top % w))
    rows, columns = np.mgrid[:h, :w]
    far = np.maximum(np.abs(rows - y), np.abs(columns - x)) > FIT_RADIUS_PX
    high = heatmaps >= (1 - AMBIGUOUS) * heatmaps.max(axis=(1, 2), keepdims=True)
    return np.asarray((is_peak & far & high).any(axis=(1, 2)))


def compare_rows(expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> Difference:
    """Rows (M, 6) of a detector per sample; edges of the sure boxes, input pixels.

    A sure box is compared with the nearest of its class; one that is not found again differs by
    infinity. values: of the scores in their order.
    """
    distances, values = [], 0.0
    for before, after in zip(expected, got, strict=True):
        if not np.all(np.isfinite(after)):
            return Difference(np.inf, max(len(before), 1), np.inf)
        values = max(values, float(np.abs(np.sort(before[:, 4]) - np.sort(after[:, 4])).max()))
        for row in before[before[:, 4] > USED_BOX_SCORE]:
            same = after[(after[:, 5] == row[5]) & (after[:, 4] > USED_BOX_SCORE / 2)]
            apart = np.abs(same[:, :4] - row[:4]).max(axis=1)
            distances.append(float(apart.min()) if len(same) else np.inf)
    return Difference(_p99(np.array(distances)), len(distances), values)


def write_samples(path: Path, samples: Sequence[Tensors]) -> None:
    """Keep network inputs, one or more per sample, as ``load_samples`` reads them.

    Raises DataError when the file cannot be written.
    """
    joined = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    with writing_whole(path) as file:
        np.savez_compressed(file, allow_pickle=False, **joined)


def load_samples(path: Path, names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], ...]:
    """Samples with a batch of one each: one array per input name, samples along the first axis.

    Raises ModelError when the file cannot be read or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{path} cannot be read: {error}. Delete it or record it again."
        ) from error
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if set(arrays) != set(names) or len(counts) != 1 or 0 in counts:
        told = ", ".join(f"{name}{list(array.shape)}" for name, array in arrays.items())
        raise ModelError(
            f"{path}: expected the arrays {', '.join(names)} with one length, samples first, got "
            f"{told or 'none'}. Delete it or record it again."
        )
    return tuple(
        {name: array[i : i + 1] for name, array in arrays.items()} for i in range(counts.pop())
    )


def _p99(values: NDArray[Any]) -> float:
    # "higher": a percentile between a number and infinity would be no number
    return float(np.percentile(values, 99, method="higher")) if values.size else 0.0


def _draw(manifest: Manifest) -> tuple[dict[str, NDArray[Any]], ...]:
    """Inputs with edges, corners and shades at every scale; always the same ones."""
    rng = np.random.default_rng(0)
    names, size_hw = manifest.inputs, manifest.input_hw
    samples = []
    for i in range(DRAWN_SAMPLES):
        image = _draw_image(rng, size_hw)[None]
        if manifest.estimator == "yolo":
            samples.append({names["image"]: image})
            continue
        index = np.array([i % len(manifest.objects)], np.int64)
        sample: dict[str, NDArray[Any]] = {names["rgb"]: image, names["object_index"]: index}
        if "depth" in names:
            relief = image[0].mean(axis=-1) / 255 - 0.5
            depth_m = (_DRAWN_DISTANCE_M + _DRAWN_DIAMETER_M * relief).astype(np.float32)
            sample[names["depth"]] = encode_depth(depth_m, _DRAWN_DIAMETER_M)[None]
        samples.append(sample)
    return tuple(samples)


def _draw_image(rng: np.random.Generator, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise of several scales under filled ellipses and boxes -> HxWx3."""
    h, w = size_hw
    image = np.full((h, w, 3), 128.0)
    for cells in (2, 4, 8, 16, 32):
        noise = rng.uniform(-40, 40, (cells, cells, 3))
        image += noise[np.arange(h) * cells // h][:, np.arange(w) * cells // w]
    y, x = np.mgrid[:h, :w] / min(h, w)
    for i in range(4):
        (cx, cy), (rx, ry) = rng.uniform(0.25, 0.75, 2), rng.uniform(0.08, 0.3, 2)
        u, v = np.abs(x - cx) / rx, np.abs(y - cy) / ry
        inside = np.maximum(u, v) < 1 if i % 2 else u**2 + v**2 < 1
        shade = 1.0 - 0.5 * (u + v)[..., None] / 2
        image = np.where(inside[..., None], rng.uniform(40, 255, 3) * shade, image)
    return np.asarray(np.clip(image, 0, 255), np.uint8)
