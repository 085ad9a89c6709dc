"""Equivalent poses: the choice depends on the image only and never flips."""

from __future__ import annotations

import numpy as np
import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import (
    NO_SYMMETRY,
    Symmetries,
    canonicalize,
    equivalent_transforms,
    nearest_equivalent,
    rotation_about,
)

AXIS, POINT = np.array([0.0, 0.0, 1.0]), np.array([0.01, -0.02, 0.0])
HALF_TURN = rotation_about(AXIS, POINT, np.pi)
TWO_FOLD = Symmetries(np.stack([np.eye(4), HALF_TURN]))
FOUR_FOLD = Symmetries(np.stack([rotation_about(AXIS, POINT, i * np.pi / 2) for i in range(4)]))
TURNED = Symmetries(np.eye(4)[None], np.array([0.6, 0.0, 0.8]), POINT)
FLIP = rotation_about(np.array([1.0, 0, 0]), POINT, np.pi)
CYLINDER = Symmetries(np.stack([np.eye(4), FLIP]), AXIS, POINT)
ALL = {"2": TWO_FOLD, "4": FOUR_FOLD, "turned": TURNED, "cylinder": CYLINDER, "none": NO_SYMMETRY}


def _poses(count: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [
        se3.make_transform(se3.exp_so3(rng.normal(0, 2, 3)), [*rng.uniform(-0.2, 0.2, 2), 0.7])
        for _ in range(count)
    ]


def _looks_the_same(T: np.ndarray, other: np.ndarray, symmetries: Symmetries) -> bool:
    """Whether the object's points, and those of all its equivalents, fall together."""
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.05, (5, 3))
    steps = 3600 if symmetries.axis is not None else 1
    equivalents = T @ equivalent_transforms(symmetries, steps)
    moved = points @ np.swapaxes(equivalents[:, :3, :3], 1, 2) + equivalents[:, None, :3, 3]
    distance = np.abs(moved - se3.transform(other, points)).max(axis=(1, 2)).min()
    return bool(distance < (3e-4 if symmetries.axis is not None else 1e-12))


def test_rotation_about_leaves_its_line_in_place() -> None:
    T = rotation_about(AXIS, POINT, 1.1)
    on_line = POINT + np.array([[0, 0, 0.3], [0, 0, -1.0]])
    np.testing.assert_allclose(se3.transform(T, on_line), on_line, atol=1e-15)
    assert se3.rotation_angle_rad(np.eye(3), T[:3, :3]) == pytest.approx(1.1)


@pytest.mark.parametrize("name", ALL)
def test_canonical_pose_is_equivalent_and_the_same_for_all_equivalents(name: str) -> None:
    symmetries = ALL[name]
    for T in _poses():
        canonical = canonicalize(T, symmetries)
        assert _looks_the_same(T, canonical, symmetries)
        for S in equivalent_transforms(symmetries, 7):
            np.testing.assert_allclose(canonicalize(T @ S, symmetries), canonical, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_nearest_is_equivalent_and_nearer_than_any_other(name: str) -> None:
    symmetries = ALL[name]
    poses = _poses()
    for T, last in zip(poses, reversed(poses), strict=True):
        chosen = nearest_equivalent(T, last, symmetries)
        assert _looks_the_same(T, chosen, symmetries)
        angle = se3.rotation_angle_rad(last[:3, :3], chosen[:3, :3])
        for other in T @ equivalent_transforms(symmetries, 90):
            assert angle <= se3.rotation_angle_rad(last[:3, :3], other[:3, :3]) + 1e-9


def test_an_object_that_turns_slowly_never_flips() -> None:
    last = canonicalize(_poses(1)[0], TWO_FOLD)
    for i in range(200):  # more than a whole turn; what is measured flips at random
        true = last @ rotation_about(AXIS, POINT, 0.04)
        measured = true @ HALF_TURN if i % 3 == 0 else true
        chosen = nearest_equivalent(measured, last, TWO_FOLD)
        assert se3.rotation_angle_rad(last[:3, :3], chosen[:3, :3]) == pytest.approx(0.04)
        last = chosen


def test_turning_a_round_object_about_its_axis_changes_no_canonical_pose() -> None:
    T = _poses(1)[0]
    a = canonicalize(T, CYLINDER)
    b = canonicalize(T @ rotation_about(AXIS, POINT, 1.234), CYLINDER)
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_counts() -> None:
    assert not NO_SYMMETRY.any and TWO_FOLD.any and TURNED.any
    assert len(equivalent_transforms(CYLINDER, 12)) == 24
    assert len(equivalent_transforms(FOUR_FOLD)) == 4


def test_wrong_symmetries_are_refused() -> None:
    with pytest.raises(ConfigError, match="first discrete symmetry must be the identity"):
        Symmetries(HALF_TURN[None])
    with pytest.raises(ConfigError, match="Sx4x4"):
        Symmetries(np.eye(4))
    with pytest.raises(ConfigError, match="both axis and point"):
        Symmetries(np.eye(4)[None], axis=AXIS)
