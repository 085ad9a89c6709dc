"""Average precision of detections by COCO's rules: mAP at an IoU of 0.50 to 0.95 in steps of 0.05.

Lin et al., ECCV 2014, and the reference implementation's choices: greedy matching in order of
score, precision made monotonic and read at 101 recalls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.geometry.boxes import box_overlaps
from heatnet_ros.types import Detection

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100  # per image and class

_FALSE, _TRUE, _IGNORED = 0, 1, 2


@dataclass(frozen=True)
class TrueBox:
    """Where an object is: the edges of its box (x0, y0, x1, y1) in pixels.

    ignored: finding it is neither right nor wrong (too hidden to be asked for).
    """

    object_id: str
    bbox_xyxy_px: tuple[float, float, float, float]
    ignored: bool = False


@dataclass
class _Tally:
    scores: list[float] = field(default_factory=list)
    verdicts: list[NDArray[np.int8]] = field(default_factory=list)  # one per detection, of each IoU
    positives: int = 0


class DetectionScorer:
    """Collects images, then gives the average precision per class."""

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)

    def add(self, detections: Sequence[Detection], truths: Sequence[TrueBox]) -> None:
        """One image: what was detected and what there is."""
        names = {d.object_id for d in detections} | {t.object_id for t in truths}
        for name in names:
            tally = self._tallies[name]
            found = sorted((d for d in detections if d.object_id == name), key=lambda d: -d.score)
            found = found[:MAX_DETECTIONS]
            boxes = [t for t in truths if t.object_id == name]
            verdicts = _judge(found, boxes)
            tally.positives += sum(not box.ignored for box in boxes)
            tally.scores += [d.score for d in found]
            tally.verdicts += list(verdicts)

    def summarize(self) -> dict[str, float]:
        """Average precision, 50:95, of each class that had a box to find, 0..1."""
        return {
            name: float(np.mean(_average_precisions(tally)))
            for name, tally in sorted(self._tallies.items())
            if tally.positives
        }


def average_precision(scores: Sequence[float], right: Sequence[bool], positives: int) -> float:
    """Area under the precision-recall curve at 101 recalls.

    scores, right: of each detection over all images. positives: boxes there were to find, > 0.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    hits = np.cumsum(np.asarray(right, bool)[order])
    if not len(hits) or not hits[-1]:
        return 0.0
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / positives, RECALL_POINTS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())


def _average_precisions(tally: _Tally) -> list[float]:
    """One for each IoU threshold; ignored detections are left out of it."""
    verdicts = np.array(tally.verdicts, np.int8).reshape(-1, len(IOU_THRESHOLDS))
    scores = np.array(tally.scores)
    precisions = []
    for column in verdicts.T:
        counted = column != _IGNORED
        right = column[counted] == _TRUE
        precisions.append(average_precision(scores[counted].tolist(), right, tally.positives))
    return precisions


def _judge(detections: Sequence[Detection], boxes: Sequence[TrueBox]) -> NDArray[np.int8]:
    """Verdict on each detection (best score first) at each IoU threshold, D x 10.

    A detection takes the free box it overlaps most, an ignored one only where no other fits.
    """
    verdicts = np.full((len(detections), len(IOU_THRESHOLDS)), _FALSE, np.int8)
    if not detections or not boxes:
        return verdicts
    overlaps = box_overlaps(
        np.array([d.bbox_xyxy_px for d in detections], np.float64),
        np.array([b.bbox_xyxy_px for b in boxes], np.float64),
    )
    ignored = np.array([b.ignored for b in boxes])
    for i, threshold in enumerate(IOU_THRESHOLDS):
        free = np.ones(len(boxes), bool)
        for d in range(len(detections)):
            fits = free & (overlaps[d] >= threshold)
            fits = fits & ~ignored if np.any(fits & ~ignored) else fits
            if not fits.any():
                continue
            taken = int(np.argmax(np.where(fits, overlaps[d], -1.0)))
            free[taken] = False
            verdicts[d, i] = _IGNORED if ignored[taken] else _TRUE
    return verdicts
