"""Boxes (x0, y0, x1, y1) in an image."""

from __future__ import annotations

import numpy as np

from heatnet_ros.types import FloatArray


def box_overlaps(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of boxes (N, 4) and (M, 4), given by their edges: N x M."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a_xyxy, b_xyxy)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))
