"""Depth alignment against depth images computed from closed forms: boxes, spheres, planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.config import RefinerConfig
from heatnet_ros.errors import ConfigError
from heatnet_ros.geometry import camera, se3
from heatnet_ros.geometry.joint import noise_m
from heatnet_ros.geometry.symmetry import NO_SYMMETRY
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.refiners import build_refiner
from heatnet_ros.refiners.depth_icp import KEYPOINT_CORRELATION, KEYPOINT_NOISE_PX, DepthIcp
from heatnet_ros.types import Distortion, FloatArray, Frame, Keypoints, PoseEstimate

K = np.array([[615.0, 0.0, 322.5], [0.0, 612.0, 238.0], [0.0, 0.0, 1.0]])
SIZE_HW = (480, 640)
HALF_BOX_M = np.array([0.05, 0.035, 0.025])
RADIUS_M = 0.05
# the table's surface normal points up, towards the camera (60 degrees of elevation, roughly)
UP = np.array([0.0, -0.6, -0.8])


def _box() -> ObjectModel:
    rng = np.random.default_rng(0)
    points, normals = [], []
    areas = np.prod(HALF_BOX_M) / HALF_BOX_M
    for axis in range(3):
        for sign in (-1.0, 1.0):
            n = int(256 * areas[axis] / areas.sum())
            p = rng.uniform(-1, 1, (n, 3)) * HALF_BOX_M
            p[:, axis] = sign * HALF_BOX_M[axis]
            points.append(p)
            normals.append(np.tile(sign * np.eye(3)[axis], (n, 1)))
    surface = np.hstack([np.vstack(points), np.vstack(normals)])
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T * HALF_BOX_M
    keypoints = np.vstack([corners, surface[::16, :3]])
    return _model("box", keypoints, surface, 2 * float(np.linalg.norm(HALF_BOX_M)))


def _sphere() -> ObjectModel:
    normals = np.random.default_rng(0).normal(size=(512, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    surface = np.hstack([RADIUS_M * normals, normals])
    return _model("sphere", surface[::16, :3], surface, 2 * RADIUS_M)


def _model(name: str, keypoints: FloatArray, surface: FloatArray, diameter_m: float) -> ObjectModel:
    bounds = np.stack([surface[:, :3].min(axis=0), surface[:, :3].max(axis=0)])
    return ObjectModel(name, diameter_m, bounds, keypoints, surface, NO_SYMMETRY, None, "m")


LIBRARY = ObjectLibrary("test", {m.name: m for m in (_box(), _sphere())}, Path("test.yaml"))


def _rays(distortion: Distortion = camera.NO_DISTORTION) -> FloatArray:
    """HxWx3 directions of the pixel centres, z = 1."""
    v, u = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(float)
    return camera.backproject(pixels, np.ones(len(pixels)), K, distortion).reshape(*SIZE_HW, 3)


RAYS = _rays()


def _hit_plane(rays: FloatArray, normal: FloatArray, point_m: FloatArray) -> FloatArray:
    z = (normal @ point_m) / (rays @ normal)
    return np.where(z > 0, z, np.inf)


def _hit_sphere(rays: FloatArray, T: FloatArray) -> FloatArray:
    center = T[:3, 3]
    a, b = (rays**2).sum(axis=-1), rays @ center
    root = b**2 - a * (center @ center - RADIUS_M**2)
    return np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def _hit_box(rays: FloatArray, T: FloatArray) -> FloatArray:
    """Slab test in the object's frame."""
    origin, directions = se3.invert(T)[:3, 3], rays @ T[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(s * HALF_BOX_M - origin) / directions for s in (-1.0, 1.0)])
    near, far = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    return np.where(near < far, near, np.inf)


def _depth(
    name: str,
    T: FloatArray,
    rng: np.random.Generator | None = None,
    noise_m: float = 0.0015,
    rays: FloatArray = RAYS,
) -> np.ndarray:
    """The object on a table; with a generator: noise, whole millimetres and 15 % holes."""
    if name == "box":
        hit = _hit_box(rays, T)
        below = float(np.abs(T[:3, :3].T @ UP) @ HALF_BOX_M)
    else:
        hit, below = _hit_sphere(rays, T), RADIUS_M
    z = np.minimum(hit, _hit_plane(rays, UP, T[:3, 3] - below * UP))
    if rng is not None:
        z = np.round(z + rng.normal(0, noise_m, z.shape), 3)
        z[rng.random(z.shape) < 0.1] = 0
        for y, x in rng.integers(0, SIZE_HW, (150, 2)):
            z[y : y + 12, x : x + 12] = 0
    return np.where(np.isfinite(z), z, 0).astype(np.float32)


def _frame(depth_m: np.ndarray | None, distortion: Distortion = camera.NO_DISTORTION) -> Frame:
    return Frame(np.zeros((*SIZE_HW, 3), np.uint8), K, depth_m, distortion)


def _pose(
    name: str,
    T: FloatArray,
    T_true: FloatArray,
    noise_px: float = 1.0,
    seed: int = 0,
    distortion: Distortion = camera.NO_DISTORTION,
) -> PoseEstimate:
    """A pose T whose keypoints were seen, with noise, where the true pose has them."""
    model = LIBRARY[name]
    points = camera.project(se3.transform(T_true, model.keypoints_m), K, distortion)
    points = points + np.random.default_rng(seed).normal(0, noise_px, points.shape)
    keypoints = Keypoints(points, np.full(len(points), 0.8))
    return PoseEstimate(name, T, 0.9, 1.0, 1.0, "test", crop_scale=0.8, keypoints=keypoints)


def _standing(angle: float = 0.5, z_m: float = 0.6) -> FloatArray:
    """The object's z axis along UP, turned about it."""
    y = np.cross(UP, [1.0, 0.0, 0.0])
    R = np.column_stack([[1.0, 0.0, 0.0], y, UP])
    return se3.make_transform(R @ se3.exp_so3(np.array([0, 0, angle])), np.array([0.03, 0.02, z_m]))


def _moved(T: FloatArray, dt_m: FloatArray, w_rad: FloatArray) -> FloatArray:
    return se3.make_transform(se3.exp_so3(np.asarray(w_rad)) @ T[:3, :3], T[:3, 3] + dt_m)


def _errors(T: FloatArray, T_true: FloatArray) -> tuple[float, float]:
    """Translation in mm, rotation in degrees."""
    turn = se3.rotation_angle_rad(T[:3, :3], T_true[:3, :3])
    return float(np.linalg.norm(T[:3, 3] - T_true[:3, 3])) * 1e3, float(np.degrees(turn))


ICP = DepthIcp(RefinerConfig(), LIBRARY)


@pytest.mark.parametrize("name", ["box", "sphere"])
@pytest.mark.parametrize("dz_m", [0.05, -0.05])
@pytest.mark.parametrize("seed", range(3))
def test_five_centimetres_along_z_come_down_below_two_millimetres(
    name: str, dz_m: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    T_true = _standing(rng.uniform(0, 6))
    start = _pose(name, _moved(T_true, [0, 0, dz_m], np.zeros(3)), T_true, seed=seed)
    (pose,) = ICP.refine(_frame(_depth(name, T_true, rng)), [start])
    assert abs(pose.T_camera_object[2, 3] - T_true[2, 3]) < 0.002
    assert _errors(pose.T_camera_object, T_true)[0] < 3
    assert pose.source == "test+depth_icp"
    # the error of the pose that is published, in crop pixels, not of the one that came in
    seen = camera.project(se3.transform(pose.T_camera_object, LIBRARY[name].keypoints_m), K)
    errors_px = np.linalg.norm(seen - start.keypoints.points_px, axis=1)
    expected_px = np.sqrt(np.mean(errors_px**2)) * start.crop_scale
    assert pose.reprojection_px == pytest.approx(expected_px, rel=1e-6)


def test_sees_through_a_scale_error_of_the_keypoints() -> None:
    # a network may see the whole object 3 % too large: its keypoints and pose agree, depth does not
    T_true = _standing()
    T_wrong = se3.make_transform(T_true[:3, :3], T_true[:3, 3] * 0.97)
    start = _pose("box", T_wrong, T_wrong)
    (pose,) = ICP.refine(_frame(_depth("box", T_true, np.random.default_rng(0))), [start])
    assert abs(pose.T_camera_object[2, 3] - T_true[2, 3]) < 0.002


def test_turn_and_shift_of_a_box_are_found() -> None:
    T_true = _standing()
    T = _moved(T_true, [0.004, -0.005, 0.015], np.radians([4.0, -5.0, 3.0]))
    (pose,) = ICP.refine(
        _frame(_depth("box", T_true, np.random.default_rng(0))), [_pose("box", T, T_true)]
    )
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 1.5 and deg < 1.0


def test_a_sphere_does_not_turn_away_from_its_keypoints() -> None:
    T_true = _standing()
    start = _pose("sphere", _moved(T_true, [0, 0, 0.02], np.radians([0, 3.0, 0])), T_true)
    (pose,) = ICP.refine(_frame(_depth("sphere", T_true, np.random.default_rng(0))), [start])
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 1.5 and deg < 1.5


@pytest.mark.parametrize("name", ["box", "sphere"])
def test_without_keypoints_what_depth_cannot_see_stays(name: str) -> None:
    T_true = _standing()
    T = _moved(T_true, [0, 0, 0.03], np.radians([0, 0, 2.0]) if name == "sphere" else np.zeros(3))
    start = PoseEstimate(name, T, 0.9, 1.0, 1.0, "test")
    (pose,) = ICP.refine(_frame(_depth(name, T_true, np.random.default_rng(0))), [start])
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 2 and deg < 2.5
    if name == "sphere":
        assert pose.covariance is None  # rotation is not determined, no number is made up


def test_an_occluder_does_not_attract_the_object() -> None:
    T_true = _standing()
    depth = _depth("box", T_true, np.random.default_rng(0))
    center = camera.project(T_true[:3, 3], K)[0].astype(int)
    depth[:, : center[0] - 5] = 0.5  # a board 10 cm before the left 45 % of the object
    start = _pose("box", _moved(T_true, [0, 0, 0.015], np.zeros(3)), T_true)
    (pose,) = ICP.refine(_frame(depth), [start])
    assert _errors(pose.T_camera_object, T_true)[0] < 2


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion("plumb_bob", (0.12, -0.2, 0.001, -0.002, 0.05)),
        Distortion("equidistant", (-0.02, 0.01, -0.003, 0.001)),
    ],
    ids=lambda d: d.model,
)
def test_with_a_distorted_image(distortion: Distortion) -> None:
    T_true = _standing()
    T_true[:3, 3] += [0.1, 0.05, 0]
    start = _pose("box", _moved(T_true, [0, 0, 0.03], np.zeros(3)), T_true, distortion=distortion)
    depth = _depth("box", T_true, np.random.default_rng(0), rays=_rays(distortion))
    (pose,) = ICP.refine(_frame(depth, distortion), [start])
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 1.5 and deg < 1.0


def test_not_accepted_when_depth_shows_something_else() -> None:
    # a wall far behind: no sample has depth near the object
    T = _standing()
    start = _pose("box", T, T)
    (pose,) = ICP.refine(_frame(np.full(SIZE_HW, 2.0, np.float32)), [start])
    assert pose is start


def test_not_accepted_when_the_true_pose_would_get_worse() -> None:
    # all keypoints some pixels off: they pull the pose away from perfect depth
    T_true = _standing()
    start = _pose("box", T_true, _moved(T_true, [0.005, 0, 0], np.zeros(3)), noise_px=0.0)
    (pose,) = ICP.refine(_frame(_depth("box", T_true)), [start])
    assert pose is start


def test_keypoints_that_are_all_far_off_do_not_pull() -> None:
    T_true = _standing()
    start = _pose("box", T_true, _moved(T_true, [0.025, 0, 0], np.zeros(3)), noise_px=0.0)
    (pose,) = ICP.refine(_frame(_depth("box", T_true)), [start])
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 0.2 and deg < 0.2


def test_keypoints_far_from_the_pose_do_not_pull_and_are_inliers_no_more() -> None:
    T_true = _standing()
    start = _pose("box", _moved(T_true, [0, 0, 0.01], np.zeros(3)), T_true, noise_px=0.5)
    start.keypoints.points_px[:6] += 30.0
    (pose,) = ICP.refine(_frame(_depth("box", T_true, np.random.default_rng(0))), [start])
    mm, deg = _errors(pose.T_camera_object, T_true)
    assert mm < 1 and deg < 1
    assert np.flatnonzero(pose.keypoints.confidence == 0).tolist() == list(range(6))
    kept = 1 - 6 / len(pose.keypoints.confidence)
    assert pose.inlier_ratio == pytest.approx(kept) and pose.score == pytest.approx(0.9 * kept)
    assert pose.reprojection_px < 1.5


def test_objects_refined_together_are_those_refined_alone() -> None:
    T = [_standing(a, z) for a, z in ((0.3, 0.6), (1.4, 0.65))]
    frame = _frame(_depth("box", T[0], np.random.default_rng(0)))
    poses = [
        _pose("box", _moved(T[0], [0, 0, 0.02], np.zeros(3)), T[0]),
        _pose("sphere", T[1], T[1]),  # 512 samples, the box has less
        PoseEstimate("box", _moved(T[0], [0, 0, 0.01], np.zeros(3)), 0.9, 1.0, 1.0, "no keypoints"),
    ]
    together = ICP.refine(frame, poses)
    for pose, one in zip(poses, together, strict=True):
        (alone,) = ICP.refine(frame, [pose])
        np.testing.assert_allclose(one.T_camera_object, alone.T_camera_object, atol=1e-12)
        assert one.source == alone.source
        if alone.covariance is not None:
            np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-6)
    assert together[0].source.endswith("+depth_icp")


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -1.0])
def test_depth_without_valid_pixels_changes_nothing(invalid: float) -> None:
    T = _standing()
    start = _pose("box", T, T)
    assert ICP.refine(_frame(np.full(SIZE_HW, invalid, np.float32)), [start]) == [start]


def test_no_depth_changes_nothing() -> None:
    T = _standing()
    poses = [_pose("box", T, T), _pose("sphere", T, T)]
    refined = ICP.refine(_frame(None), poses)
    assert [a is b for a, b in zip(refined, poses, strict=True)] == [True, True]


def test_object_outside_the_image_changes_nothing() -> None:
    T = se3.make_transform(np.eye(3), np.array([3.0, 0.0, 0.6]))
    start = _pose("box", T, T)
    assert ICP.refine(_frame(np.full(SIZE_HW, 0.6, np.float32)), [start]) == [start]


def _mean_error_squared(together: int) -> float:
    """Mean normalised error squared, 6 for an exact covariance.

    together: so many neighbouring keypoints share one error. The noise is what the refiner expects.
    """
    T_true = _standing()
    clean, sigma_m = _depth("box", T_true), noise_m(T_true[None])[0]
    order = np.argsort(LIBRARY["box"].keypoints_m @ [1.0, 0.1, 0.01], kind="stable")
    groups = np.empty(len(order), int)
    groups[order] = np.arange(len(order)) // together
    errors = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        start = _pose("box", _moved(T_true, [0, 0, 0.01], np.zeros(3)), T_true, noise_px=0.0)
        shared = rng.normal(0, KEYPOINT_NOISE_PX / start.crop_scale, (groups.max() + 1, 2))
        start.keypoints.points_px[:] += shared[groups]
        noisy = (clean + rng.normal(0, sigma_m, SIZE_HW)).astype(np.float32)
        (pose,) = ICP.refine(_frame(noisy), [start])
        assert pose.covariance is not None
        R_error = pose.T_camera_object[:3, :3] @ T_true[:3, :3].T
        xi = np.r_[pose.T_camera_object[:3, 3] - T_true[:3, 3], se3.log_so3(R_error)]
        errors.append(xi @ np.linalg.solve(pose.covariance, xi))
    return float(np.mean(errors))


def test_covariance_is_that_of_many_trials_with_errors_that_go_together() -> None:
    # a network's errors do; the noise of a slanted face counts as if it were all across the face
    assert 2.5 < _mean_error_squared(together=round(KEYPOINT_CORRELATION)) < 6
    assert _mean_error_squared(together=2 * round(KEYPOINT_CORRELATION)) < 7.5


def test_covariance_is_too_careful_where_errors_are_independent_but_not_by_more_than_said() -> None:
    assert 6 / KEYPOINT_CORRELATION < _mean_error_squared(together=1) < 6


def test_same_input_gives_the_same_bytes() -> None:
    T_true = _standing()
    frame = _frame(_depth("box", T_true, np.random.default_rng(0)))
    start = _pose("box", _moved(T_true, [0, 0, 0.03], np.zeros(3)), T_true)
    (a,), (b,) = ICP.refine(frame, [start]), ICP.refine(frame, [start])
    assert a.T_camera_object.tobytes() == b.T_camera_object.tobytes()


def test_table_of_refiners() -> None:
    assert isinstance(build_refiner(RefinerConfig(), LIBRARY), DepthIcp)
    assert build_refiner(RefinerConfig(name="none"), LIBRARY) is None
    with pytest.raises(ConfigError, match=r"'icp' is not known.*depth_icp"):
        build_refiner(RefinerConfig(name="icp"), LIBRARY)
