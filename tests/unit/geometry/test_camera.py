"""Cameras against their published formulas; crops against real warps, to a part of a pixel."""

from __future__ import annotations

import numpy as np
import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.geometry.camera import (
    Crop,
    backproject,
    crop_around_box,
    fit_letterbox,
    project,
    scale_points,
    undistort_points,
)
from heatnet_ros.types import Distortion

K = np.array([[615.0, 0.0, 322.5], [0.0, 612.0, 238.0], [0.0, 0.0, 1.0]])
PLUMB = Distortion("plumb_bob", (0.12, -0.25, 0.001, -0.002, 0.08))
PLUMB_4 = Distortion("plumb_bob", (-0.2, 0.05, 0.001, -0.002))
RATIONAL = Distortion("rational_polynomial", (0.5, -2.6, 0.0006, -0.0002, 1.5, 0.4, -2.4, 1.4))
FISHEYE = Distortion("equidistant", (-0.02, 0.01, -0.003, 0.001))
FISHEYE_0 = Distortion("equidistant", (0.0, 0.0, 0.0, 0.0))
MODELS = [Distortion(), PLUMB, PLUMB_4, RATIONAL, FISHEYE, FISHEYE_0]


def _grid() -> np.ndarray:
    u, v = np.meshgrid(np.linspace(0, 639, 17), np.linspace(0, 479, 13))
    return np.stack([u.ravel(), v.ravel()], axis=1)


def _by_formula(p: np.ndarray, distortion: Distortion) -> np.ndarray:
    """sensor_msgs/distortion_models, written out."""
    x, y = (p[:, :2] / p[:, 2:]).T
    r2 = x**2 + y**2
    if distortion.model == "equidistant":
        k = distortion.coefficients
        r = np.sqrt(r2)
        t = np.arctan(r)
        td = t * (1 + sum(k[i] * t ** (2 * i + 2) for i in range(4)))
        x, y = x * td / r, y * td / r
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*distortion.coefficients, *[0.0] * 8)[:8]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x**2)
        dy = p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
        x, y = x * radial + dx, y * radial + dy
    return np.stack([615.0 * x + 322.5, 612.0 * y + 238.0], axis=1)


@pytest.mark.parametrize("distortion", MODELS, ids=lambda d: f"{d.model}{len(d.coefficients)}")
def test_project_is_the_published_formula(distortion: Distortion) -> None:
    p = np.random.default_rng(0).uniform([-0.3, -0.25, 0.5], [0.3, 0.25, 2.0], (50, 3))
    np.testing.assert_allclose(project(p, K, distortion), _by_formula(p, distortion), atol=1e-8)


@pytest.mark.parametrize("distortion", MODELS, ids=lambda d: f"{d.model}{len(d.coefficients)}")
def test_backproject_then_project_gives_the_pixel_back(distortion: Distortion) -> None:
    depth = np.random.default_rng(0).uniform(0.2, 3, len(_grid()))
    points = backproject(_grid(), depth, K, distortion)
    np.testing.assert_allclose(points[:, 2], depth)
    np.testing.assert_allclose(project(points, K, distortion), _grid(), atol=1e-4)


@pytest.mark.parametrize("distortion", MODELS, ids=lambda d: f"{d.model}{len(d.coefficients)}")
def test_undistorted_pixels_are_where_a_pinhole_sees_the_point(distortion: Distortion) -> None:
    p = np.random.default_rng(1).uniform([-0.3, -0.25, 0.8], [0.3, 0.25, 2.0], (50, 3))
    ideal = undistort_points(project(p, K, distortion), K, distortion)
    np.testing.assert_allclose(ideal, project(p, K), atol=1e-4)


def test_points_behind_the_camera_have_no_pixel() -> None:
    points = np.array([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0]])
    for distortion in MODELS:
        pixels = project(points, K, distortion)
        assert np.isnan(pixels[:2]).all()
        np.testing.assert_allclose(pixels[2], [322.5, 238.0])


@pytest.mark.parametrize("distortion", MODELS, ids=lambda d: f"{d.model}{len(d.coefficients)}")
def test_no_points_are_no_error(distortion: Distortion) -> None:
    assert project(np.zeros((0, 3)), K, distortion).shape == (0, 2)
    assert undistort_points(np.zeros((0, 2)), K, distortion).shape == (0, 2)
    assert backproject(np.zeros((0, 2)), np.zeros(0), K, distortion).shape == (0, 3)


def test_scale_points_keeps_the_outer_edges() -> None:
    # the image's left edge is -0.5 before and after, its right edge n - 0.5
    np.testing.assert_allclose(scale_points(np.array([-0.5, 639.5]), 0.25), [-0.5, 159.5])


def _blob(size_hw: tuple[int, int], center: np.ndarray, sigma: float) -> np.ndarray:
    v, u = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.exp(-((u - center[0]) ** 2 + (v - center[1]) ** 2) / (2 * sigma**2))


def _centroid(image: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(u * image).sum(), (v * image).sum()]) / image.sum()


@pytest.mark.parametrize("size_px", [255, 256, 65, 64])
@pytest.mark.parametrize("size_hw", [(241, 321), (240, 320)])
@pytest.mark.parametrize("side_px", [63.7, 128.0, 181.3])
def test_a_warped_blob_lies_where_to_crop_says(
    size_px: int, size_hw: tuple[int, int], side_px: float
) -> None:
    center = np.array([150.3, 110.8])
    crop = Crop(150.3 - side_px * 0.45, 110.8 - side_px * 0.55, side_px, size_px)
    sigma = max(3.0, 2.0 / crop.scale)
    warped = crop.warp(_blob(size_hw, center, sigma).astype(np.float32))
    assert warped.shape == (size_px, size_px)
    expected = crop.to_crop(center)
    # warpAffine rounds source positions to 1/32 of an image pixel
    np.testing.assert_allclose(_centroid(warped), expected, atol=0.005 + crop.scale / 64)
    np.testing.assert_allclose(crop.to_image(expected), center, atol=1e-10)


def test_crop_of_pixels_as_they_are_changes_no_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 41, 3), dtype=np.uint8)
    crop = Crop(7, 3, 21, 21)
    np.testing.assert_array_equal(crop.warp(image), image[3:24, 7:28])


def test_nearest_warp_never_blends_and_takes_the_nearest_pixel() -> None:
    depth = np.random.default_rng(0).uniform(0.3, 2, (61, 83)).astype(np.float32)
    crop = Crop(11.37, 9.21, 37.9, 65)
    v, u = np.mgrid[:65, :65]
    pixels = crop.to_image(np.stack([u.ravel(), v.ravel()], axis=1).astype(float))
    nearest = np.floor(pixels + 0.5).astype(int)
    warped = crop.warp(depth, nearest=True).ravel()
    assert np.isin(warped, depth).all()
    # off the ties, which OpenCV may round the other way by its 1/1024 pixel
    clear = np.abs(pixels - np.floor(pixels) - 0.5).min(axis=1) > 2e-3
    np.testing.assert_array_equal(warped[clear], depth[nearest[clear, 1], nearest[clear, 0]])


def test_outside_of_the_image_is_zero() -> None:
    warped = Crop(-10, -10, 20, 20).warp(np.full((30, 30, 3), 200, np.uint8))
    assert warped[:10].max() == 0 and warped[:, :10].max() == 0 and warped[10:, 10:].min() == 200


def test_crop_intrinsics_project_to_crop_pixels() -> None:
    crop = Crop(101.3, 57.9, 143.7, 256)
    points = np.random.default_rng(0).uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 1], (20, 3))
    np.testing.assert_allclose(
        project(points, crop.intrinsics(K)), crop.to_crop(project(points, K)), atol=1e-9
    )


def test_crop_around_a_box_is_centred_and_square() -> None:
    crop = crop_around_box((100.0, 50.0, 139.0, 129.0), 256, 1.25)
    np.testing.assert_allclose(crop.to_crop(np.array([119.5, 89.5])), [127.5, 127.5])
    assert crop.side_px == pytest.approx(79 * 1.25)


@pytest.mark.parametrize("side", [0.0, -3.0, np.nan])
def test_empty_crop_is_refused(side: float) -> None:
    with pytest.raises(DataError, match="Crop"):
        Crop(0, 0, side, 64)


@pytest.mark.parametrize("image_hw", [(480, 640), (479, 641), (641, 357), (123, 77)])
@pytest.mark.parametrize("size_hw", [(320, 320), (256, 416), (321, 319)])
def test_a_blob_in_the_letterbox_comes_back_exactly(
    image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> None:
    letterbox = fit_letterbox(image_hw, size_hw)
    center = np.array([image_hw[1] * 0.41 + 0.3, image_hw[0] * 0.57 - 0.2])
    blob = np.round(_blob(image_hw, center, min(image_hw) / 20) * 255).astype(np.uint8)
    out = letterbox.apply(np.repeat(blob[..., None], 3, axis=2), fill=0)
    assert out.shape == (*size_hw, 3)
    edges = _centroid(out[..., 0].astype(float)) + 0.5  # continuous coordinates
    np.testing.assert_allclose(letterbox.to_image(edges), center, atol=0.03)


@pytest.mark.parametrize("image_hw", [(1, 640), (640, 1), (1, 1), (3, 5000)])
def test_a_strip_of_an_image_has_a_letterbox(image_hw: tuple[int, int]) -> None:
    letterbox = fit_letterbox(image_hw, (320, 320))
    out = letterbox.apply(np.full((*image_hw, 3), 7, np.uint8), fill=0)
    assert out.shape == (320, 320, 3) and (out == 7).any()


def test_letterbox_corners_are_the_images_corners() -> None:
    letterbox = fit_letterbox((480, 640), (320, 320))
    corners = np.array([[0.0, 40.0], [320.0, 280.0]])
    np.testing.assert_allclose(letterbox.to_image(corners), [[-0.5, -0.5], [639.5, 479.5]])
    out = letterbox.apply(np.full((480, 640, 3), 7, np.uint8))
    assert (out[:40] == 114).all() and (out[280:] == 114).all() and (out[40:280] == 7).all()
