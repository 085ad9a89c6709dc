"""Do calibration and frame fit the images: do colour's, and is depth's the same?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from heatnet_ros.checks.finding import Finding, error, ok, warning
from heatnet_ros.types import ALIGN_DEPTH, FloatArray

# depth's intrinsics may differ from colour's by rounding
SAME_K_PX = 0.5
# as a word of its own: image_rect, rgb/color/rect/image; not: director, corrected
_RECTIFIED = re.compile(r"(?<![a-z])rect(ified)?(?![a-z])")


def check_principal_point(topic: str, K: FloatArray, size_wh: tuple[int, int]) -> Finding | None:
    """An error where the principal point of K (3x3, px) is not in the image."""
    width, height = size_wh
    if 0 < K[0, 2] < width and 0 < K[1, 2] < height:
        return None
    return error(
        topic,
        f"the principal point {K[0, 2]:.0f}, {K[1, 2]:.0f} is outside the {width}x{height} image",
        "It is the calibration of another size, binning or ROI: publish that of this image.",
    )


def check_frame_id(topic: str, frame_id: str) -> Finding | None:
    """A warning where TF and RViz cannot place what is in the images' frame."""
    if frame_id and not frame_id.startswith("/"):
        return None
    fault = f"'{frame_id:.40}' begins with a slash" if frame_id else "is empty"
    return warning(
        topic,
        f"frame_id {fault}: TF and RViz cannot place the poses, which have it, too",
        "Set the frame of the camera's driver, such as camera_color_optical_frame.",
    )


def check_rectified(
    topic: str, rectified: bool, model: str, coefficients: Sequence[float]
) -> Finding | None:
    """A warning where the parameter ``rectified`` does not fit what the image is called.

    model, coefficients: the distortion in its CameraInfo.
    """
    if rectified == bool(_RECTIFIED.search(topic)) or not np.any(coefficients):
        return None
    if rectified:
        return warning(
            topic,
            f"rectified is true, so the distortion {model:.40} of CameraInfo is not used, but the "
            "topic is not called rectified",
            "Set rectified: false for a raw image, or remap to the rectified one (image_rect).",
        )
    return warning(
        topic,
        f"is called rectified, but rectified is false: the distortion {model:.40} of CameraInfo is "
        "taken off a second time",
        "Set rectified: true, or remap to the raw image and its camera_info.",
    )


def check_depth_camera(
    depth: str,
    color: str,
    K_depth: FloatArray,
    size_depth_wh: tuple[int, int],
    K: FloatArray,
    size_wh: tuple[int, int],
) -> Finding:
    """Whether depth's CameraInfo is colour's, as it is where depth is aligned to colour.

    depth, color: topics. K: 3x3 in px.
    """
    apart_px = float(np.abs(K - K_depth).max())
    if size_wh == size_depth_wh and apart_px <= SAME_K_PX:
        return ok(depth, f"its CameraInfo is that of {color}, to {apart_px:.2g} px")
    return error(
        depth,
        f"its CameraInfo ({_text(K_depth, size_depth_wh)}) is not that of {color} "
        f"({_text(K, size_wh)}): depth is not aligned to colour",
        ALIGN_DEPTH,
    )


def _text(K: FloatArray, size_wh: tuple[int, int]) -> str:
    return f"fx {K[0, 0]:.1f}, cx {K[0, 2]:.1f}, {size_wh[0]}x{size_wh[1]}"
