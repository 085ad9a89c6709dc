"""Labels stand near what they name and hide neither each other nor the objects."""

import numpy as np

from heatnet_ros.label_layout import place_labels

IMAGE_WH = (640, 480)


def overlap_px(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))


def test_a_single_label_stands_above_its_box() -> None:
    (x0, y0, x1, y1) = place_labels(np.array([[100.0, 100, 200, 180]]), [(90, 16)], IMAGE_WH)[0]
    assert (x0, x1 - x0, y1 - y0) == (100, 90, 16) and 0 <= 100 - y1 <= 3


def test_a_box_at_the_top_has_its_label_below() -> None:
    box = np.array([300.0, 0, 420, 60])
    (label,) = place_labels(box[None], [(90, 16)], IMAGE_WH)
    assert overlap_px(label.astype(float), box) == 0 and label[1] >= 60


def test_many_labels_of_objects_in_a_heap_overlap_nothing() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        corner = rng.uniform([150, 120], [330, 240], (8, 2))
        boxes = np.hstack([corner, corner + rng.uniform(40, 110, (8, 2))])
        sizes = [(int(w), 16) for w in rng.integers(60, 130, 8)]
        labels = place_labels(boxes, sizes, IMAGE_WH).astype(float)
        for i, label in enumerate(labels):
            assert all(overlap_px(label, other) == 0 for other in labels[:i])
            assert label[:2].min() >= 0 and label[2] <= 640 and label[3] <= 480
            assert tuple(label[2:] - label[:2]) == sizes[i]


def test_objects_beside_each_other_stay_free() -> None:
    boxes = np.array([[100.0, 100, 200, 180], [100, 185, 200, 260], [205, 100, 300, 180]])
    for label in place_labels(boxes, [(80, 16)] * 3, IMAGE_WH).astype(float):
        assert all(overlap_px(label, box) == 0 for box in boxes)


def test_a_label_wider_than_the_image_is_cut_not_lost() -> None:
    (label,) = place_labels(np.array([[5.0, 5, 20, 20]]), [(100, 16)], (64, 48))
    assert label[0] == 0 and label[1] >= 0 and label[3] <= 48
