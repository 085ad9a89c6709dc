"""Why nothing comes out: each check says what, with evidence and remedy. No ROS in here.

The node and ``python -m heatnet_ros doctor`` share them.
"""
