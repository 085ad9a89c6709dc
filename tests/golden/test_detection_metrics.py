"""Average precision against closed forms (checked once against the COCO reference as well)."""

import numpy as np
import pytest

from heatnet_ros.detection_metrics import (
    DetectionScorer,
    TrueBox,
    average_precision,
    box_overlaps,
)
from heatnet_ros.types import Detection

BOX = (10.0, 10.0, 110.0, 60.0)


def narrowed(box: tuple[float, ...], iou: float) -> tuple[float, float, float, float]:
    """A box inside ``box`` that overlaps it by ``iou``."""
    x0, y0, x1, y1 = box
    return x0, y0, x0 + (x1 - x0) * iou, y1


def test_overlap_of_boxes():
    a = np.array([[0.0, 0, 2, 1], [0, 0, 1, 1]])
    b = np.array([[1.0, 0, 3, 1], [5, 5, 6, 6], [0, 0, 2, 1]])
    np.testing.assert_allclose(box_overlaps(a, b), [[1 / 3, 0, 1], [0, 0, 1 / 2]])


def test_average_precision_of_known_curves():
    assert average_precision([0.9, 0.8], [True, True], 2) == 1.0
    assert average_precision([0.9], [False], 1) == 0.0
    assert average_precision([], [], 3) == 0.0
    # one of two found: precision 1 at the recalls 0, 0.01 ... 0.5
    assert average_precision([0.9], [True], 2) == pytest.approx(51 / 101)
    # a false one first: precision 1/2 up to recall 0.5, then 2/3, which counts for all before
    assert average_precision([0.9, 0.8, 0.7], [False, True, True], 2) == pytest.approx(2 / 3)
    # a false one last does no harm
    assert average_precision([0.7, 0.9, 0.8], [False, True, True], 2) == 1.0


@pytest.mark.parametrize(("iou", "share"), [(1.0, 1.0), (0.97, 1.0), (0.77, 0.6), (0.52, 0.1)])
def test_a_box_counts_up_to_its_overlap(iou: float, share: float):
    scorer = DetectionScorer()
    scorer.add([Detection("cup", narrowed(BOX, iou), 0.9)], [TrueBox("cup", BOX)])
    assert scorer.summarize() == {"cup": pytest.approx(share)}


def test_doubles_and_misses():
    scorer = DetectionScorer()
    boxes = [TrueBox("cup", BOX), TrueBox("cup", (200.0, 10, 300, 60))]
    twice = [Detection("cup", BOX, 0.9), Detection("cup", BOX, 0.8)]
    scorer.add(twice, boxes)
    # right, then wrong; the other is missed: precision 1 up to recall 0.5
    assert scorer.summarize()["cup"] == pytest.approx(51 / 101)


def test_scores_are_ranked_over_all_images_and_classes_are_apart():
    scorer = DetectionScorer()
    scorer.add([Detection("cup", (200.0, 0, 220, 20), 0.95)], [])
    scorer.add([Detection("cup", BOX, 0.5), Detection("jug", BOX, 0.9)], [TrueBox("cup", BOX)])
    scorer.add([], [TrueBox("can", BOX)])
    per_class = scorer.summarize()
    # jug has no true box: there is no precision to speak of
    assert per_class == {"cup": pytest.approx(0.5), "can": 0.0}


def test_hidden_objects_are_neither_asked_for_nor_held_against():
    scorer = DetectionScorer()
    hidden = TrueBox("cup", (200.0, 10, 300, 60), ignored=True)
    found = [Detection("cup", hidden.bbox_xyxy_px, 0.9), Detection("cup", BOX, 0.8)]
    scorer.add(found, [hidden, TrueBox("cup", BOX)])
    assert scorer.summarize() == {"cup": 1.0}
    # of two that fit, the one that counts is taken
    scorer = DetectionScorer()
    scorer.add([Detection("cup", BOX, 0.9)], [TrueBox("cup", BOX, True), TrueBox("cup", BOX)])
    assert scorer.summarize() == {"cup": 1.0}
