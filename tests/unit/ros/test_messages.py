import array
import importlib.util

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest

from heatnet_ros.errors import DataError
from heatnet_ros.geometry.camera import project
from heatnet_ros.ros.messages import (
    array_to_image,
    camera_info_to_intrinsics,
    compressed_to_rgb,
    image_size_of,
    image_to_depth_m,
    image_to_rgb,
)

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
DEPTH_MM = np.random.default_rng(1).integers(300, 3000, (6, 5)).astype(np.uint16)


def padded(message, extra):
    """The same image with ``extra`` bytes of padding at the end of every row."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    rows = np.hstack([rows, np.full((message.height, extra), 77, np.uint8)])
    message.step += extra
    message.data = array.array("B", rows.tobytes())
    return message


ENCODED = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "rgba8": np.dstack([RGB, np.full((6, 5), 9, np.uint8)]),
    "bgra8": np.dstack([RGB[..., ::-1], np.full((6, 5), 9, np.uint8)]),
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("padding", [0, 7])
def test_colour_encodings(encoding, padding):
    message = padded(array_to_image(ENCODED[encoding], encoding), padding)
    rgb = image_to_rgb(message, "/color")
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, RGB)


def test_mono8_becomes_grey():
    rgb = image_to_rgb(array_to_image(RGB[..., 0], "mono8"), "/color")
    np.testing.assert_array_equal(rgb, np.repeat(RGB[..., :1], 3, axis=2))


def test_rgb8_is_not_copied():
    message = array_to_image(RGB, "rgb8")
    assert np.shares_memory(image_to_rgb(message, "/color"), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("padding", [0, 6])
def test_depth_in_millimetres(encoding, order, padding):
    message = padded(array_to_image(DEPTH_MM.astype(order + "u2"), encoding), padding)
    message.is_bigendian = int(order == ">")
    depth = image_to_depth_m(message, "/depth")
    assert depth.dtype == np.float32 and depth.dtype.isnative
    np.testing.assert_allclose(depth, DEPTH_MM * 1e-3, rtol=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_in_metres_keeps_invalid_pixels(order):
    wanted = (DEPTH_MM * 1e-3).astype(np.float32)
    wanted[0, :3] = 0.0, np.nan, np.inf
    message = array_to_image(wanted.astype(order + "f4"), "32FC1")
    message.is_bigendian = int(order == ">")
    depth = image_to_depth_m(message, "/depth")
    assert depth.dtype.isnative
    np.testing.assert_array_equal(depth, wanted)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_depth_without_a_valid_pixel_is_refused(value):
    message = array_to_image(np.full((6, 5), value, np.float32), "32FC1")
    with pytest.raises(DataError, match=r"/depth.*no valid pixel.*all 30"):
        image_to_depth_m(message, "/depth")


def test_float_depth_in_millimetres_is_refused():
    message = array_to_image(DEPTH_MM.astype(np.float32), "32FC1")
    with pytest.raises(DataError, match=r"/depth.*millimetres"):
        image_to_depth_m(message, "/depth")


def test_step_smaller_than_the_row_is_refused():
    message = array_to_image(RGB, "rgb8")
    message.step = 14
    with pytest.raises(DataError, match="/color: step is 14, expected at least 15 bytes"):
        image_to_rgb(message, "/color")


def test_truncated_data_is_refused():
    message = array_to_image(RGB, "rgb8")
    message.data = message.data[:-1]
    with pytest.raises(DataError, match=r"/color.*truncated, got 89 bytes, expected 90"):
        image_to_rgb(message, "/color")


def test_empty_image_is_refused():
    with pytest.raises(DataError, match=r"/color: image is empty \(0x6\)"):
        image_to_rgb(array_to_image(RGB[:, :0], "rgb8"), "/color")


@pytest.mark.skipif(
    importlib.util.find_spec("cv_bridge") is not None,
    reason="cv_bridge is installed",
)
def test_unusual_encoding_names_cv_bridge():
    message = array_to_image(RGB[..., 0], "bayer_rggb8")
    with pytest.raises(DataError, match=r"/color.*bayer_rggb8.*cv_bridge"):
        image_to_rgb(message, "/color")


def smooth_rgb():
    y, x = np.mgrid[0:48, 0:64]
    return np.dstack([4 * x, 4 * y, 128 + 0 * x]).astype(np.uint8)


@pytest.mark.parametrize(("extension", "tolerance"), [(".jpg", 12), (".png", 0)])
def test_compressed_colour(extension, tolerance):
    rgb = smooth_rgb()
    data = cv2.imencode(extension, rgb[..., ::-1])[1].tobytes()
    message = CompressedImage(format=extension[1:], data=data)
    decoded = compressed_to_rgb(message, "/color/compressed")
    assert np.abs(decoded.astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_truncated_compressed_colour_is_refused(extension):
    data = cv2.imencode(extension, smooth_rgb())[1].tobytes()
    message = CompressedImage(format="jpeg", data=data[: len(data) // 2])
    with pytest.raises(DataError, match="/color/compressed: expected a whole JPEG or PNG, got"):
        compressed_to_rgb(message, "/color/compressed")


def test_compressed_that_is_no_image_is_refused():
    with pytest.raises(DataError, match="begin like neither"):
        compressed_to_rgb(CompressedImage(data=b"hello"), "/color/compressed")


def camera_info(**changes):
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob")
    info.k = [600.0, 0.0, 320.0, 0.0, 610.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [500.0, 0.0, 310.0, 0.0, 0.0, 505.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.d = [0.1, -0.2, 0.001, 0.002, 0.05]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_raw_image_takes_K_and_D():
    K, distortion = camera_info_to_intrinsics(camera_info(), False, "/info")
    assert (K[0, 0], K[0, 2], K[1, 1], K[1, 2]) == (600, 320, 610, 240)
    assert distortion.coefficients == (0.1, -0.2, 0.001, 0.002, 0.05)


def test_rectified_image_takes_P_without_distortion():
    K, distortion = camera_info_to_intrinsics(camera_info(), True, "/info")
    assert (K[0, 0], K[0, 2], K[1, 1], K[1, 2]) == (500, 310, 505, 230)
    assert distortion.is_zero


@pytest.mark.parametrize("rectified", [False, True])
def test_uncalibrated_camera_is_refused(rectified):
    info = camera_info(k=[0.0] * 9, p=[0.0] * 12)
    with pytest.raises(DataError, match=r"/info: [KP] has focal lengths 0, 0, expected > 0"):
        camera_info_to_intrinsics(info, rectified, "/info")


def test_second_camera_of_a_stereo_pair_is_refused():
    info = camera_info()
    info.p[3] = -30.0
    with pytest.raises(DataError, match=r"/info: P has the offset .*second camera"):
        camera_info_to_intrinsics(info, True, "/info")


def test_unknown_distortion_names_the_topic():
    with pytest.raises(DataError, match="/info: Distortion model 'foo'"):
        camera_info_to_intrinsics(camera_info(distortion_model="foo"), False, "/info")


def test_binning_and_roi_move_the_projection_like_the_pixels():
    """Pixel u of the full image lies in the binned pixel (u - offset + 0.5) / binning - 0.5."""
    roi = RegionOfInterest(x_offset=100, y_offset=60, width=400, height=300)
    info = camera_info(roi=roi, binning_x=2, binning_y=4)
    K, distortion = camera_info_to_intrinsics(info, False, "/info")
    points = np.array([[0.05, -0.03, 0.9], [-0.1, 0.02, 0.6]])
    full_K, _ = camera_info_to_intrinsics(camera_info(), False, "/info")
    full = project(points, full_K, distortion)
    wanted = (full - [100, 60] + 0.5) / [2, 4] - 0.5
    np.testing.assert_allclose(project(points, K, distortion), wanted, atol=1e-9)
    assert image_size_of(info) == (200, 75)


def test_size_without_roi_and_binning():
    assert image_size_of(camera_info()) == (640, 480)
