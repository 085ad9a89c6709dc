"""CameraInfo messages as the checks want them: the node and the doctor judge them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from heatnet_ros.checks.calibration import (
    check_depth_camera,
    check_principal_point,
    check_rectified,
)
from heatnet_ros.checks.finding import Finding, ok
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.messages import camera_info_to_intrinsics, image_size_of

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo


def judge_calibration(info: CameraInfo, topics: Topics, rectified: bool) -> Finding:
    """The calibration in words, or what is wrong with it. Raises DataError where it is none."""
    K, distortion = camera_info_to_intrinsics(info, rectified, topics.camera_info)
    width, height = image_size_of(info)
    outside = check_principal_point(topics.camera_info, K, (width, height))
    if outside is not None:
        return outside
    lens = "no distortion" if distortion.is_zero else f"distortion {distortion.model}"
    text = f"calibrated, fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} cx {K[0, 2]:.1f} cy {K[1, 2]:.1f} px"
    return ok(topics.camera_info, f"{text} of {width}x{height}, {lens}")


def judge_rectified(info: CameraInfo, topics: Topics, rectified: bool) -> Finding | None:
    """A warning where the parameter ``rectified`` does not fit what the image is called."""
    return check_rectified(topics.color, rectified, info.distortion_model, list(info.d))


def judge_depth_camera(info: CameraInfo, depth_info: CameraInfo, topics: Topics) -> Finding:
    """Whether depth's CameraInfo is that of colour."""
    K, K_depth = (np.array(message.k, np.float64).reshape(3, 3) for message in (info, depth_info))
    sizes = [image_size_of(message) for message in (depth_info, info)]
    return check_depth_camera(str(topics.depth), topics.color, K_depth, sizes[0], K, sizes[1])
