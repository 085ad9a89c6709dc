"""Letterbox undone exactly, any number of instances and classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, detector_manifest, spec

from heatnet_ros.config import DetectorConfig
from heatnet_ros.errors import EngineError, ModelError
from heatnet_ros.estimators.yolo import YoloDetector, decode_detections, encode_detections
from heatnet_ros.geometry.camera import fit_letterbox
from heatnet_ros.types import Detection, Frame

NAMES = tuple(f"object{i}" for i in range(7))
K = np.array([[600.0, 0, 10], [0, 600.0, 10], [0, 0, 1]])


def decode(rows: np.ndarray, size_hw: tuple[int, int] = (480, 640), **options: float) -> list:
    settings = {"score_threshold": 0.4, "max_detections": 300} | options
    return decode_detections(
        rows, fit_letterbox(size_hw, (384, 512)), size_hw, NAMES, **settings
    )  # fmt: skip


@pytest.mark.parametrize("size_hw", [(481, 641), (479, 333), (33, 1001), (1080, 1920), (384, 512)])
@pytest.mark.parametrize("input_hw", [(640, 640), (384, 512), (320, 416)])
def test_round_trip_for_odd_sizes(size_hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    letterbox = fit_letterbox(size_hw, input_hw)
    names = [f"object{i}" for i in range(40)]
    truth = []
    for i in range(40):
        low = rng.uniform(-0.5, np.array(size_hw)[::-1] - 3.0)
        high = rng.uniform(low + 1.5, np.array(size_hw)[::-1] - 0.5)
        truth.append(Detection(names[i], (*low, *high), 0.99 - 0.01 * i))
    rows = encode_detections(truth, letterbox, names, 300)
    found = decode_detections(rows, letterbox, size_hw, names, 0.4, 300)
    assert [d.object_id for d in found] == [d.object_id for d in truth]
    boxes, expected = ([d.bbox_xyxy_px for d in ds] for ds in (found, truth))
    # float32 output: 2e-5 px at 640, more where the image is scaled down
    np.testing.assert_allclose(boxes, expected, atol=1e-4 / min(letterbox.scale, 1))


def test_the_pixels_lie_where_the_boxes_say() -> None:
    """A white rectangle, letterboxed as the network sees it and found there, comes back."""
    rgb = np.zeros((481, 641, 3), np.uint8)
    rgb[100:221, 300:401] = 255
    letterbox = fit_letterbox((481, 641), (320, 416))
    seen = letterbox.apply(rgb)[..., 0].astype(float)
    seen[seen == 114] = 0
    # edges from sums: pixel values at the edges are the share that is covered
    extent = seen.sum(axis=0).max() / 255, seen.sum(axis=1).max() / 255
    middle = [
        (seen.sum(axis=axis) * (np.arange(seen.shape[1 - axis]) + 0.5)).sum() / seen.sum()
        for axis in (0, 1)
    ]
    half = np.array([extent[1], extent[0]]) / 2
    rows = np.array([[*(middle - half), *(middle + half), 0.9, 2]], np.float32)
    (found,) = decode_detections(rows, letterbox, (481, 641), NAMES, 0.4, 300)
    np.testing.assert_allclose(found.bbox_xyxy_px, (299.5, 99.5, 400.5, 220.5), atol=0.05)


def test_best_first_threshold_and_limit() -> None:
    rows = np.zeros((5, 6), np.float32)
    rows[:, :4] = [10, 10, 50, 60]
    rows[:, 4] = [0.5, 0.9, 0.39, 0.7, 0.4]
    rows[:, 5] = [0, 1, 2, 3, 4]
    assert [d.object_id for d in decode(rows)] == ["object1", "object3", "object0", "object4"]
    assert [d.object_id for d in decode(rows, max_detections=2)] == ["object1", "object3"]
    assert decode(rows, score_threshold=0.95) == []
    assert decode(rows[:0]) == []


def test_many_instances_of_one_class_all_come_back() -> None:
    rows = np.zeros((300, 6), np.float32)
    y, x = np.divmod(np.arange(300), 20)
    rows[:, 0], rows[:, 1], rows[:, 4] = 20 * x, 20 * y, 0.8
    rows[:, 2:4] = rows[:, :2] + 35  # neighbours overlap by 43 %
    assert len(decode(rows)) == 300


@pytest.mark.parametrize(("shift", "count"), [(10.0, 1), (30.0, 2)])
def test_an_object_found_twice_is_told_once(shift: float, count: int) -> None:
    rows = np.array([[10, 10, 110, 110, 0.7, 2]] * 2 + [[10, 10, 110, 110, 0.6, 3]], np.float32)
    rows[1, [0, 2]] += shift  # IoU 0.82, 0.54
    rows[1, 4] = 0.9
    found = decode(rows)
    assert [d.object_id for d in found].count("object2") == count
    assert found[0].score == pytest.approx(0.9)
    assert found[-1].object_id == "object3"  # another class may lie in the same place


def test_doubles_do_not_use_up_the_limit() -> None:
    rows = np.array([[10, 10, 110, 110, 0.9 - 0.1 * i, 2] for i in range(4)], np.float32)
    rows[3, [0, 2]] += 200
    assert len(decode(rows, max_detections=2)) == 2


def test_boxes_are_clipped_and_empty_ones_left_out() -> None:
    rows = np.array(
        [
            [-50, -20, 700, 600, 0.9, 0],
            [600, 10, 700, 50, 0.8, 1],
            [50, 50, 40, 60, 0.7, 2],
            [10, 10, 10.2, 50, 0.6, 3],
        ],
        np.float32,
    )
    (found,) = decode(rows)
    assert found.bbox_xyxy_px == (-0.5, -0.5, 639.5, 479.5)


def test_numbers_that_are_not_finite_are_an_error() -> None:
    rows = np.full((2, 6), np.nan, np.float32)
    with pytest.raises(EngineError, match=r"not finite.*engine\.precision to fp32"):
        decode(rows)


def test_a_class_without_a_name_is_an_error() -> None:
    rows = np.array([[10, 10, 50, 60, 0.9, 7]], np.float32)
    with pytest.raises(ModelError, match=r"classes 7 to 7.*7 objects"):
        decode(rows)


def test_score_rounded_above_one() -> None:
    rows = np.array([[10, 10, 50, 60, 1.0000001, 3]], np.float32)
    assert decode(rows)[0].score == 1.0


def engine(*outputs: int | None, inputs: tuple[int | None, ...] = (1, 320, 416, 3)) -> FakeEngine:
    return FakeEngine(
        (spec("images", "uint8", *inputs),),
        (spec("output0", "float32", *outputs),),
        lambda _: {"output0": np.array([[[0, 0, 416, 320, 0.9, 1]]], np.float32)},
    )


def test_detect_gives_the_network_what_it_was_trained_on() -> None:
    fake = engine(1, None, 6)
    detector = YoloDetector(fake, detector_manifest(), DetectorConfig())
    rgb = np.zeros((320, 416, 3), np.uint8)
    rgb[..., 0] = 200  # red stays first
    (found,) = detector.detect(Frame(rgb, K))
    np.testing.assert_array_equal(fake.calls[0]["images"], rgb[None])
    assert (found.object_id, found.bbox_xyxy_px) == ("brick", (-0.5, -0.5, 415.5, 319.5))
    detector.config = replace(detector.config, score_threshold=0.95)
    assert detector.detect(Frame(rgb, K)) == []


@pytest.mark.parametrize(
    "bad",
    [
        engine(1, 300, 7),
        engine(1, 84, 8400, 1),
        engine(1, 300, 6, inputs=(1, 640, 640, 3)),
        engine(1, 300, 6, inputs=(1, 3, 320, 416)),
        FakeEngine(
            (spec("images", "float32", 1, 320, 416, 3),), engine(1, 300, 6).outputs, lambda _: {}
        ),
        FakeEngine((spec("x", "uint8", 1, 320, 416, 3),), engine(1, 300, 6).outputs, lambda _: {}),
        FakeEngine(engine().inputs, (spec("boxes", "float32", 1, 300, 6),), lambda _: {}),
    ],
    ids=["columns", "rank", "size", "layout", "type", "input name", "output name"],
)
def test_tensors_that_do_not_fit(bad: FakeEngine) -> None:
    with pytest.raises(ModelError, match=r"fake_yolo.*(should be|names).*again"):
        YoloDetector(bad, detector_manifest(), DetectorConfig())


def test_a_manifest_without_the_roles() -> None:
    manifest = replace(detector_manifest(), outputs={"boxes": "output0"}, folder=Path("m"))
    with pytest.raises(ModelError, match=r"expected outputs detections.*names boxes"):
        YoloDetector(engine(1, 300, 6), manifest, DetectorConfig())
