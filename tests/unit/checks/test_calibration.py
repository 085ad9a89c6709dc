"""Whether calibration and image fit."""

import numpy as np
import pytest

from heatnet_ros.checks.calibration import (
    check_depth_camera,
    check_principal_point,
    check_rectified,
)
from heatnet_ros.checks.finding import Level

K = np.array([[615.0, 0.0, 320.0], [0.0, 612.0, 240.0], [0.0, 0.0, 1.0]])
LENS = (0.1, -0.2, 0.0, 0.0, 0.0)


def test_depth_of_the_same_camera_and_of_another():
    same = check_depth_camera("/depth", "/color", K + 0.2 * (K > 1), (640, 480), K, (640, 480))
    assert same.level is Level.OK
    moved = K.copy()
    moved[0, 2] += 5
    found = check_depth_camera("/depth", "/color", moved, (640, 480), K, (640, 480))
    assert found.level is Level.ERROR and "cx 325.0, 640x480) is not that of" in found.evidence
    found = check_depth_camera("/depth", "/color", K, (1280, 720), K, (640, 480))
    assert found.level is Level.ERROR and "depth_registration" in found.remedy


def test_a_principal_point_beside_the_image():
    assert check_principal_point("/info", K, (640, 480)) is None
    found = check_principal_point("/info", K, (320, 240))
    assert found.level is Level.ERROR and "320, 240 is outside the 320x240" in found.evidence


@pytest.mark.parametrize(
    ("topic", "called"),
    [
        ("/camera/image_rect", True),
        ("/camera/image_rect_color", True),
        ("/zed/zed_node/rgb/color/rect/image", True),
        ("/camera/rectified/image", True),
        ("/camera/image_raw", False),
        ("/director/image_raw", False),
        ("/corrected/image", False),
    ],
)
def test_what_a_rectified_image_is_called(topic, called):
    assert check_rectified(topic, called, "plumb_bob", LENS) is None
    found = check_rectified(topic, not called, "plumb_bob", LENS)
    assert found.level is Level.WARNING and "plumb_bob" in found.evidence
    assert check_rectified(topic, not called, "plumb_bob", (0.0,) * 5) is None
