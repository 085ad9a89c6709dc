"""CameraInfo of colour and depth, judged after binning, ROI and rectification."""

import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from heatnet_ros.checks.finding import Level
from heatnet_ros.ros.camera_checks import judge_calibration, judge_depth_camera
from heatnet_ros.ros.frames import Topics

TOPICS = Topics("/color", "/info", "/depth")


def camera(f=600.0, cx=320.0, size=(640, 480), p=None, cy=240.0, **more):
    info = CameraInfo(width=size[0], height=size[1], distortion_model="plumb_bob", **more)
    info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    f, cx = p or (f, cx)
    info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def judge(color, depth, rectified=False):
    return judge_depth_camera(color, depth, TOPICS, rectified)


def test_the_same_camera_in_another_spelling_is_aligned():
    full = camera(1200.0, 640.5, (1280, 960), cy=480.5, binning_x=2, binning_y=2)
    assert judge(full, camera()).level is Level.OK
    assert judge(camera(p=(550.0, 310.0)), camera(550.0, 310.0), True).level is Level.OK


def test_another_part_of_the_sensor_is_not_aligned():
    left, right = (
        camera(600.0, 900.0, (1920, 1080), roi=RegionOfInterest(x_offset=x, width=640, height=480))
        for x in (600, 900)
    )
    assert judge(left, left).level is Level.OK
    found = judge(left, right)
    assert found.level is Level.ERROR and "cx 0.0" in found.evidence


@pytest.mark.parametrize("silent", [CameraInfo(), CameraInfo(width=640, height=480)])
def test_what_tells_nothing_is_no_fault(silent):
    assert judge(camera(), silent) is None


def test_a_cropped_image_may_lie_beside_the_principal_point():
    roi = RegionOfInterest(x_offset=1200, width=640, height=480)
    cropped = camera(1000.0, 960.0, (1920, 1080), roi=roi)
    assert judge_calibration(cropped, TOPICS, False).level is Level.OK
    other_size = camera(1000.0, 960.0)
    assert "is outside" in judge_calibration(other_size, TOPICS, False).evidence
