"""How every node's program starts: ``--help``, then rclpy, with one line where that fails."""

from __future__ import annotations

import sys
from typing import Any

import rclpy


def start_ros(name: str, purpose: str, args: list[str] | None, **options: Any) -> None:
    """Initialise rclpy. Prints the help and ends the program for ``-h`` or ``--help``.

    Raises SystemExit with one line when ROS refuses the arguments (a missing parameter file).
    """
    given = sys.argv[1:] if args is None else args
    if "-h" in given or "--help" in given:
        print(
            f"{name}: {purpose}\n\n"
            f"  {name} --ros-args --params-file config/pose_demo.yaml   parameters from a file\n"
            f"  {name} --ros-args -p NAME:=VALUE                        one parameter\n"
            f"  {name} --ros-args -r FROM:=TO                           another topic\n\n"
            "Runs until Ctrl-C. heatnet_ros/config.py and heatnet_ros/ros explain the parameters, "
            f"so does `ros2 param describe /{name} NAME` where ROS 2 is installed."
        )
        raise SystemExit(0)
    try:
        rclpy.init(args=args, **options)
    except RuntimeError as error:  # RCLError: its text names ROS's own source files
        reason = str(error).split(", at ")[0]
        raise SystemExit(f"{name}: ROS refuses the arguments: {reason}") from error
