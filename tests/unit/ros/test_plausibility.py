"""Messages that are well formed and cannot be meant."""

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from heatnet_ros.errors import DataError
from heatnet_ros.ros.messages import (
    array_to_image,
    camera_info_to_intrinsics,
    image_to_depth_m,
    image_to_rgb,
)

RNG = np.random.default_rng(0)
# a table seen from the side, as a camera that counts millimetres gives it
SLOPE_MM = np.linspace(400, 4000, 320)[None] + RNG.normal(0, 4, (240, 320))


def depth(values, dtype, flag):
    names = {"u2": "16UC1", "f4": "32FC1"}
    message = array_to_image(values.astype(dtype), names[dtype[1:]])
    message.is_bigendian = flag
    return message


SCENES = {
    "slope": SLOPE_MM,
    "with holes": np.where(RNG.random(SLOPE_MM.shape) < 0.4, 0, SLOPE_MM),
    "steps of a stereo camera": np.round(SLOPE_MM / 40) * 40,
    "a wall": np.full(SLOPE_MM.shape, 800.0),
    "noise": RNG.uniform(300, 9000, SLOPE_MM.shape),
    "few pixels": np.where(RNG.random(SLOPE_MM.shape) < 0.001, SLOPE_MM, 0),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_any_scene_in_its_byte_order_is_taken(scene, order, kind):
    mm = np.rint(SCENES[scene])
    message = depth(mm if kind == "u2" else mm / 1000, order + kind, int(order == ">"))
    np.testing.assert_allclose(image_to_depth_m(message, "/depth"), mm / 1000, rtol=1e-5)


@pytest.mark.parametrize("scene", ["slope", "with holes"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_the_wrong_byte_order_is_refused(scene, order, kind):
    mm = SCENES[scene]
    message = depth(mm if kind == "u2" else mm / 1000, order + kind, int(order == "<"))
    with pytest.raises(DataError, match=r"/depth: .*is_bigendian.*set is_bigendian as"):
        image_to_depth_m(message, "/depth")


@pytest.mark.parametrize(("wide", "narrow"), [("rgba8", "rgb8"), ("rgb8", "mono8")])
def test_the_encoding_of_shorter_pixels_is_refused(wide, narrow):
    channels = {"rgba8": 4, "rgb8": 3}[wide]
    message = array_to_image(np.zeros((4, 640, channels), np.uint8), wide)
    message.encoding = narrow
    with pytest.raises(DataError, match=rf"/color: step is .*640 pixels of '{narrow}' take"):
        image_to_rgb(message, "/color")


def camera_info(width=640, height=480, fx=600.0, fy=600.0, cx=320.0, cy=240.0, **fields):
    info = CameraInfo(width=width, height=height, **fields)
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    return info


@pytest.mark.parametrize(
    "good",
    [
        {"fx": 150.0, "fy": 150.0},  # 130 degrees
        {"fx": 30_000.0, "fy": 30_000.0},  # a telescope
        {"cx": -200.0, "cy": 700.0},  # cut out of a larger image
        {"roi": RegionOfInterest(x_offset=320, y_offset=240, width=320, height=240)},
        {"d": [-300.0, 5000.0, 0.0, 0.0, 1.0, -300.0, 5000.0, 20.0],
         "distortion_model": "rational_polynomial"},
    ],
)  # fmt: skip
def test_unusual_cameras_are_taken(good):
    K, distortion = camera_info_to_intrinsics(camera_info(**good), False, "/info")
    asked = {"fx": 600.0, "fy": 600.0, "cx": 320.0, "cy": 240.0} | good
    corner = (320, 240) if "roi" in good else (0, 0)
    assert (K[0, 0], K[1, 1]) == (asked["fx"], asked["fy"])
    assert (K[0, 2], K[1, 2]) == (asked["cx"] - corner[0], asked["cy"] - corner[1])
    assert list(distortion.coefficients) == good.get("d", list(distortion.coefficients))


@pytest.mark.parametrize(
    ("bad", "pattern"),
    [
        ({"fx": 6.0}, "focal lengths 6, 600 and"),
        ({"fy": 1e300}, r"focal lengths 600, 1e\+300"),
        ({"cx": 5000.0}, "principal point 5000, 240"),
        ({"cy": -1e12}, r"principal point 320, -1e\+12"),
        ({"roi": RegionOfInterest(x_offset=400, width=320, height=480)}, "320x480 pixels at 400"),
        ({"roi": RegionOfInterest(y_offset=2**32 - 1)}, "at 0, 4294967295 is not in the 640x480"),
        ({"roi": RegionOfInterest(height=1)}, "of 0x1 pixels at 0, 0 is not in the 640x480"),
        ({"d": [1e9, 0.0, 0.0, 0.0], "distortion_model": "plumb_bob"}, r"coefficient is 1e\+09"),
    ],
)  # fmt: skip
def test_intrinsics_of_no_camera_are_refused(bad, pattern):
    with pytest.raises(DataError, match=rf"/info: .*{pattern}"):
        camera_info_to_intrinsics(camera_info(**bad), False, "/info")
