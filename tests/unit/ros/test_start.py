"""Starting a node's program: help and refused arguments."""

import os
import subprocess
import sys

import pytest

PROGRAMS = ("node", "monitor", "synthetic_camera")


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from heatnet_ros.ros.{module} import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=dict(os.environ), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("module", PROGRAMS)
def test_help_teaches_and_ends(module):
    done = run(module, "--help")
    assert done.returncode == 0 and "--params-file" in done.stdout, done.stderr


def test_a_missing_parameter_file_is_one_line():
    done = run("node", "--ros-args", "--params-file", "/no/such.yaml")
    assert done.returncode != 0 and "/no/such.yaml" in done.stderr
    assert "Traceback" not in done.stderr and "parser.c" not in done.stderr
