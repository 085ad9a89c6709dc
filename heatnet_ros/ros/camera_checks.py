"""CameraInfo messages as the checks want them: the node and the doctor judge them alike."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from heatnet_ros.checks.calibration import (
    check_depth_camera,
    check_principal_point,
    check_rectified,
)
from heatnet_ros.checks.finding import Finding, ok
from heatnet_ros.errors import DataError
from heatnet_ros.ros.frames import Topics
from heatnet_ros.ros.messages import camera_info_to_intrinsics, image_size_of
from heatnet_ros.types import FloatArray

if TYPE_CHECKING:
    from sensor_msgs.msg import CameraInfo


def judge_calibration(info: CameraInfo, topics: Topics, rectified: bool) -> Finding:
    """The calibration in words, or what is wrong with it. Raises DataError where it is none."""
    K, distortion = camera_info_to_intrinsics(info, rectified, topics.camera_info)
    width, height = image_size_of(info)
    outside = check_principal_point(topics.camera_info, K, (width, height))
    cropped = info.roi.x_offset or info.roi.y_offset  # then it may lie beside the image
    if outside is not None and not cropped:
        return outside
    lens = "no distortion" if distortion.is_zero else f"distortion {distortion.model}"
    text = f"calibrated, fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} cx {K[0, 2]:.1f} cy {K[1, 2]:.1f} px"
    return ok(topics.camera_info, f"{text} of {width}x{height}, {lens}")


def judge_rectified(info: CameraInfo, topics: Topics, rectified: bool) -> Finding | None:
    """A warning where the parameter ``rectified`` does not fit what the image is called."""
    return check_rectified(topics.color, rectified, info.distortion_model, list(info.d))


def judge_depth_camera(
    info: CameraInfo, depth_info: CameraInfo, topics: Topics, rectified: bool
) -> Finding | None:
    """Whether depth's CameraInfo is that of colour; None where one of them tells nothing.

    Binning and ROI are applied. Aligned depth may repeat colour's K, or have only its P.
    """
    color = _list_intrinsics(info, (rectified,), topics.camera_info)
    depth = _list_intrinsics(depth_info, (rectified, not rectified), str(topics.depth_info))
    sizes = image_size_of(depth_info), image_size_of(info)
    if not color or not depth or 0 in sizes[0]:
        return None
    K = color[0]
    K_depth = min(depth, key=lambda other: float(np.abs(other - K).max()))
    return check_depth_camera(str(topics.depth), topics.color, K_depth, sizes[0], K, sizes[1])


def _list_intrinsics(info: CameraInfo, ways: Iterable[bool], topic: str) -> list[FloatArray]:
    """K of the image as published, by P (True) or by K (False), where there is one."""
    found = []
    for rectified in ways:
        with suppress(DataError):  # uncalibrated, or says nothing
            found.append(camera_info_to_intrinsics(info, rectified, topic)[0])
    return found
