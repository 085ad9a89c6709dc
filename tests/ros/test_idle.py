"""What the node costs while there is nothing to do."""

import ast
import difflib
import email
import fractions
import json
import os
import pprint
import statistics
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from child_environment import child_environment

from heatnet_ros.ros.child import Child

ROOT = Path(__file__).parents[2]
WINDOW_S = 10


def work_s() -> float:
    """Processor time of a little of everything, as the node's report is: much code, each once.

    For the message alone: a virtual machine whose host takes memory back while it sleeps made this
    46 to 66 times dearer after a second of sleep than in a loop, and the node 4 to 7 % of a core.
    """
    start_s = time.process_time()
    json.loads(json.dumps({"a": [1.5, None, "b"]}, indent=1))
    textwrap.fill("six of one, half a dozen of the other. " * 3, 40)
    difflib.get_close_matches("gate.min_scor", ["gate.min_score", "filter.enabled", "objects"])
    sum(fractions.Fraction(1, i) for i in range(1, 5))
    ast.unparse(ast.parse("a = [f(b, c=2) for b in d if b > 3]\nassert a, 'none'"))
    pprint.pformat({"a": list(range(30)), "b": {"c": (1, 2)}})
    email.message_from_string("From: a@b.c\nSubject: d\n\nbody").as_string()
    np.linalg.svd(np.eye(4)), np.median(np.arange(9.0)), cv2.Rodrigues(np.ones(3))
    return time.process_time() - start_s


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_node_without_a_camera_sleeps(ros, tmp_path):
    arguments = ["--params-file", str(ROOT / "config/pose_demo.yaml"), "-r", "__ns:=/idle"]
    log = tmp_path / "node.log"
    environment = child_environment()
    with Child("node", "heatnet_ros.ros.pose_node", arguments, log, environment) as child:
        deadline = time.monotonic() + 40
        while "Configured in" not in log.read_text():
            assert child.is_running and time.monotonic() < deadline, child.describe_log()
            time.sleep(0.1)
        time.sleep(2.0)  # discovery and the libraries' own threads come to rest
        before_s, started_s = cpu_s(child._process.pid), time.monotonic()
        cold_s = []
        for _ in range(WINDOW_S):  # as the node: once a second
            time.sleep(1.0)
            cold_s.append(work_s())
        used = (cpu_s(child._process.pid) - before_s) / (time.monotonic() - started_s)
        dearer = statistics.median(cold_s) / min(work_s() for _ in range(10))
        print(
            f"idle: {used:.2%} of one core; a second's sleep makes work {dearer:.1f} times dearer"
        )
        assert used <= 0.02, f"{used:.1%} of one core, work after sleep {dearer:.1f} times dearer"
        deadline = time.monotonic() + 20
        while "nobody publishes" not in log.read_text():
            assert time.monotonic() < deadline, "it does not say why it is idle"
            time.sleep(0.1)
