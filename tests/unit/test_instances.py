"""Ids that stay, symmetric objects that do not flip."""

import numpy as np
import pytest
from fakes import LIBRARY, largest_turn_deg, pose

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import (
    Symmetries,
    canonicalize,
    equivalent_transforms,
    rotation_about,
)
from heatnet_ros.instances import InstanceMemory
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, PoseEstimate

SECOND = 1_000_000_000
FRAME = SECOND // 30


def estimate(name: str, T: FloatArray, covariance: FloatArray | None = None) -> PoseEstimate:
    return PoseEstimate(name, T, 0.9, 1.0, 0.5, "test", covariance=covariance)


def ids(poses: list[PoseEstimate]) -> list[int]:
    return [p.instance for p in poses]


def test_two_instances_keep_their_ids_when_the_detector_swaps_them() -> None:
    memory = InstanceMemory(LIBRARY)
    left, right = -0.1, 0.1
    assert ids(memory.assign([estimate("wedge", pose(x, 0, 0.6)) for x in (left, right)], 0)) == [
        0,
        1,
    ]
    for i in range(1, 6):
        step = 0.005 * i
        swapped = [estimate("wedge", pose(x + step, 0, 0.6)) for x in (right, left)]
        assert ids(memory.assign(swapped, i * FRAME)) == [1, 0]


def test_of_several_near_ones_the_nearest_pair_first() -> None:
    memory = InstanceMemory(LIBRARY)
    places = [0.0, 0.05, 0.1]  # all within one diameter
    memory.assign([estimate("wedge", pose(x, 0, 0.6)) for x in places], 0)
    moved = [estimate("wedge", pose(x + 0.01, 0, 0.6)) for x in (0.1, 0.0, 0.05)]
    assert ids(memory.assign(moved, FRAME)) == [2, 0, 1]
    assert ids(memory.assign([moved[2]], 2 * FRAME)) == [1]


def test_ids_are_counted_for_each_object() -> None:
    memory = InstanceMemory(LIBRARY)
    poses = [estimate(n, pose(0, 0, 0.6)) for n in ("wedge", "brick")]
    assert ids(memory.assign(poses, 0)) == [0, 0]


def test_a_free_id_is_used_again_a_known_one_never_given_away() -> None:
    memory = InstanceMemory(LIBRARY)
    xs = (-0.3, 0.0, 0.3)
    memory.assign([estimate("wedge", pose(x, 0, 0.8)) for x in xs], 0)
    # the first is hidden for a moment; a new one comes in far away and is listed first
    found = [
        estimate("wedge", pose(x, 0.4, 0.8) if x == 9 else pose(x, 0, 0.8)) for x in (9, 0, 0.3)
    ]
    assert ids(memory.assign(found, FRAME)) == [3, 1, 2]
    assert ids(memory.assign([estimate("wedge", pose(-0.3, 0, 0.8))], 2 * FRAME)) == [0]
    # after a second nothing is known
    assert ids(memory.assign([estimate("wedge", pose(0.3, 0, 0.8))], 2 * SECOND)) == [0]


def test_a_bad_pose_before_it_was_hidden_does_not_cost_it_its_id() -> None:
    """It moves on by 1.5 diameters behind something; its last pose is off by a fifth of one."""
    memory, step_m = InstanceMemory(LIBRARY), 0.01
    for i in range(10):
        memory.assign([estimate("wedge", pose(i * step_m, 0, 0.6))], i * FRAME)
    memory.assign([estimate("wedge", pose(10 * step_m - 0.02, 0.012, 0.576))], 10 * FRAME)
    late = [estimate("wedge", pose(24 * step_m, 0, 0.6))]
    others = [estimate("wedge", pose(-24 * step_m, 0, 0.6))]
    assert ids(memory.assign([*others, *late], 24 * FRAME)) == [1, 0]


@pytest.mark.parametrize(("diameters", "same"), [(0.95, True), (1.05, False)])
def test_a_partner_is_at_most_one_diameter_away(diameters: float, same: bool) -> None:
    memory = InstanceMemory(LIBRARY)
    memory.assign([estimate("wedge", pose(0, 0, 0.6))], 0)
    moved = pose(diameters * LIBRARY["wedge"].diameter_m, 0, 0.6)
    assert (ids(memory.assign([estimate("wedge", moved)], FRAME)) == [0]) is same


@pytest.mark.parametrize("jump", [-SECOND - 1, SECOND + 1])
def test_a_jump_in_time_and_reset_forget(jump: int) -> None:
    memory = InstanceMemory(LIBRARY)
    poses = [estimate("wedge", pose(x, 0, 0.6)) for x in (-0.1, 0.1)]
    memory.assign(poses, 5 * SECOND)
    assert ids(memory.assign(poses[1:], 5 * SECOND + FRAME)) == [1]
    assert ids(memory.assign(poses[1:], 5 * SECOND + jump + FRAME * (jump > 0))) == [0]
    memory.assign(poses, 5 * SECOND)
    memory.reset()
    assert ids(memory.assign(poses[1:], 5 * SECOND)) == [0]


@pytest.mark.parametrize("name", ["brick", "disc"])
def test_symmetric_objects_do_not_flip(name: str) -> None:
    """The object turns past the boundary where its canonical pose jumps; what is told does not."""
    symmetries = LIBRARY[name].symmetries
    memory, told, canonical = InstanceMemory(LIBRARY), [], []
    rng = np.random.default_rng(0)
    for i, angle in enumerate(np.radians(np.arange(0, 360, 5))):
        T = pose(0.05, 0, 0.6, (2.0, 0, 0)) @ rotation_about(np.eye(3)[2], np.zeros(3), angle)
        canonical.append(canonicalize(T, symmetries))
        # the estimator may find any of the equivalent poses
        T = T @ rng.choice(equivalent_transforms(symmetries))
        told.append(memory.assign([estimate(name, T)], i * FRAME)[0].T_camera_object)

    assert largest_turn_deg(told) < 5.01
    if name == "brick":
        assert largest_turn_deg(canonical) > 170  # without memory it would flip


def test_a_new_instance_has_its_canonical_pose() -> None:
    symmetries = LIBRARY["brick"].symmetries
    T = pose(0, 0, 0.6)
    for start in T @ symmetries.discrete:
        (found,) = InstanceMemory(LIBRARY).assign([estimate("brick", start)], 0)
        np.testing.assert_allclose(found.T_camera_object, canonicalize(T, symmetries), atol=1e-12)


def test_covariance_follows_an_origin_that_moves() -> None:
    """A symmetry about a point beside the origin: compared with samples of the distribution."""
    turn = rotation_about(np.eye(3)[2], np.array([0.2, 0.0, 0.0]), np.pi)
    wedge = LIBRARY["wedge"]
    bounds = np.array([[0.1, -0.1, -0.1], [0.3, 0.1, 0.1]])
    model = ObjectModel(
        "far", wedge.diameter_m, bounds, wedge.keypoints_m, wedge.surface,
        Symmetries(np.stack([np.eye(4), turn])), None, "m",
    )  # fmt: skip
    memory = InstanceMemory(ObjectLibrary("far", {"far": model}, wedge.mesh_path))  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    A = rng.normal(size=(6, 6)) * 1e-3
    covariance = A @ A.T
    T = canonicalize(pose(0, 0, 0.9), model.symmetries) @ turn
    (found,) = memory.assign([estimate("far", T, covariance)], 0)
    assert np.linalg.norm(found.T_camera_object[:3, 3] - T[:3, 3]) == pytest.approx(0.4)
    steps = rng.multivariate_normal(np.zeros(6), covariance, 20000)
    origins = []
    for step in steps:
        sample = se3.make_transform(se3.exp_so3(step[3:]) @ T[:3, :3], T[:3, 3] + step[:3])
        origins.append((sample @ turn)[:3, 3])
    spread = np.cov(np.array(origins).T)
    np.testing.assert_allclose(found.covariance[:3, :3], spread, atol=0.03 * spread.max())
    np.testing.assert_allclose(found.covariance[3:, 3:], covariance[3:, 3:])
