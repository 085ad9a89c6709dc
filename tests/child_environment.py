"""The environment of the programs that tests start."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def child_environment(*paths: Path | str, **variables: str) -> dict[str, str]:
    """This process's, with ``paths`` and this package in front of what PYTHONPATH holds.

    In front, not instead: a sourced ROS has rclpy nowhere else.
    """
    found = [*map(str, paths), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))} | variables
