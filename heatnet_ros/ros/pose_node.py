"""The program ``pose_node``: sets what must be set before NumPy and rclpy are imported."""

from __future__ import annotations

import os

from heatnet_ros.ros.memory import share_one_heap


def main(args: list[str] | None = None) -> None:
    """Entry point of ``ros2 run heatnet_ros pose_node``."""
    # NumPy's and OpenCV's OpenBLAS read this when they are imported: workers of theirs, one for
    # each further core, would take those cores from the networks
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    share_one_heap()
    from heatnet_ros.ros.node import run  # importing rclpy starts threads

    run(args)
