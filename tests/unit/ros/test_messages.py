import array
import importlib.util
import sys
import types

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest

from heatnet_ros.errors import DataError
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.se3 import exp_so3
from heatnet_ros.ros.messages import (
    array_to_image,
    camera_info_to_intrinsics,
    compressed_to_rgb,
    image_size_of,
    image_to_depth_m,
    image_to_rgb,
    to_sigma_mm_deg,
)
from heatnet_ros.types import Distortion

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


@pytest.mark.parametrize("extra", [1, 6, 100])
def test_data_of_another_length_than_the_rows_are_refused(extra):
    message = padded(array_to_image(RGB, "rgb8"), 7)
    message.data = message.data + array.array("B", bytes(extra))
    with pytest.raises(DataError, match=rf"/color.*got {132 + extra} bytes, expected 132"):
        image_to_rgb(message, "/color")


def test_the_last_row_may_lack_its_padding():
    message = padded(array_to_image(RGB, "rgb8"), 7)
    message.data = message.data[:-7]
    np.testing.assert_array_equal(image_to_rgb(message, "/color"), RGB)


def test_what_a_message_says_of_itself_is_quoted_in_part():
    message = array_to_image(RGB, "rgb8")
    message.encoding = "x" * 100_000
    with pytest.raises(DataError) as error:
        image_to_rgb(message, "/color")
    assert len(str(error.value)) < 1000


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


@pytest.mark.parametrize("rectified", [False, True])
def test_binning_and_roi_hold_for_raw_and_for_rectified_images(rectified):
    roi = RegionOfInterest(x_offset=100, y_offset=60, width=400, height=300)
    whole, _ = camera_info_to_intrinsics(camera_info(), rectified, "/info")
    info = camera_info(roi=roi, binning_x=2, binning_y=4)
    part, distortion = camera_info_to_intrinsics(info, rectified, "/info")
    assert distortion.is_zero == rectified
    points = np.array([[0.05, -0.03, 0.9], [-0.1, 0.02, 0.6]])
    wanted = (project(points, whole, Distortion()) - [100, 60] + 0.5) / [2, 4] - 0.5
    np.testing.assert_allclose(project(points, part, Distortion()), wanted, atol=1e-9)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        ("rgb8; {} compressed bgr8", False),
        ("bgr8; {} compressed bgr8", False),
        ("bgra8; {} compressed bgr8", False),
        ("{}", False),
        ("", False),
        # not as the file formats mean it, but as image_transport reads it
        ("rgb8; {} compressed rgb8", True),
    ],
)
def test_compressed_colour_in_every_form_of_the_format(extension, text, exchanged):
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:] = 200, 120, 30
    data = cv2.imencode(extension, rgb if exchanged else rgb[..., ::-1])[1].tobytes()
    name = {".jpg": "jpeg", ".png": "png"}[extension]
    message = CompressedImage(format=text.format(name), data=data)
    np.testing.assert_allclose(compressed_to_rgb(message, "/color"), rgb, atol=3)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_grey_becomes_three_equal_channels(extension):
    grey = np.full((16, 16), 90, np.uint8)
    data = cv2.imencode(extension, grey)[1].tobytes()
    rgb = compressed_to_rgb(CompressedImage(format="mono8; jpeg compressed ", data=data), "/color")
    np.testing.assert_allclose(rgb, np.repeat(grey[..., None], 3, axis=2), atol=1)


def test_compressed_bayer_is_refused_with_the_remedy():
    data = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    message = CompressedImage(format="bayer_rggb8; png compressed ", data=data)
    with pytest.raises(DataError, match=r"/color: .*Bayer pattern.*Remap"):
        compressed_to_rgb(message, "/color")


def test_size_without_roi_and_binning():
    assert image_size_of(camera_info()) == (640, 480)


@pytest.mark.parametrize(("index", "value"), [(1, 0.5), (3, 0.1), (6, 1e-3), (7, 1.0), (8, 2.0)])
@pytest.mark.parametrize("rectified", [False, True])
def test_skew_and_a_wrong_last_row_are_refused(index, value, rectified):
    info = camera_info()
    matrix = info.p if rectified else info.k
    matrix[index + index // 3 if rectified else index] = value
    name = "P" if rectified else "K"
    with pytest.raises(DataError, match=rf"/info: {name} is \[.*expected .*0, 0, 1.*alibrat"):
        camera_info_to_intrinsics(info, rectified, "/info")


def test_exif_orientation_does_not_turn_the_image():
    """CameraInfo and depth describe the pixels as the sensor delivers them."""
    plain = cv2.imencode(".jpg", smooth_rgb()[..., ::-1])[1].tobytes()
    # big-endian TIFF with the one tag 0x0112 (orientation), type SHORT, value 6: turn by 90 degrees
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    decoded = compressed_to_rgb(CompressedImage(format="jpeg", data=turned), "/color/compressed")
    wanted = compressed_to_rgb(CompressedImage(format="jpeg", data=plain), "/color/compressed")
    np.testing.assert_array_equal(decoded, wanted)


class FakeBridge(types.ModuleType):
    """cv_bridge as far as it is used; ``answer`` is what the conversion returns or raises."""

    class CvBridgeError(TypeError):
        pass

    def __init__(self, answer):
        super().__init__("cv_bridge")
        self.answer, self.calls = answer, 0

    def CvBridge(self):
        return self

    def imgmsg_to_cv2(self, message, desired_encoding):
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def bridge(monkeypatch):
    def install(answer):
        module = FakeBridge(answer)
        monkeypatch.setitem(sys.modules, "cv_bridge", module)
        return module

    return install


def test_cv_bridge_converts_unusual_encodings(bridge):
    bridge(RGB)
    message = array_to_image(RGB[..., 0], "bayer_rggb8")
    np.testing.assert_array_equal(image_to_rgb(message, "/color"), RGB)


@pytest.mark.parametrize(
    "error",
    [
        FakeBridge.CvBridgeError("not supported"), ValueError("reshape"), TypeError("buffer"),
        RuntimeError("boost"), ImportError("boost"), AttributeError("_ARRAY_API not found"),
        KeyError("bayer"), cv2.error("cvtColor"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_cv_bridge_failures_name_topic_and_remedy(bridge, error):
    bridge(error)
    message = array_to_image(RGB[..., 0], "bayer_rggb8")
    pattern = r"/color: cv_bridge cannot convert 'bayer_rggb8' to 'rgb8': .*Publish one of"
    with pytest.raises(DataError, match=pattern):
        image_to_rgb(message, "/color")


def test_cv_bridge_that_does_not_fit_numpy_is_named(bridge, monkeypatch):
    """A cv_bridge built for numpy 1 breaks while it is imported."""
    module = bridge(RGB)
    monkeypatch.delattr(FakeBridge, "CvBridge")
    with pytest.raises(DataError, match=r"/color: .*bayer_rggb8.*cv_bridge.*cannot import"):
        image_to_rgb(array_to_image(RGB[..., 0], "bayer_rggb8"), "/color")
    assert module.calls == 0


def test_truncated_data_does_not_reach_cv_bridge(bridge):
    module = bridge(RGB)
    message = array_to_image(RGB[..., 0], "bayer_rggb8")
    message.data = message.data[:-1]
    with pytest.raises(DataError, match=r"/color.*truncated, got 29 bytes, expected 30"):
        image_to_rgb(message, "/color")
    with pytest.raises(DataError, match=r"/color: image is empty"):
        image_to_rgb(array_to_image(RGB[:0, :, 0], "bayer_rggb8"), "/color")
    assert module.calls == 0


def test_the_largest_deviation_of_any_direction_in_mm_and_degrees():
    R = exp_so3(np.array([0.3, -0.8, 0.5]))
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = R @ np.diag([0.001, 0.004, 0.002]) ** 2 @ R.T
    covariance[3:, 3:] = R @ np.diag([0.03, 0.01, 0.02]) ** 2 @ R.T
    assert to_sigma_mm_deg(covariance.ravel()) == pytest.approx((4.0, np.degrees(0.03)))
    assert to_sigma_mm_deg(np.zeros(36)) == (0.0, 0.0)
    assert np.isnan(to_sigma_mm_deg(-np.eye(6).ravel())).all()
