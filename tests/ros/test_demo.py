"""The demo as a user runs it: three processes, a report, a picture, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).resolve().parents[2]
LOGS = ("camera.log", "node.log", "monitor.log")

pytestmark = pytest.mark.skipif(
    find_spec("moderngl") is None, reason="moderngl is not installed: pip install .[render]"
)


def start_demo(out: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "heatnet_ros", "demo", "--out", str(out), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(demo: subprocess.Popen[str], limit_s: float) -> str:
    """Wait for the end and return the output; a demo that hangs must not outlive its test."""
    try:
        return demo.communicate(timeout=limit_s)[0]
    finally:
        if demo.poll() is None:
            demo.terminate()


def running_with(out: Path) -> list[str]:
    """Command lines of all processes whose standard output is a file in ``out``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "fd" / "1").readlink().parent == out:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_a_camera_faster_than_the_node_makes_it_drop_frames_not_lag(tmp_path):
    demo = start_demo(tmp_path, "--seconds", "4", "--rate", "120", "--replay", "12")
    output = finish(demo, 240)
    report = json.loads((tmp_path / "report.json").read_text())
    frames = report["frames"]
    assert frames["published"] == 480, output
    assert frames["dropped"] > 0 and frames["processed"] < frames["published"]
    # a queue would let the last frames wait for seconds: 480 frames of 30 ms are 14 s
    assert report["latency_ms"]["p95"] < 2000


def test_demo_measures_and_leaves_nobody_behind(tmp_path):
    demo = start_demo(tmp_path, "--seconds", "3")
    output = finish(demo, 240)
    logs = "\n".join((tmp_path / name).read_text() for name in LOGS)
    assert demo.returncode in (0, 1), output  # 1: an object got no pose in so short a film
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {
        "objects", "recall_add_01d", "rate_hz", "latency_ms", "frames", "engine", "rss_mb",
        "memory_mb",
    }  # fmt: skip
    for entry in report["objects"].values():
        assert set(entry) == {
            *("poses", "frames", "recall_add_01d", "median_error_mm", "median_error_deg"),
        }
        assert entry["poses"] <= entry["frames"] <= 30
    assert report["frames"]["published"] == 30
    assert report["frames"]["received"] == 30, logs
    assert report["frames"]["processed"] + report["frames"]["dropped"] == 30
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert sum(entry["poses"] for entry in report["objects"].values()) >= 10
    assert 0 < report["rss_mb"] < 1000
    assert "detector" in report["engine"] and "estimator" in report["engine"]
    for name in report["objects"]:
        assert name in output
    assert cv2.imread(str(tmp_path / "overlay.png")).shape == (480, 640, 3)
    assert running_with(tmp_path) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_takes_its_children_with_it(tmp_path, how):
    demo = start_demo(tmp_path)
    deadline = time.monotonic() + 60
    while len(running_with(tmp_path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    demo.send_signal(how)
    output = finish(demo, 60)
    assert demo.returncode == (130 if how != signal.SIGKILL else -signal.SIGKILL), output
    deadline = time.monotonic() + 20
    while running_with(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running_with(tmp_path) == []


def test_a_failing_child_ends_the_demo_with_its_log(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("/**:\n  ros__parameters:\n    objects_file: nowhere.yaml\n")
    demo = start_demo(tmp_path, "--params", str(params))
    output = finish(demo, 120)
    assert demo.returncode == 1
    assert "nowhere.yaml" in output and "not found" in output and ".log" in output
    assert "Traceback" not in output
    assert running_with(tmp_path) == []


def test_a_missing_package_is_named_with_the_remedy(tmp_path):
    code = (
        "import sys; sys.modules['moderngl'] = None; from heatnet_ros.__main__ import main; "
        f"sys.exit(main(['demo', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1
    assert "'moderngl'" in done.stderr and "make demo" in done.stderr
