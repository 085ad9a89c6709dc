"""Topics of the usual cameras: the presets of the launch files, the demo and the docs.

Free of rclpy and launch. Names are those of the drivers as they start by default, with depth
aligned to colour (docs/cameras.md says how to start them).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Camera:
    """Topics of a driver: ``prefix`` changes with the camera's name, the rest does not.

    frame_id: of its colour images, as long as the camera's name is the default. rectified: the
    colour images are.
    """

    prefix: str
    color: str
    camera_info: str
    depth: str
    frame_id: str
    rectified: bool = False

    def topics(self, prefix: str = "") -> dict[str, str]:
        """Relative topics of ``pose_node`` -> those of the camera.

        ``prefix`` stands instead of the preset's, for a camera with a name of its own. Without a
        leading / it is meant from the root all the same: cameras are not in the node's namespace.
        """
        root = f"/{prefix.strip('/')}" if prefix else self.prefix
        return {
            "color/image_raw": f"{root}/{self.color}",
            "color/camera_info": f"{root}/{self.camera_info}",
            "depth/image_raw": f"{root}/{self.depth}",
        }


# in the names of topics of depth that is aligned to colour; the earlier the better
ALIGNED_NAMES = ("aligned_depth_to_color", "depth_to_rgb", "depth_registered", "registered")
_REALSENSE = Camera(
    "/camera/camera",
    "color/image_raw",
    "color/camera_info",
    "aligned_depth_to_color/image_raw",
    "camera_color_optical_frame",
)
_AZURE_KINECT = Camera(
    "", "rgb/image_raw", "rgb/camera_info", "depth_to_rgb/image_raw", "rgb_camera_link"
)
CAMERAS = {
    "realsense": _REALSENSE,
    "orbbec": Camera(
        "/camera",
        "color/image_raw",
        "color/camera_info",
        "depth/image_raw",
        "camera_color_optical_frame",
    ),
    "zed": Camera(
        "/zed/zed_node",
        "rgb/color/rect/image",
        "rgb/color/rect/camera_info",
        "depth/depth_registered",
        "zed_left_camera_frame_optical",
        rectified=True,
    ),
    "azure_kinect": _AZURE_KINECT,
    "kinect": _AZURE_KINECT,
    # synthetic_camera is a RealSense to everybody who listens
    "synthetic": _REALSENSE,
    # ``replay``, whatever was recorded; the frame is that of its folders of images
    "replay": Camera(
        "", "color/image_raw", "color/camera_info", "depth/image_raw", _REALSENSE.frame_id
    ),
}
SYNTHETIC = CAMERAS["synthetic"]
