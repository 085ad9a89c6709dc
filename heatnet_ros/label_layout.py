"""Where labels go in an image: near what they name, never over one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.types import FloatArray

IntArray = NDArray[np.int64]

ROWS = 10  # how many label heights away a place may be
GAP_PX = 2
# a hidden label is worse than a hidden object, that worse than a place ten heights away
_COST_LABEL, _COST_OBJECT, _COST_AWAY = 1000.0, 1.0, 0.1


def place_labels(
    boxes_xyxy_px: FloatArray, sizes_wh: Sequence[tuple[int, int]], image_wh: tuple[int, int]
) -> IntArray:
    """Rectangles (N, 4) x0, y0, x1, y1 for the labels of N boxes (N, 4), the first ones first.

    A label stands above its box if it can, else higher, below or beside, inside the image, where
    it hides no other label and least of the boxes. Labels only overlap where the image is full.
    """
    placed = np.zeros((0, 4))
    for box, (width, height) in zip(boxes_xyxy_px, sizes_wh, strict=True):
        candidates = _list_candidates(box, width, height, image_wh)
        area = float(width * height)
        away = np.abs(candidates[:, :2] - candidates[0, :2]).sum(axis=1) / height
        cost = (
            _COST_LABEL * _hidden(candidates, placed, area)
            + _COST_OBJECT * _hidden(candidates, boxes_xyxy_px, area)
            + _COST_AWAY * away
        )
        placed = np.vstack([placed, candidates[int(np.argmin(cost))]])
    return np.asarray(placed, np.int64)


def _list_candidates(
    box: FloatArray, width: int, height: int, image_wh: tuple[int, int]
) -> FloatArray:
    """(C, 4) inside the image, whole pixels; the first is the usual place."""
    x0, y0, x1, y1 = box
    rows = np.arange(ROWS) * (height + 1)
    above, below = y0 - GAP_PX - height - rows, y1 + GAP_PX + rows
    left, right = x0 - GAP_PX - width, x1 + GAP_PX
    corners = [(x, y) for y in (*above, *below) for x in (x0, (x0 + x1 - width) / 2, x1 - width)]
    corners += [(x, y) for y in (*(y0 + rows), *(y0 - rows)) for x in (right, left)]
    limits = np.maximum(np.array(image_wh) - (width, height), 0)
    corner = np.floor(np.clip(np.array(corners), 0, limits))
    return np.hstack([corner, corner + np.array([width, height])])


def _hidden(candidates: FloatArray, others: FloatArray, area: float) -> FloatArray:
    """(C,): by how many times its own area each candidate covers the others."""
    low = np.maximum(candidates[:, None, :2], others[None, :, :2])
    high = np.minimum(candidates[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1) / area)
