"""The measured depth as a witness for or against a pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import BACKGROUND_M, LIBRARY, SIZE_HW, K, pose, render_depth

from heatnet_ros.gate import AGREES, HIDDEN, check_depth
from heatnet_ros.geometry.camera import NO_DISTORTION, project
from heatnet_ros.geometry.depth import view_surfaces
from heatnet_ros.types import Frame, PoseEstimate

MODEL = LIBRARY["wedge"]
T_TRUE = pose(0.02, -0.03, 0.6)
DEPTH = render_depth([("wedge", T_TRUE)], NO_DISTORTION)


def checked(depth_m: np.ndarray | None, T: np.ndarray = T_TRUE) -> PoseEstimate:
    frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, depth_m)
    return check_depth([PoseEstimate("wedge", T, 0.8, 1.0, 1.0, "test")], frame, LIBRARY)[0]


def shifted(dz_m: float) -> np.ndarray:
    T = T_TRUE.copy()
    T[:3, 3] *= 1 + dz_m / T[2, 3]
    return T


def seen_pixels() -> np.ndarray:
    """Where the samples that face the camera fall in the image."""
    surface = MODEL.surface.T[None]
    view = view_surfaces(T_TRUE[None], surface[:, :3], surface[:, 3:], DEPTH, K)
    return project(view.points_m[0].T[view.valid[0]], K)


def test_a_true_pose_keeps_its_score() -> None:
    result = checked(DEPTH)
    assert result.score > 0.95 * 0.8  # a few samples at the edge see the wall
    assert abs(result.depth_error_m) < 1e-3


@pytest.mark.parametrize("dz_m", [-0.006, 0.006])
def test_the_error_is_the_distance_and_its_sign(dz_m: float) -> None:
    result = checked(DEPTH, shifted(dz_m))
    assert result.depth_error_m == pytest.approx(-dz_m, abs=1e-3)


@pytest.mark.parametrize(("sign", "counts"), [(-1, HIDDEN), (1, 1.0)])
def test_what_stands_before_counts_half_and_a_look_through_counts_whole(
    sign: int, counts: float
) -> None:
    # the left part of the object is covered, or is not there
    pixels = seen_pixels()
    column = int(np.percentile(pixels[:, 0], 40))
    depth = DEPTH.copy()
    depth[:, :column] = 0.6 + sign * 0.3
    left = float(np.mean(np.floor(pixels[:, 0] + 0.5) < column))
    result = checked(depth)
    expected = (1 - left) / (1 - left + counts * left)
    assert result.score / checked(DEPTH).score == pytest.approx(expected, rel=0.04)
    # the part that agrees is the pose's error, not what stands before the rest
    assert abs(result.depth_error_m) < 1e-3


@pytest.mark.parametrize("dz_m", [-0.3, 0.3])
def test_a_pose_elsewhere_is_worth_nothing(dz_m: float) -> None:
    result = checked(DEPTH, shifted(dz_m))
    assert result.score < 0.05
    assert abs(result.depth_error_m) > 2 * AGREES * MODEL.diameter_m


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -1.0])
def test_without_a_measured_depth_nothing_is_said(invalid: float) -> None:
    result = checked(np.full(SIZE_HW, invalid, np.float32))
    assert result.depth_error_m is None and result.score == 0.8


def test_without_a_depth_image_an_old_error_is_forgotten() -> None:
    frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, None)
    old = replace(PoseEstimate("wedge", T_TRUE, 0.8, 1.0, 1.0, "test"), depth_error_m=0.1)
    (result,) = check_depth([old], frame, LIBRARY)
    assert result.depth_error_m is None and result.score == 0.8


def test_a_wall_where_the_object_should_be_is_no_support() -> None:
    result = checked(np.full(SIZE_HW, BACKGROUND_M, np.float32))
    assert result.score == 0.0
    assert result.depth_error_m == pytest.approx(BACKGROUND_M - 0.6, abs=0.05)


def test_each_pose_is_judged_by_itself() -> None:
    frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, DEPTH)
    poses = [
        PoseEstimate(name, T, 0.8, 1.0, 1.0, "test")
        for name, T in (("wedge", T_TRUE), ("brick", shifted(0.1)), ("wedge", shifted(0.006)))
    ]
    together = check_depth(poses, frame, LIBRARY)
    for pose_, result in zip(poses, together, strict=True):
        (alone,) = check_depth([pose_], frame, LIBRARY)
        assert (alone.score, alone.depth_error_m) == (result.score, result.depth_error_m)
