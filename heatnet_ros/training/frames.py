"""Batches of augmented frames with boxes for the detector, from rendered shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from heatnet_ros.datasets.shards import load_shards
from heatnet_ros.estimators.yolo import SIZE_STEP
from heatnet_ros.rendering.sensor import apply_color_sensor
from heatnet_ros.training.augment import shift_hue


def load_frames(folder: Path, first: int, last: int | None) -> dict[str, Any]:
    """Frames FxHxWx3 u8 and boxes Mx7 (frame, class, x0, y0, x1, y1 fractions, visible)."""
    return dict(load_shards(folder, ("frames", "boxes"), first, last))


def input_size(data: dict[str, Any]) -> tuple[int, int]:
    """Height and width of the network's input: the frames' own, filled up to a multiple of 32."""
    height, width = data["frames"].shape[1:3]
    return -(-height // SIZE_STEP) * SIZE_STEP, -(-width // SIZE_STEP) * SIZE_STEP


def frame_sample(
    data: dict[str, Any],
    i: int,
    rng: np.random.Generator | None,
    hue: float,
    flip: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """One network input (``input_size``) u8 and its boxes Mx5: class, x0, y0, x1, y1 (pixel edges).

    rng: None leaves the frame in the middle, for scores. flip: probability of a mirrored frame.
    """
    frame, input_hw = data["frames"][i], input_size(data)
    height, width = frame.shape[:2]
    rows = data["boxes"][data["starts"][i] : data["starts"][i + 1]]
    boxes = rows[:, 2:6] * [width, height, width, height]
    scale = 1.0 if rng is None else float(np.exp(rng.uniform(-0.4, 0.4)))
    room = np.array([input_hw[1] - width * scale, input_hw[0] - height * scale])
    offset = room / 2 if rng is None else room / 2 + rng.uniform(-0.15, 0.15, 2) * width
    flip = rng is not None and rng.random() < flip
    M = np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])
    # the warp maps pixel centres, boxes are edges: half a pixel apart
    M[:, 2] += 0.5 * scale - 0.5
    image = cv2.warpAffine(frame, M, input_hw[::-1], borderValue=(114, 114, 114))
    boxes = boxes * scale + np.tile(offset, 2)
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes[:, [0, 2]] = input_hw[1] - boxes[:, [2, 0]]
    full = boxes.copy()
    boxes = np.clip(boxes, 0, np.tile(input_hw[::-1], 2))
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    keep = area > 0.3 * np.prod(full[:, 2:] - full[:, :2], axis=1)
    noise = np.random.default_rng(i) if rng is None else rng
    image = apply_color_sensor(noise, image, 0.5 if rng is None else noise.uniform(0, 1.5))
    if rng is not None:
        image = shift_hue(image, hue, rng)
    return image, np.column_stack([rows[:, 1], boxes])[keep]


def index_boxes(data: dict[str, Any]) -> dict[str, Any]:
    """Add ``starts``: rows of frame i are ``boxes[starts[i]:starts[i + 1]]``."""
    frames = np.arange(len(data["frames"]) + 1)
    return {**data, "starts": np.searchsorted(data["boxes"][:, 0], frames)}


def frame_batch(
    data: dict[str, Any],
    hue: float,
    flip: float,
    picks: NDArray[np.int64],
    rng: np.random.Generator,
    seen: int = 0,
) -> dict[str, torch.Tensor]:
    """Augmented frames in the form of ultralytics' losses: img, cls, bboxes, batch_idx.

    seen: unused; the frames' augmentation does not change on the way.
    """
    samples = [frame_sample(data, int(i), rng, hue, flip) for i in picks]
    rows = np.concatenate([boxes for _, boxes in samples])
    xyxy = rows[:, 1:] / np.tile(input_size(data)[::-1], 2)
    center, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    batch_index = np.repeat(np.arange(len(picks)), [len(b) for _, b in samples])
    return {
        "img": torch.from_numpy(np.stack([image for image, _ in samples])),
        "cls": torch.from_numpy(rows[:, :1]).float(),
        "bboxes": torch.from_numpy(np.hstack([center, size])).float(),
        "batch_idx": torch.from_numpy(batch_index).float(),
    }
