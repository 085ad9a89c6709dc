"""6D pose of known objects from RGB-D images: detector, keypoint heatmaps, PnP, ROS 2 node."""

__version__ = "0.1.0"
