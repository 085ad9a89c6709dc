"""Two poses near one another: one object found twice, or two of a kind."""

import re

import numpy as np
import pytest
from fakes import LIBRARY, SIZE_HW, K, pose, render_depth

from heatnet_ros.doubles import drop_doubles
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import NO_DISTORTION
from heatnet_ros.types import Frame, PoseEstimate, Reason

MODEL = LIBRARY["wedge"]
HEIGHT_M = float(np.ptp(MODEL.bounds_m[:, 2]))
T_TRUE = pose(0.02, -0.03, 0.6)


def estimate(T: np.ndarray, score: float, name: str = "wedge") -> PoseEstimate:
    return PoseEstimate(name, T, score, 1.0, 1.0, "test")


def see(*truth: np.ndarray) -> np.ndarray:
    return render_depth([("wedge", T) for T in truth], NO_DISTORTION)


def kept(depth_m: np.ndarray | None, *poses: PoseEstimate) -> list[float]:
    """Scores of the poses that are left, in their order."""
    frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, depth_m)
    left, rejected = drop_doubles(poses, frame, LIBRARY)
    assert all(one.reason is Reason.SAME_OBJECT for one in rejected)
    return [one.score for one in left]


def moved(*diameters: float, rotvec: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """The true pose, off by diameters along the camera's axes and turned about its middle."""
    T = se3.make_transform(se3.exp_so3(np.array(rotvec)) @ T_TRUE[:3, :3], np.zeros(3))
    T[:3, 3] = MODEL.center_m(T_TRUE) - MODEL.center_m(T) + MODEL.diameter_m * np.array(diameters)
    return T


@pytest.mark.parametrize("depth", [True, False])
def test_nearly_the_same_place_is_one_object(depth: bool) -> None:
    worse = estimate(moved(0.04, 0, 0.05), 0.7)
    depth_m = see(T_TRUE) if depth else None
    assert kept(depth_m, worse, estimate(T_TRUE, 0.8)) == [0.8]


def test_of_another_object_it_is_no_double() -> None:
    assert kept(see(T_TRUE), estimate(T_TRUE, 0.8), estimate(T_TRUE, 0.7, "brick")) == [0.8, 0.7]


@pytest.mark.parametrize(
    "ghost",
    [
        moved(-0.04, 0.1, 0.1),
        moved(0.15, 0, 0.05),
        moved(0.05, 0.02, -0.095),
        moved(0.1, 0.1, 0.05, rotvec=(0.1, 0, 0.3)),
        moved(0.12, -0.12, 0.02, rotvec=(0, 0, 0.3)),
    ],
)
def test_a_ghost_beside_the_pose_of_the_only_object_there_is(ghost: np.ndarray) -> None:
    """As of an instance that has gone behind another: what its box shows is the other one."""
    poses = estimate(ghost, 0.3), estimate(T_TRUE, 0.6)
    assert kept(see(T_TRUE), *poses) == [0.6]
    assert kept(None, *poses) == [0.3, 0.6], "nothing tells without depth"


@pytest.mark.parametrize("slack_m", [0.0, 0.003], ids=["exact", "3 mm off"])
@pytest.mark.parametrize("rotvec", [(2.2, 0.4, 0.3), (1.6, 0.2, 0.1), (2.9, 0.1, 0.2)])
def test_two_that_are_stacked_are_two(rotvec: tuple[float, float, float], slack_m: float) -> None:
    """They touch, 0.4 diameters apart, and the one may hide most of the other."""
    below = pose(0.02, -0.03, 0.6, rotvec)
    above = below @ se3.make_transform(np.eye(3), np.array([0, 0, HEIGHT_M]))
    off = above.copy()
    off[:3, 3] += slack_m
    assert 0.5 * MODEL.diameter_m > HEIGHT_M
    for scores in ((0.8, 0.7), (0.6, 0.7)):
        poses = estimate(below, scores[0]), estimate(off, scores[1])
        assert kept(see(below, above), *poses) == list(scores)


@pytest.mark.parametrize("rotvec", [(2.2, 0.4, 0.3), (1.6, 0.2, 0.1), (2.9, 0.1, 0.2)])
def test_an_object_without_depth_of_its_own_is_none_of_its_neighbour(
    rotvec: tuple[float, float, float],
) -> None:
    """It shines: the few samples of it that have depth have their neighbour's."""
    one = pose(0.02, -0.03, 0.6, rotvec)
    other = one @ se3.make_transform(np.eye(3), np.array([0, 0, HEIGHT_M]))
    for dull, bright in ((one, other), (other, one)):
        depth_m = see(dull, bright)
        depth_m[depth_m != see(dull)] = np.nan
        assert kept(depth_m, estimate(dull, 0.8), estimate(bright, 0.7)) == [0.8, 0.7]


def test_what_is_dropped_says_why() -> None:
    frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, see(T_TRUE))
    poses = estimate(moved(0.15, 0, 0.05), 0.3), estimate(T_TRUE, 0.6)
    _, (rejected,) = drop_doubles(poses, frame, LIBRARY)
    assert rejected.object_id == "wedge" and rejected.detection is poses[0].detection
    assert re.match(r"0\.16 diameters from a better pose, .* \d+% of the depth", rejected.detail)
