"""The launch files: read as text everywhere, built where ROS has `launch` (PyPI's is another)."""

import ast
import configparser
import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
PROMISED = {"namespace", "params_file", "use_sim_time", "use_rviz"}


def calls(path: Path, name: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == name]


def declared(path: Path) -> set[str]:
    return {call.args[0].value for call in calls(path, "DeclareLaunchArgument")}


def test_both_launch_files_are_there():
    assert [path.name for path in FILES] == ["demo.launch.py", "pose.launch.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_argument_has_a_default_and_a_description(path):
    assert declared(path) >= PROMISED
    for call in calls(path, "DeclareLaunchArgument"):
        keywords = {keyword.arg for keyword in call.keywords}
        assert {"default_value", "description"} <= keywords, call.args[0].value


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_only_declared_arguments_are_used(path):
    used = {
        call.args[0].value
        for name in ("LaunchConfiguration", "value_of")
        for call in calls(path, name)
        if isinstance(call.args[0], ast.Constant)
    }
    assert used and used <= declared(path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_no_process_is_started_by_hand(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported <= {"__future__", "typing", "launch", "launch_ros"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_executables_are_entry_points(path):
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg")
    scripts = {
        line.split("=")[0].strip()
        for line in cfg["options.entry_points"]["console_scripts"].splitlines()[1:]
    }
    for call in calls(path, "Node"):
        keywords = {k.arg: k.value for k in call.keywords}
        if keywords["package"].value == "heatnet_ros":
            assert keywords["executable"].value in scripts


def test_the_demo_forwards_only_what_the_node_declares():
    tree = ast.parse((ROOT / "launch" / "demo.launch.py").read_text())
    forwarded = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "FORWARDED"
    )
    assert set(forwarded) <= declared(ROOT / "launch" / "pose.launch.py")
    assert set(forwarded) >= PROMISED


def test_rviz_shows_what_the_node_publishes():
    content = yaml.safe_load((ROOT / "config" / "pose.rviz").read_text())["Visualization Manager"]
    topics = {d["Topic"]["Value"] for d in content["Displays"] if "Topic" in d}
    assert topics == {"/pose_node/markers", "/camera/camera/color/image_raw"}


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch and launch_ros come with a ROS installation; they are not on PyPI",
)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_description_is_built(path):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(path))
    assert {a.name for a in description.get_launch_arguments()} >= PROMISED
