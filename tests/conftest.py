"""Shared by all tests: a ROS network of our own, so that no robot nearby hears the tests."""

import os
import tempfile

# before anything imports rclpy
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="heatnet_ros_log_"))
