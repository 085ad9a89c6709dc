"""What a program says to arguments that it cannot use, before it starts."""

import subprocess
import sys

import pytest

START = "from heatnet_ros.ros.{} import main; main()"


def start(module, *arguments):
    command = [sys.executable, "-c", START.format(module), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["node", "monitor", "synthetic_camera"])
def test_an_argument_outside_of_ros_args_is_no_parameter(module):
    done = start(module, "--params-file", __file__)
    assert done.returncode == 1
    assert "unknown argument '--params-file'" in done.stderr
    assert f"--ros-args --params-file {__file__}" in done.stderr  # the remedy, to be copied


def test_a_missing_parameter_file_is_named():
    done = start("node", "--ros-args", "--params-file", "nothere.yaml")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "'nothere.yaml' not found from" in done.stderr


def test_what_else_ros_refuses_is_one_line():
    done = start("node", "--ros-args", "-p")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "ROS refuses the arguments" in done.stderr and "/rcl/" not in done.stderr


@pytest.mark.parametrize(
    ("module", "parameter"), [("monitor", "report_file"), ("synthetic_camera", "rate_hz")]
)
def test_the_help_lists_the_parameters(module, parameter):
    done = start(module, "--help")
    assert done.returncode == 0 and f"  {parameter} " in done.stdout
