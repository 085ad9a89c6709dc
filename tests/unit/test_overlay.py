import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import LIBRARY, MESHES, K

from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.overlay import draw_poses, silhouette
from heatnet_ros.types import (
    Detection,
    Distortion,
    Keypoints,
    PoseEstimate,
    Reason,
    Rejection,
)

SIZE_HW = (480, 640)
NONE = Distortion()
GREY = np.full((*SIZE_HW, 3), 128, np.uint8)
FACING = se3.make_transform(np.eye(3), np.array([0.0, 0.0, 0.6]))


def estimate(T: np.ndarray, name: str = "brick", **values) -> PoseEstimate:
    return PoseEstimate(name, T, 0.87, 1.0, 0.5, "test", **values)


def draw_only(rejections) -> np.ndarray:
    return draw_poses(GREY, K, NONE, [], LIBRARY, rejections=rejections)


def changed(image: np.ndarray) -> np.ndarray:
    return np.any(image != GREY, axis=2)


def test_silhouette_is_the_projected_outline():
    # a brick 0.12 x 0.06 x 0.04 seen from the front: the near face, 0.58 m away, covers the rest
    mask = silhouette(MESHES["brick"], FACING, K, NONE, SIZE_HW)
    ys, xs = np.nonzero(mask)
    half_w, half_h = 615 * 0.06 / 0.58, 612 * 0.03 / 0.58
    edges = [K[0, 2] - half_w, K[0, 2] + half_w, K[1, 2] - half_h, K[1, 2] + half_h]
    assert [xs.min(), xs.max(), ys.min(), ys.max()] == pytest.approx(edges, abs=1.0)
    assert np.all(mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


def test_silhouette_has_no_holes_where_triangles_overlap():
    T = se3.make_transform(se3.exp_so3(np.array([0.7, 0.5, 0.2])), np.array([0.02, 0, 0.5]))
    mask = silhouette(MESHES["brick"], T, K, NONE, SIZE_HW)
    pixels = project(se3.transform(T, MESHES["brick"].vertices_m), K)
    hull = np.zeros(SIZE_HW, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(pixels).astype(np.int32)), 255)
    assert np.count_nonzero(mask != hull) < 0.03 * np.count_nonzero(hull)


def test_silhouette_behind_the_camera_is_empty():
    behind = se3.make_transform(np.eye(3), np.array([0.0, 0.0, -0.6]))
    assert not silhouette(MESHES["brick"], behind, K, NONE, SIZE_HW).any()


def test_the_image_given_is_not_changed():
    before = GREY.copy()
    assert changed(draw_poses(GREY, K, NONE, [estimate(FACING)], LIBRARY)).any()
    rejected = Rejection("disc", Reason.NO_DEPTH, "", Detection("disc", (50, 60, 150, 120), 0.9))
    assert changed(draw_only([rejected])).any()
    np.testing.assert_array_equal(GREY, before)


def test_axes_point_where_they_should():
    image = draw_poses(GREY, K, NONE, [estimate(FACING)], LIBRARY)
    half_m = 0.2 * LIBRARY["brick"].diameter_m  # half of the drawn axis
    for axis, channel in ((0, 0), (1, 1)):
        x, y = np.rint(project(np.array([0, 0, 0.6]) + np.eye(3)[axis] * half_m, K)[0]).astype(int)
        assert image[y, x].argmax() == channel
        assert image[y, x, channel] > 180


def test_cuboid_corners_follow_the_lens():
    bent = Distortion("plumb_bob", (-0.4, 0.1, 0.0, 0.0, 0.0))
    T = se3.make_transform(np.eye(3), np.array([0.18, 0.12, 0.6]))
    corner = se3.transform(T, np.array([0.06, 0.03, 0.02]))
    for distortion, other in ((NONE, bent), (bent, NONE)):
        drawn = changed(draw_poses(GREY, K, distortion, [estimate(T)], LIBRARY))
        (x, y), (u, v) = (
            np.rint(project(corner, K, lens)[0]).astype(int) for lens in (distortion, other)
        )
        assert math.hypot(x - u, y - v) > 8
        assert drawn[y, x]
        assert not drawn[v - 1 : v + 2, u - 1 : u + 2].any()


def test_keypoints_go_from_red_to_green():
    points = np.array([[100.0, 100.0], [140.0, 100.0], [np.nan, 5.0]])
    keypoints = Keypoints(points, np.array([0.0, 1.0, 0.5]))
    image = draw_poses(GREY, K, NONE, [estimate(FACING, keypoints=keypoints)], LIBRARY)
    assert image[100, 100].tolist() == [255, 0, 0]
    assert image[100, 140].tolist() == [0, 255, 0]


def test_outline_needs_the_mesh_file(tmp_path: Path):
    path = tmp_path / "disc.ply"
    write_ply(path, MESHES["disc"])
    model = dataclasses.replace(LIBRARY["disc"], mesh_path=path)
    library = ObjectLibrary("with mesh", {"disc": model}, tmp_path / "x.yaml")
    # straight at the rim from the side at 45 degrees: between the cuboid's corners
    T = se3.make_transform(np.eye(3), np.array([0.0, 0.0, 0.6]))
    rim = project(np.array([0.05 * np.cos(2.36), 0.05 * np.sin(2.36), 0.575]), K)[0]
    x, y = np.rint(rim).astype(int)
    near = np.s_[y - 2 : y + 3, x - 2 : x + 3]
    poses = [estimate(T, "disc")]
    assert changed(draw_poses(GREY, K, NONE, poses, library))[near].any()
    model = dataclasses.replace(model, mesh_path=tmp_path / "gone.ply")
    library = ObjectLibrary("without", {"disc": model}, tmp_path / "x.yaml")
    assert not changed(draw_poses(GREY, K, NONE, poses, library))[near].any()


def test_poses_partly_or_wholly_outside_are_drawn_as_far_as_they_are_seen():
    for t in ([0.3, 0.0, 0.6], [0.0, 0.0, 0.01], [0.0, 0.0, -1.0], [50.0, 0.0, 0.1]):
        pose = estimate(se3.make_transform(np.eye(3), np.array(t)))
        image = draw_poses(GREY, K, NONE, [pose], LIBRARY)
        assert image.shape == GREY.shape
        assert changed(image).any() == (t[2] > 0)


def test_rejections_are_dashed_grey_boxes():
    box = (100.0, 100.0, 300.0, 200.0)
    rejected = [
        Rejection("disc", Reason.DEPTH_DISAGREES, "", Detection("disc", box, 0.9)),
        Rejection("brick", Reason.SCORE_LOW),
    ]
    image = draw_only(rejected)
    top = changed(image)[100, 105:295]
    assert 0.3 < top.mean() < 0.9
    assert np.ptp(image[changed(image)].astype(int), axis=1).max() == 0
    above = changed(image)[80:98, 100:220]
    assert above.mean() > 0.5  # the plate with the reason


def test_labels_do_not_hide_each_other():
    detections = [Detection("disc", (100, 100, 200, 150), 0.9)] * 3
    one, three = (
        draw_only([Rejection("disc", Reason.NO_DEPTH, "", d) for d in detections[:n]])
        for n in (1, 3)
    )
    plate = np.count_nonzero(changed(one)[:98])
    assert plate > 500
    assert np.count_nonzero(changed(three)[:98]) == pytest.approx(3 * plate, rel=0.05)
