"""What a network's answers are compared on, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.errors import ModelError
from heatnet_ros.estimators.agreement import (
    SAMPLES_FILE,
    build_check,
    compare_heatmaps,
    compare_rows,
    load_samples,
    write_samples,
)
from heatnet_ros.estimators.heatnet import encode_heatmaps
from heatnet_ros.manifest import load_manifest

MODELS = Path(__file__).parents[3] / "models"
HEATNET = load_manifest(MODELS / "demo_heatnet_rgbd")


def heatmaps(shift_px: float = 0.0, height: float = 1.0) -> np.ndarray:
    points = np.random.default_rng(0).uniform(30, 90, (8, 2)) + np.array([shift_px, 0.0])
    return height * encode_heatmaps(points, (32, 32), 4, 1.5)[None]


def test_shifted_heatmaps_differ_by_their_shift() -> None:
    found = compare_heatmaps([heatmaps()], [heatmaps(0.7)], HEATNET)
    assert found.compared == 8
    assert found.px == pytest.approx(0.7, abs=0.05)
    assert compare_heatmaps([heatmaps()], [heatmaps()], HEATNET).px == 0.0
    assert compare_heatmaps([heatmaps()], [heatmaps() * np.nan], HEATNET).px == np.inf


def test_flat_heatmaps_are_judged_by_their_values() -> None:
    found = compare_heatmaps([heatmaps(height=0.1)], [heatmaps(height=0.11)], HEATNET)
    assert found.compared == 0
    assert found.values == pytest.approx(0.1, abs=0.01)


def test_boxes() -> None:
    rows = np.array([[10, 10, 50, 50, 0.9, 1], [60, 60, 90, 90, 0.1, 0]], np.float32)
    moved = rows + np.array([1.5, 0, 0, 0, 0, 0], np.float32)
    found = compare_rows([rows], [moved[::-1]])
    assert (found.px, found.compared, found.values) == (1.5, 1, 0.0)
    other_class, lost = rows.copy(), rows.copy()
    other_class[0, 5], lost[0, 4] = 2, 0.05
    for broken in (other_class, lost, rows * np.nan):
        assert compare_rows([rows], [broken]).px == np.inf


@pytest.mark.parametrize("name", ["demo_heatnet_rgbd", "demo_yolo", "linemod_heatnet_rgb"])
def test_drawn_samples_fit_the_network(name: str) -> None:
    manifest = load_manifest(MODELS / name)
    check = build_check(manifest)
    assert not check.real and len(check.samples) == 8
    assert set(check.samples[0]) == set(manifest.inputs.values())
    again = build_check(manifest)
    for one, other in zip(check.samples, again.samples, strict=True):
        for key, array in one.items():
            assert array.shape[0] == 1
            np.testing.assert_array_equal(array, other[key])


def test_recorded_samples_are_taken(tmp_path: Path) -> None:
    drawn = build_check(HEATNET).samples
    write_samples(tmp_path / SAMPLES_FILE, drawn[:3])
    check = build_check(replace(HEATNET, folder=tmp_path))
    assert check.real and len(check.samples) == 3
    np.testing.assert_array_equal(check.samples[2]["rgb"], drawn[2]["rgb"])


def test_samples_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / SAMPLES_FILE
    write_samples(path, [{"rgb": np.zeros((2, 4, 4, 3))}])
    with pytest.raises(ModelError, match=r"expected the arrays image .* got rgb\[2, 4, 4, 3\]"):
        load_samples(path, ("image",))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="cannot be read"):
        load_samples(path, ("rgb",))


def test_a_manifest_without_the_tensors_is_refused() -> None:
    with pytest.raises(ModelError, match="expected inputs object_index, rgb and the output"):
        build_check(replace(HEATNET, inputs={"rgb": "rgb"}))
