"""Ids over whole sequences, as docs/topics.md promises them; raw and filtered alike."""

from collections.abc import Iterator

import numpy as np
import pytest
from fakes import LIBRARY, World, pose

from heatnet_ros.config import FollowConfig, PipelineConfig
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.types import PipelineResult

FRAME_NS = 33_333_333
DIAMETER_M = LIBRARY["wedge"].diameter_m


@pytest.fixture(params=[True, False], ids=["followed", "detected"])
def config(request: pytest.FixtureRequest) -> PipelineConfig:
    return PipelineConfig(follow=FollowConfig(enabled=request.param, redetect_s=0.1))


@pytest.fixture
def scene(config: PipelineConfig) -> Iterator[tuple[World, Pipeline]]:
    world = World(("wedge", pose(-0.15, 0, 0.7)), ("wedge", pose(0.15, 0, 0.9)))
    pipeline = world.pipeline(config)
    yield world, pipeline
    pipeline.close()


def see(scene: tuple[World, Pipeline], number: int) -> PipelineResult:
    world, pipeline = scene
    result = pipeline.run(world.frame(stamp_ns=number * FRAME_NS))
    search = pipeline._follower._search
    if search is not None:
        search.exception(timeout=10)
        pipeline._follower._rest_until_s = 0.0
    return result


def depths(result: PipelineResult) -> dict[int, float]:
    """Instance -> z, raw and filtered in agreement."""
    raw = {p.instance: round(float(p.T_camera_object[2, 3]), 2) for p in result.poses}
    filtered = {p.instance: round(float(p.T_camera_object[2, 3]), 2) for p in result.filtered}
    assert raw == filtered
    return raw


@pytest.mark.parametrize("hidden", [0.0, 0.05], ids=["both seen", "one hidden"])
def test_two_of_one_class_that_cross_keep_their_ids(
    scene: tuple[World, Pipeline], hidden: float
) -> None:
    """One passes 20 cm behind the other; while they overlap it may be hidden."""
    world, _ = scene
    for i in range(45):
        x = -0.18 + 0.36 * i / 44
        world.truth = [("wedge", pose(x, 0, 0.7)), ("wedge", pose(-x, 0, 0.9))]
        world.hidden = {1} if abs(x) < hidden else set()
        result = see(scene, i)
        assert depths(result) in ({0: 0.7, 1: 0.9}, {0: 0.7})
    assert depths(result) == {0: 0.7, 1: 0.9}


def test_two_of_one_class_that_meet_and_turn_back_keep_their_ids(
    scene: tuple[World, Pipeline],
) -> None:
    """Side by side at one diameter: what moved towards the other moves away again."""
    world, _ = scene
    for i in range(40):
        half = 0.55 * DIAMETER_M + 0.004 * abs(i - 20)
        world.truth = [("wedge", pose(-half, 0, 0.8)), ("wedge", pose(half, 0, 0.8))]
        result = see(scene, i)
        x = {p.instance: float(p.T_camera_object[0, 3]) for p in result.poses}
        assert np.sign([x[0], x[1]]).tolist() == [-1, 1]


@pytest.mark.parametrize(("frames", "moved_m", "expected"), [
    (20, 0.0, {0, 1}),  # back within a second where it was
    (20, 0.5 * DIAMETER_M, {0, 1}),  # and nearby
    (20, 1.5 * DIAMETER_M, {1, 2}),  # elsewhere: taken for another one
    (40, 0.0, {0, 1}),  # after more than a second: the smallest id that is free
    (40, 1.5 * DIAMETER_M, {0, 1}),
])  # fmt: skip
def test_one_that_leaves_and_returns(
    scene: tuple[World, Pipeline], frames: int, moved_m: float, expected: set[int]
) -> None:
    world, _ = scene
    for i in range(6):
        first = see(scene, i)
    assert depths(first) == {0: 0.7, 1: 0.9}
    world.hidden = {0}
    for i in range(6, 6 + frames):
        gone = see(scene, i)
        assert depths(gone) == {1: 0.9}  # the other one keeps its id all the while
    world.hidden = set()
    world.truth[0] = ("wedge", pose(-0.15, -moved_m, 0.7))
    for i in range(6 + frames, 12 + frames):
        back = see(scene, i)
    assert set(depths(back)) == expected
    assert depths(back)[1] == 0.9
