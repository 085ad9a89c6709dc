"""colcon build, and the trap of virtual environments (ros2/ros2#1094): whose Python runs it?"""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("pose_node", "synthetic_camera", "monitor")

pytestmark = pytest.mark.skipif(
    find_spec("colcon_core") is None or find_spec("colcon_ros") is None,
    reason="colcon is not installed: pip install colcon-common-extensions",
)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Builds outside of the source tree, as `.venv/bin/python -m colcon build` does."""
    workspace = tmp_path_factory.mktemp("ws")
    before = source_files()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "colcon", "--log-base", workspace / "log"),
            *("build", "--paths", ROOT, "--event-handlers", "console_direct+"),
            *("--build-base", workspace / "build", "--install-base", workspace / "install"),
        ],
        cwd=workspace,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert source_files() == before, "the build wrote into the source tree"
    return workspace / "install" / "heatnet_ros"


def source_files() -> set[Path]:
    places = [ROOT, ROOT / "heatnet_ros", ROOT / "heatnet_ros" / "ros", ROOT / "launch"]
    return {f for place in places for f in place.iterdir() if f.name != "__pycache__"}


@pytest.fixture(scope="module")
def environment(prefix):
    """What sourcing install/setup.bash sets."""
    command = f". {prefix.parent}/setup.bash >/dev/null && env -0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, text=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_with_the_interpreter_that_ran_colcon(prefix, program):
    path = prefix / "lib" / "heatnet_ros" / program
    assert os.access(path, os.X_OK)
    assert path.read_text().splitlines()[0] == f"#!{sys.executable}"


def test_environment_finds_the_installed_package(prefix, environment, tmp_path):
    code = (
        "import heatnet_ros; from heatnet_ros.resources import find_resource; "
        "print(heatnet_ros.__file__); print(find_resource('config/pose_demo.yaml', 'file')); "
        "print(find_resource('launch/pose.launch.py', 'file'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(prefix), line


def test_package_is_in_the_resource_index(prefix):
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    assert (index / "heatnet_ros").exists()
    assert (prefix / "share" / "heatnet_ros" / "package.xml").exists()


def test_all_that_the_docs_name_is_installed(prefix):
    share = prefix / "share" / "heatnet_ros"
    for folder in ("config", "examples", "launch"):
        sources = {f.name for f in (ROOT / folder).iterdir() if f.is_file()}
        assert sources and {f.name for f in (share / folder).iterdir() if f.is_file()} == sources


def test_installed_pose_node_starts_and_loads_the_installed_networks(prefix, environment, tmp_path):
    params = prefix / "share" / "heatnet_ros" / "config" / "pose_demo.yaml"
    program = prefix / "lib" / "heatnet_ros" / "pose_node"
    log_file = tmp_path / "log"
    with log_file.open("w") as log:
        node = subprocess.Popen(
            [program, "--ros-args", "--params-file", params],
            env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "onfigure" not in log_file.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.1)
        assert "Configured in" in log_file.read_text(), log_file.read_text()
        command = Path(f"/proc/{node.pid}/cmdline").read_bytes().split(b"\0")
        assert command[0].decode() == sys.executable
    finally:
        node.terminate()
        assert node.wait(20) == 0, log_file.read_text()
