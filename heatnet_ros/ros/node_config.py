"""Options of ``pose_node`` that the pipeline knows nothing about. Free of rclpy."""

from __future__ import annotations

from dataclasses import dataclass

from heatnet_ros.config import option


@dataclass(frozen=True)
class NodeConfig:
    """How the node takes images in and how it reports."""

    autostart: bool = option(True, "Configure and activate at start, without a lifecycle manager")
    color_transport: str = option(
        "raw",
        "raw: color/image_raw; compressed: color/image_raw/compressed (JPEG or PNG)",
        choices=("raw", "compressed"),
    )
    depth_transport: str = option(
        "raw",
        "raw: depth/image_raw; compressedDepth: depth/image_raw/compressedDepth (PNG)",
        choices=("raw", "compressedDepth"),
    )
    use_depth: str = option(
        "auto",
        "Subscribe to depth: true, false, or auto, which asks the estimator's model",
        choices=("auto", "true", "false"),
    )
    rectified: bool = option(
        False, "The colour image is rectified: use CameraInfo's P and no distortion", live=True
    )
    sync_queue: int = option(
        10, "Colour and depth images kept while their partner is awaited", low=1, high=100
    )
    sync_slop_s: float = option(
        0.008,
        "The stamps of a colour and a depth image taken together differ by less than this; keep it "
        "below half the time between two images",
        low=0.001,
        high=1.0,
    )
    input_timeout_s: float = option(
        5.0,
        "Without colour images or CameraInfo for this long, the node says so",
        low=0.1,
        high=3600.0,
        live=True,
    )
    depth_timeout_s: float = option(
        5.0, "Without depth for this long, the node says so", low=0.1, high=3600.0, live=True
    )
    marker_lifetime_s: float = option(
        1.0,
        "RViz forgets a marker that was not renewed for this long; 0 keeps it",
        low=0.0,
        high=60.0,
        live=True,
    )
    publish_tf: bool = option(
        False,
        "Publish the poses on /tf too, as <object>_<instance> (after the node's namespace) in the "
        "image's frame; filtered ones where filter.enabled. Needs tf2_msgs",
        live=True,
    )
