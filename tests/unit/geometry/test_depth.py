"""Predicted against measured depth: closed forms, and one real image."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from heatnet_ros.geometry import camera, se3
from heatnet_ros.geometry.depth import view_surfaces
from heatnet_ros.mesh import load_ply, sample_surface
from heatnet_ros.types import Distortion, FloatArray

K = np.array([[600.0, 0.0, 320.0], [0.0, 600.0, 240.0], [0.0, 0.0, 1.0]])
LMO = Path(__file__).parents[4] / "shared" / "data" / "lmo"
# one square face, towards the camera, with the other side behind it
POINTS = np.array([[x, y, z] for z in (-0.02, 0.02) for x in (-0.03, 0, 0.03) for y in (-0.03, 0)])
NORMALS = np.where(POINTS[:, 2:] < 0, [[0, 0, -1.0]], [[0, 0, 1.0]])
T = se3.make_transform(np.eye(3), np.array([0.0, 0.0, 0.62]))
FRONT = POINTS[:, 2] < 0


def depth_residuals(
    T: FloatArray, points_m: FloatArray, normals: FloatArray, depth_m: FloatArray, K: FloatArray
) -> FloatArray:
    """Measured minus predicted z of every point, NaN for those left out."""
    view = view_surfaces(T[None], points_m.T[None], normals.T[None], depth_m, K)
    return np.where(view.valid[0], view.gap_m[0, 2], np.nan)


def test_residual_is_measured_minus_predicted_on_facing_points() -> None:
    depth = np.full((480, 640), 0.61, np.float32)
    residuals = depth_residuals(T, POINTS, NORMALS, depth, K)
    np.testing.assert_allclose(residuals[FRONT], 0.01, atol=1e-7)
    assert np.isnan(residuals[~FRONT]).all()


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -np.inf, -0.5])
def test_invalid_depth_is_unknown_not_wrong(invalid: float) -> None:
    depth = np.full((480, 640), 0.6, np.float32)
    depth[:, 330:] = invalid
    residuals = depth_residuals(T, POINTS, NORMALS, depth, K)
    right = POINTS[:, 0] > 0.01
    assert np.isnan(residuals[FRONT & right]).all()
    np.testing.assert_allclose(residuals[FRONT & ~right], 0.0, atol=1e-7)


def test_points_outside_the_image_or_behind_the_camera_are_unknown() -> None:
    depth = np.full((480, 640), 0.6, np.float32)
    for t in ([2.0, 0, 0.62], [0, -1.0, 0.62], [0, 0, -0.62]):
        moved = se3.make_transform(np.eye(3), np.array(t))
        assert np.isnan(depth_residuals(moved, POINTS, NORMALS, depth, K)).all()


@pytest.mark.parametrize(("angle_deg", "seen"), [(0, True), (77, True), (80, False), (100, False)])
def test_a_surface_seen_too_flat_is_left_out(angle_deg: float, seen: bool) -> None:
    # cos 0.2 is 78.5 degrees
    turn = np.radians(angle_deg)
    normal = np.array([[np.sin(turn), 0.0, -np.cos(turn)]])
    depth = np.full((480, 640), 0.62, np.float32)
    residual = depth_residuals(T, np.zeros((1, 3)), normal, depth, K)
    assert np.isfinite(residual[0]) == seen


@pytest.mark.parametrize(
    "distortion",
    [Distortion(), Distortion("plumb_bob", (0.1, -0.2, 0.001, -0.002, 0.05))],
    ids=lambda d: d.model,
)
def test_measured_points_lie_on_the_measured_plane(distortion: Distortion) -> None:
    # a slanted plane: exact only when the ray is that of the pixel that was read
    normal, distance = np.array([0.3, -0.2, -1.0]), -0.6
    v, u = np.mgrid[:480, :640]
    pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(float)
    rays = camera.backproject(pixels, np.ones(len(pixels)), K, distortion)
    depth = (distance / (rays @ normal)).reshape(480, 640).astype(np.float32)
    view = view_surfaces(T[None], POINTS.T[None], NORMALS.T[None], depth, K, distortion)
    np.testing.assert_array_equal(view.valid[0], FRONT)
    seen_m = view.points_m[0].T[FRONT]
    measured_m = seen_m + view.gap_m[0].T[FRONT]
    np.testing.assert_allclose(measured_m @ normal, distance, atol=1e-6)
    # the ray passes within half a pixel of the predicted point
    predicted = camera.project(seen_m, K, distortion)
    measured = camera.project(measured_m, K, distortion)
    assert np.abs(predicted - measured).max() <= 0.5 + 1e-3


def test_nearest_pixel_at_the_borders_of_the_image() -> None:
    # one pixel of the image is measured: the samples half a pixel around it read it, no other
    corner = np.zeros((480, 640), np.float32)
    corner[-1, -1] = 0.6
    offsets = np.array([-0.51, -0.49, 0.49, 0.51])
    points = np.stack([(639 + offsets - 320) * 0.001, np.full(4, 0.239), np.full(4, 0.6)], axis=1)
    normals = np.tile([0.0, 0.0, -1.0], (4, 1))
    residuals = depth_residuals(np.eye(4), points, normals, corner, K)
    assert np.isfinite(residuals).tolist() == [False, True, True, False]


@pytest.mark.skipif(not LMO.exists(), reason=f"{LMO} is absent")
@pytest.mark.parametrize(("object_id", "limit_m"), [(5, 0.01), (8, 0.01), (9, 0.01), (12, 0.01)])
def test_a_real_depth_image_agrees_with_the_true_pose(object_id: int, limit_m: float) -> None:
    folder = LMO / "test" / "000002"
    shot = json.loads((folder / "scene_camera.json").read_text())["3"]
    truth = json.loads((folder / "scene_gt.json").read_text())["3"]
    (pose,) = [p for p in truth if p["obj_id"] == object_id]
    raw = cv2.imread(str(folder / "depth" / "000003.png"), cv2.IMREAD_UNCHANGED)
    depth = raw.astype(np.float32) * shot["depth_scale"] * 1e-3
    points, normals = sample_surface(load_ply(LMO / f"models/obj_{object_id:06d}.ply", "mm"), 400)
    R = np.array(pose["cam_R_m2c"]).reshape(3, 3)
    truth_m = se3.make_transform(R, np.array(pose["cam_t_m2c"]) * 1e-3)
    K_shot = np.array(shot["cam_K"]).reshape(3, 3)
    residuals = depth_residuals(truth_m, points, normals, depth, K_shot)
    assert np.isfinite(residuals).sum() > 100
    assert abs(np.nanmedian(residuals)) < limit_m
    truth_m[2, 3] += 0.05
    assert np.nanmedian(depth_residuals(truth_m, points, normals, depth, K_shot)) < -0.03
