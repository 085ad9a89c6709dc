"""The short version of the chaos run: ``python tests/bench/chaos.py`` is the long one."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from child_environment import child_environment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    find_spec("moderngl") is None, reason="moderngl is not installed: pip install .[render]"
)
# a run of seconds is all warm-up, which is what the long one is there to tell apart
NOT_IN_SO_SHORT_A_RUN = ("memory grew", "more threads than in the warm-up")


def test_poses_come_back_whatever_happens(tmp_path):
    report_file = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable, "tests/bench/chaos.py", "--seconds", "25", "--cycle", "6",
            "--limit", "4", "--out", str(tmp_path), "--json", str(report_file),
        ],
        cwd=ROOT, env=child_environment(), capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert report_file.exists(), done.stdout + done.stderr
    report = json.loads(report_file.read_text())
    faults = [fault for fault in report["faults"] if not fault.startswith(NOT_IN_SO_SHORT_A_RUN)]
    assert faults == [], done.stdout + (tmp_path / "node.log").read_text()[-3000:]
    threads = report["threads"]
    assert threads["end"] <= threads["start"] + 2, threads["more"]
    assert report["rounds"] >= 5 and report["cycles"] >= 2 and report["poses"] > 20
