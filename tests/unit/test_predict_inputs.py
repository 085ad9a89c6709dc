"""Inputs of a split: what its targets file asks for."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from heatnet_ros.datasets.bop import LINEMOD_NAMES
from heatnet_ros.errors import DataError
from heatnet_ros.predict_inputs import find_targets, list_bop_inputs, list_split_inputs

CAMERA = {"cam_K": [600, 0, 10, 0, 600, 8, 0, 0, 1], "depth_scale": 1.0}
POSE = {"cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 900.0]}
APE, CAN = LINEMOD_NAMES[1], LINEMOD_NAMES[5]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four images, each of an ape and a can."""
    scene = tmp_path / "lmo" / "test" / "000002"
    (scene / "rgb").mkdir(parents=True)
    for image in range(4):
        cv2.imwrite(str(scene / "rgb" / f"{image:06d}.png"), np.zeros((16, 20, 3), np.uint8))
    truths = [POSE | {"obj_id": 1}, POSE | {"obj_id": 5}]
    (scene / "scene_camera.json").write_text(json.dumps({str(i): CAMERA for i in range(4)}))
    (scene / "scene_gt.json").write_text(json.dumps({str(i): truths for i in range(4)}))
    return tmp_path / "lmo"


def write_targets(path: Path, *entries: dict[str, int]) -> Path:
    path.write_text(json.dumps([{"scene_id": 2} | entry for entry in entries]))
    return path


def asked(dataset: Path) -> dict[int, object]:
    return {image.image_id: image.targets for image in list_split_inputs(dataset, "test").images}


def test_without_a_list_every_image_counts(dataset: Path):
    assert find_targets(dataset, "test") is None
    assert asked(dataset) == dict.fromkeys(range(4))


@pytest.mark.parametrize("challenge", ["bop19", "bop24"])
def test_lists_of_both_challenges_count_instances(dataset: Path, challenge: str):
    ape, can = {"obj_id": 1, "inst_count": 1}, {"obj_id": 5, "inst_count": 2}
    path = dataset / f"test_targets_{challenge}.json"
    write_targets(path, ape | {"im_id": 1}, can | {"im_id": 1}, can | {"im_id": 3})
    assert asked(dataset) == {1: {APE: 1, CAN: 2}, 3: {CAN: 2}}


def test_a_list_for_detection_names_images_alone(dataset: Path):
    path = write_targets(dataset / "test_targets_bop24.json", {"im_id": 0}, {"im_id": 2})
    assert asked(dataset) == {0: None, 2: None}
    inputs = list_bop_inputs(dataset / "test", path)
    assert inputs is not None and [image.image_id for image in inputs.images] == [0, 2]


def test_of_two_lists_the_one_of_2019_counts(dataset: Path):
    write_targets(dataset / "test_targets_bop24.json", {"im_id": 0}, {"im_id": 2})
    write_targets(dataset / "test_targets_bop19.json", {"im_id": 3, "obj_id": 1, "inst_count": 1})
    assert asked(dataset) == {3: {APE: 1}}


def test_a_list_must_fit_the_images(dataset: Path):
    path = write_targets(dataset / "test_targets_bop24.json", {"im_id": 0}, {"im_id": 9})
    with pytest.raises(DataError, match=r"bop24\.json asks for 2 images, 1 .* scene 2, image 9"):
        list_split_inputs(dataset, "test")
    write_targets(path, {"im_id": 0}, {})
    with pytest.raises(DataError, match=r"test_targets_bop24\.json"):
        list_split_inputs(dataset, "test")
    # with objects in one line, they must be in each
    write_targets(path, {"im_id": 0, "obj_id": 1, "inst_count": 1}, {"im_id": 1})
    with pytest.raises(DataError, match=r"test_targets_bop24\.json"):
        list_split_inputs(dataset, "test")
