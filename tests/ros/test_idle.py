"""What the node costs while there is nothing to do."""

import os
import time
from pathlib import Path

import pytest

from heatnet_ros.ros.child import Child

ROOT = Path(__file__).parents[2]
WINDOW_S = 10.0


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_node_without_a_camera_sleeps(ros, tmp_path):
    arguments = ["--params-file", str(ROOT / "config/pose_demo.yaml"), "-r", "__ns:=/idle"]
    log = tmp_path / "node.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with Child("node", "heatnet_ros.ros.pose_node", arguments, log, environment) as child:
        deadline = time.monotonic() + 40
        while "Configured in" not in log.read_text():
            assert child.is_running and time.monotonic() < deadline, child.describe_log()
            time.sleep(0.1)
        time.sleep(2.0)  # discovery and the libraries' own threads come to rest
        before_s, started_s = cpu_s(child._process.pid), time.monotonic()
        time.sleep(WINDOW_S)
        used = (cpu_s(child._process.pid) - before_s) / (time.monotonic() - started_s)
        print(f"idle: {used:.2%} of one core")
        assert used <= 0.02, f"{used:.1%} of one core"
        deadline = time.monotonic() + 20
        while "nobody publishes" not in log.read_text():
            assert time.monotonic() < deadline, "it does not say why it is idle"
            time.sleep(0.1)
