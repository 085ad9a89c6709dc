"""Recall of measured poses: misses, symmetric objects, several of one kind."""

import numpy as np
from fakes import LIBRARY, World, pose

from heatnet_ros.bench.recall import score_poses
from heatnet_ros.bench.recording import Recording, Target
from heatnet_ros.geometry import se3
from heatnet_ros.types import PoseEstimate

NEAR, FAR = 0.09, 0.11  # shifts in diameters, beside the 0.1 that is allowed
BOX = (0.0, 0.0, 10.0, 10.0)


def shifted(T: np.ndarray, name: str, diameters: float) -> np.ndarray:
    moved = T.copy()
    moved[0, 3] += diameters * LIBRARY[name].diameter_m
    return moved


def estimate(name: str, T: np.ndarray, score: float) -> PoseEstimate:
    return PoseEstimate(name, T, score, 1.0, 0.5, "test")


def score(found: dict, truths: dict) -> dict:
    poses = {stamp: tuple(estimate(*item) for item in items) for stamp, items in found.items()}
    targets = {
        stamp: tuple(Target(name, T, BOX) for name, T in items) for stamp, items in truths.items()
    }
    return score_poses(poses, targets, LIBRARY)


WEDGE, BRICK, DISC = pose(0, 0, 0.7), pose(0.2, 0, 0.8), pose(-0.2, 0, 0.8)


def test_a_tenth_of_the_diameter_is_the_limit() -> None:
    found = {i: [("wedge", shifted(WEDGE, "wedge", d), 0.9)] for i, d in enumerate((NEAR, FAR))}
    scores = score(found, {0: [("wedge", WEDGE)], 1: [("wedge", WEDGE)]})
    assert scores["recall_add_01d"] == 0.5 and scores["targets"] == 2


def test_what_is_missed_is_wrong_and_what_is_no_target_does_not_count() -> None:
    found = {0: [("wedge", WEDGE, 0.9), ("disc", DISC, 0.9)], 1: []}
    truths = {0: [("wedge", WEDGE)], 1: [("wedge", WEDGE)], 2: [("wedge", WEDGE)]}
    scores = score(found, truths)  # stamp 2 was not measured
    assert scores["recall_by_object"] == {"wedge": {"recall_add_01d": 0.5, "targets": 2}}


def test_objects_weigh_the_same_however_often_they_are_seen() -> None:
    found = {0: [("wedge", WEDGE, 0.9)], 1: [], 2: [("brick", BRICK, 0.9)]}
    truths = {0: [("wedge", WEDGE)], 1: [("wedge", WEDGE)], 2: [("brick", BRICK)]}
    scores = score(found, truths)
    assert scores["recall_add_01d"] == 0.75 and scores["targets"] == 3


def test_a_symmetric_object_may_be_turned() -> None:
    turned = DISC @ se3.make_transform(se3.exp_so3(np.array([0, 0, 1.1])), np.zeros(3))
    assert score({0: [("disc", turned, 0.9)]}, {0: [("disc", DISC)]})["recall_add_01d"] == 1.0
    turned = WEDGE @ se3.make_transform(se3.exp_so3(np.array([0, 0, 1.1])), np.zeros(3))
    assert score({0: [("wedge", turned, 0.9)]}, {0: [("wedge", WEDGE)]})["recall_add_01d"] == 0.0


def test_two_of_one_kind_are_told_apart() -> None:
    other = pose(0.25, 0.1, 0.7)
    truths = {0: [("wedge", WEDGE), ("wedge", other)]}
    both = {0: [("wedge", other, 0.9), ("wedge", WEDGE, 0.8)]}
    assert score(both, truths)["recall_add_01d"] == 1.0
    twice = {0: [("wedge", other, 0.9), ("wedge", other, 0.8)]}
    assert score(twice, truths)["recall_add_01d"] == 0.5
    # no more tries than targets: the worse scored third does not help
    third = {0: [*twice[0], ("wedge", WEDGE, 0.7)]}
    assert score(third, truths)["recall_add_01d"] == 0.5


def test_nothing_to_find_is_no_recall() -> None:
    scores = score({0: [("wedge", WEDGE, 0.9)]}, {})
    assert scores == {"recall_add_01d": None, "targets": 0, "recall_by_object": {}}


def test_only_what_is_in_view_is_a_target() -> None:
    at_the_edge = pose(0.41, 0, 0.7)  # most of it is outside of the image
    world = World(("wedge", WEDGE), ("brick", at_the_edge))
    recording = Recording((world.frame(stamp_ns=7),), (tuple(world.truth),), "a test")
    targets = recording.targets(LIBRARY, ("wedge", "brick"))
    assert [t.object_id for t in targets[7]] == ["wedge"]
    assert targets[7][0].bbox_xyxy_px == recording.boxes(LIBRARY, ("wedge",))[7][0].bbox_xyxy_px
