"""A checkpoint continues, and is exported, only with the objects it was trained for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from sphere_crops import sphere_model

from heatnet_ros.errors import ModelError
from heatnet_ros.geometry.symmetry import Symmetries
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.training.trained_objects import check_trained_objects, describe_objects

pytestmark = pytest.mark.train
BALL, FILE = sphere_model(), Path("balls.yaml")
OTHER_ORDER = dataclasses.replace(BALL, keypoints_m=BALL.keypoints_m[::-1])
ROUND = dataclasses.replace(BALL, symmetries=Symmetries(np.eye(4)[None], np.eye(3)[2], np.zeros(3)))
CUBE = dataclasses.replace(BALL, name="cube")


def library(*models) -> ObjectLibrary:
    return ObjectLibrary("balls", {model.name: model for model in models}, FILE)


def check(trained: dict, *models, keypoints=True) -> None:
    expected = {"network": 5, **describe_objects(library(*models), keypoints)}
    check_trained_objects(trained, expected, Path("run/final.pt"), str(FILE))


def test_the_same_objects_are_accepted():
    state = {"network": 4, **describe_objects(library(BALL, CUBE), True)}
    check(state, BALL, CUBE)
    check(state, OTHER_ORDER, CUBE, keypoints=False)  # a detector knows no keypoints
    check_trained_objects({}, {"network": 5}, Path("run/final.pt"), "")  # nothing asked for


@pytest.mark.parametrize("changed", [OTHER_ORDER, ROUND])
def test_other_keypoints_of_the_same_number_are_refused(changed):
    state = describe_objects(library(BALL, CUBE), True)
    told = r"run/final\.pt was trained for other keypoints or symm.*balls\.yaml now.*Restore that "
    told += r"file.*train again.*init: run/final"
    with pytest.raises(ModelError, match=told):
        check(state, changed, CUBE)


@pytest.mark.parametrize("keypoints", [True, False])
def test_other_objects_or_another_order_are_refused(keypoints):
    state = describe_objects(library(BALL, CUBE), keypoints)
    with pytest.raises(
        ModelError, match=r"for ball, cube in this order, balls.yaml now.*cube, ball"
    ):
        check(state, CUBE, BALL, keypoints=keypoints)
    with pytest.raises(ModelError, match=r"ball, cube in this order, balls.yaml now defines ball"):
        check(state, BALL, keypoints=keypoints)


def test_a_checkpoint_that_says_nothing_is_refused():
    with pytest.raises(ModelError, match=r"expected the entry 'objects', got none.*train again"):
        check({"network": 5}, BALL)
    with pytest.raises(ModelError, match=r"expected the entry 'objects_hash', got none"):
        check({"objects": ["ball"]}, BALL)
