"""Starting a node's program: help and refused arguments."""

import os
import subprocess
import sys

import pytest

PROGRAMS = ("pose_node", "monitor", "synthetic_camera")


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
    done = run("pose_node", "--ros-args", "--params-file", "/no/such.yaml")
    assert done.returncode != 0 and "/no/such.yaml" in done.stderr
    assert "Traceback" not in done.stderr and "parser.c" not in done.stderr


@pytest.mark.parametrize("module", PROGRAMS)
def test_an_argument_outside_of_ros_args_is_refused_with_the_right_command(module):
    done = run(module, "--params-file", __file__)
    assert done.returncode == 1
    assert "unknown argument '--params-file'" in done.stderr
    assert f"--ros-args --params-file {__file__}" in done.stderr
    done = run(module, "parameters.yaml")
    assert "--ros-args --params-file parameters.yaml" in done.stderr


def test_what_else_ros_refuses_is_one_line():
    done = run("pose_node", "--ros-args", "-p")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "ROS refuses the arguments" in done.stderr and "/rcl/" not in done.stderr


@pytest.mark.parametrize(
    ("module", "parameter"), [("monitor", "report_file"), ("synthetic_camera", "rate_hz")]
)
def test_the_help_lists_the_parameters(module, parameter):
    done = run(module, "--help")
    assert done.returncode == 0 and f"  {parameter} " in done.stdout
