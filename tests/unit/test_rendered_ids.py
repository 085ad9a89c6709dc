"""Ids with the shipped networks on rendered images: tests/bench/measure_ids.py in short."""

import subprocess
import sys
from pathlib import Path

import pytest
from child_environment import child_environment

from heatnet_ros.errors import EngineError
from heatnet_ros.rendering.rasterizer import Rasterizer

ROOT = Path(__file__).resolve().parents[2]


def test_two_mugs_keep_their_ids_though_one_hides_the_other_and_though_one_leaves() -> None:
    """The far mug's box shows the near one while that stands before it: that is no second pose."""
    try:
        Rasterizer((64, 48)).release()
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    words = ["tests/bench/measure_ids.py", "--objects", "mug", "--acts", "cross", "aside"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, env=child_environment(), capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 films, ids broken in 0" in done.stdout
