"""Topics of camera drivers as they start by default, depth aligned to colour. Free of rclpy."""

from __future__ import annotations

from typing import NamedTuple


class CameraTopics(NamedTuple):
    """Full topic names; ``rectified``: the colour image has no distortion, P holds its K."""

    color: str
    camera_info: str
    depth: str
    rectified: bool = False


CAMERAS = {
    "realsense": CameraTopics(
        "/camera/camera/color/image_raw",
        "/camera/camera/color/camera_info",
        "/camera/camera/aligned_depth_to_color/image_raw",
    ),
    "orbbec": CameraTopics(
        "/camera/color/image_raw", "/camera/color/camera_info", "/camera/depth/image_raw"
    ),
    "zed": CameraTopics(
        "/zed/zed_node/rgb/color/rect/image",
        "/zed/zed_node/rgb/color/rect/camera_info",
        "/zed/zed_node/depth/depth_registered",
        rectified=True,
    ),
    "azure_kinect": CameraTopics("/rgb/image_raw", "/rgb/camera_info", "/depth_to_rgb/image_raw"),
}
