"""``predict`` on the recording that ships, with the shipped networks and without ROS."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="the extra `bag` (rosbags) is not installed")

from child_environment import child_environment

import heatnet_ros
from heatnet_ros.bags.choice import list_truth
from heatnet_ros.bags.reader import Bag
from heatnet_ros.bags.sample import SAMPLE, find_recording
from heatnet_ros.predict import add_arguments, run

ROOT = Path(heatnet_ros.__file__).parent.parent
PROGRAM = """
import sys
from heatnet_ros.__main__ import main
status = main(sys.argv[1:])
ros = ("rclpy", "sensor_msgs", "geometry_msgs", "std_msgs", "cv_bridge")
loaded = [name for name in ros if name in sys.modules]
print("LOADED", loaded)
sys.exit(status)
"""


def test_the_sample_is_small_and_complete():
    path = ROOT / SAMPLE
    assert path.stat().st_size <= 2_000_000
    bag = Bag(path)
    assert set(list_truth(bag).values()) == {"bracket", "valve", "mug", "connector", "pulley"}
    first, last = bag.span_ns(list(bag.topics))
    assert last - first > 10**9  # so that the node takes a jump back for the clock's


def test_every_object_of_the_sample_is_found_without_ros(tmp_path):
    command = ["predict", "sample", "--params", "config/pose_demo.yaml", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LOADED []" in done.stdout
    document = json.loads((tmp_path / "poses.json").read_text())
    summary = document["summary"]
    assert summary["images"] == summary["images_with_depth"] == 8 and not summary["failures"]
    assert summary["score"]["mean"]["add_01d"] >= 0.9
    stamps = [entry["stamp_ns"] for entry in document["predictions"]]
    assert stamps == [stamps[0] + i * 200_000_000 for i in range(8)] and stamps[0] > 10**18
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 8


def test_options_of_image_files_are_refused(tmp_path):
    import argparse

    from heatnet_ros.errors import ConfigError

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["sample", "--params", "config/pose_demo.yaml", "--camera", "600,600,320,240"]
    with pytest.raises(ConfigError, match="is a bag with its own calibration and depth"):
        run(parser.parse_args([*words, "--out", str(tmp_path)]))


def test_a_file_named_sample_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recording(Path("sample")).name == "demo.mcap"
    (tmp_path / "sample").mkdir()
    assert find_recording(Path("sample")) == Path("sample")
