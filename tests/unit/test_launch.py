"""The launch files: read as text, run over the least of `launch`, and, where ROS has it, the real.

PyPI's `launch` is another package.
"""

import ast
import configparser
import importlib.util
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from heatnet_ros.ros.cameras import CAMERAS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
PROMISED = {
    *("namespace", "params_file", "use_sim_time", "use_rviz", "autostart", "respawn", "log_level"),
}


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
    assert imported <= {"__future__", "pathlib", "launch", "launch_ros", "heatnet_ros"}


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


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch and launch_ros come with a ROS installation; they are not on PyPI",
)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_description_is_built(path):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(path))
    assert {a.name for a in description.get_launch_arguments()} >= PROMISED


class Recorded:
    """Any class of launch: keeps what it was built from."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.args, self.keywords = args, keywords


class Context(dict[str, str]):
    """The values of the launch arguments; ``launch_configurations`` is what was pushed."""

    launch_configurations: dict[str, str]


class LaunchConfiguration(Recorded):
    """The value of a launch argument."""

    def perform(self, context: Context) -> str:
        return context[self.args[0]]


@pytest.fixture
def load(monkeypatch):
    """Returns a function that imports a launch file over the least of launch and launch_ros."""
    names = {
        "launch": ("LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"),
        "launch.actions": ("DeclareLaunchArgument", "IncludeLaunchDescription", "OpaqueFunction"),
        "launch.conditions": ("IfCondition",),
        "launch.launch_description_sources": ("PythonLaunchDescriptionSource",),
        "launch.substitutions": ("PathJoinSubstitution",),
        "launch_ros": (),
        "launch_ros.actions": ("Node",),
        "launch_ros.parameter_descriptions": ("ParameterFile", "ParameterValue"),
        "launch_ros.substitutions": ("FindPackageShare",),
    }
    for module_name, classes in names.items():
        module = types.ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    sys.modules["launch.substitutions"].LaunchConfiguration = LaunchConfiguration

    def build(name: str, pushed: str = "", **given: str) -> tuple[list[Any], list[Any]]:
        """Everything in the description, and the nodes for the ``given`` arguments."""
        module = runpy.run_path(str(ROOT / "launch" / name))
        entities = module["generate_launch_description"]().args[0]
        kinds = [type(entity).__name__ for entity in entities]
        arguments = [e for e, k in zip(entities, kinds, strict=True) if k.startswith("Declare")]
        context = Context({a.args[0]: in_share(a.keywords["default_value"]) for a in arguments})
        context.launch_configurations = {"ros_namespace": pushed}
        assert set(given) <= set(context)
        opaque = entities[kinds.index("OpaqueFunction")]
        context.update(given)
        return entities, opaque.keywords["function"](context)

    return build


def in_share(value: Any) -> str:
    """A default value as text: PathJoinSubstitution([FindPackageShare(...), ...]) or the text."""
    return str(ROOT.joinpath(*value.args[0][1:])) if isinstance(value, Recorded) else value


def plain(value: Any) -> Any:
    """Recorded objects as (class, argument)."""
    return (type(value).__name__, plain(value.args[0])) if isinstance(value, Recorded) else value


def test_every_preset_can_be_chosen(load):
    entities, _ = load("pose.launch.py")
    camera = next(e for e in entities if e.args[0] == "camera")
    assert set(camera.keywords["choices"]) == set(CAMERAS)
    assert camera.keywords["default_value"] in CAMERAS


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_node_gets_the_topics_of_the_camera(load, camera):
    _, (node, rviz) = load("pose.launch.py", camera=camera)
    assert node.keywords["package"] == "heatnet_ros" and node.keywords["name"] == "pose_node"
    topics = CAMERAS[camera].topics()
    assert node.keywords["remappings"] == list(topics.items())
    preset, params_file, arguments = node.keywords["parameters"]
    # the file comes after the preset and may correct it, the arguments come last
    assert preset == {"rectified": camera == "zed"}
    assert plain(params_file) == ("ParameterFile", str(ROOT / "config" / "pose_demo.yaml"))
    assert set(arguments) == {"use_sim_time", "autostart"}
    for name, value in arguments.items():
        assert plain(value) == ("ParameterValue", ("LaunchConfiguration", name))
        assert value.keywords == {"value_type": bool}
    shown = dict(rviz.keywords["remappings"])
    for relative, name in CAMERAS["realsense"].topics().items():
        assert shown.get(name, name) == topics[relative]
    assert shown["/pose_node/markers"] == "pose_node/markers"


@pytest.mark.parametrize(
    ("pushed", "namespace", "logger"),
    [
        ("", "", "pose_node"),
        ("", "cell/left/", "cell.left.pose_node"),
        ("/robot", "left", "robot.left.pose_node"),
        ("/robot", "/left", "left.pose_node"),
    ],
)
def test_log_level_is_that_of_the_node_s_own_logger(load, pushed, namespace, logger):
    _, nodes = load("pose.launch.py", pushed=pushed, namespace=namespace, log_level="debug")
    assert nodes[0].keywords["ros_arguments"] == ["--log-level", f"{logger}:=debug"]
    assert {node.keywords["namespace"] for node in nodes} == {namespace.rstrip("/")}


def test_respawn_is_off_unless_asked_for(load):
    _, (node, _) = load("pose.launch.py")
    assert node.keywords["respawn"] is False
    _, (node, _) = load("pose.launch.py", respawn="true", respawn_delay_s="0.5")
    assert node.keywords["respawn"] is True and node.keywords["respawn_delay"] == 0.5


def test_single_topics_replace_those_of_the_camera(load):
    given = {"color_topic": "/a", "camera_info_topic": "/b", "depth_topic": "/c"}
    _, (node, _) = load("pose.launch.py", camera="zed", **given)
    assert [topic for _, topic in node.keywords["remappings"]] == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    ("namespace", "pose_node"),
    [("", "/pose_node"), ("robot", "/robot/pose_node"), ("/robot/", "/robot/pose_node")],
)
def test_the_demo_starts_camera_and_monitor_of_the_node(load, namespace, pose_node):
    entities, (camera, monitor) = load("demo.launch.py", namespace=namespace)
    assert camera.keywords["executable"] == "synthetic_camera"
    assert monitor.keywords["parameters"][0]["pose_node"] == pose_node
    types_of = {k: v.keywords["value_type"] for k, v in camera.keywords["parameters"][0].items()}
    assert types_of == {"objects_file": str, "rate_hz": float, "seed": int}
    included = next(e for e in entities if type(e).__name__ == "IncludeLaunchDescription")
    forwarded = {k: plain(v) for k, v in included.keywords["launch_arguments"]}
    assert forwarded.pop("camera") == "synthetic"
    assert forwarded == {name: ("LaunchConfiguration", name) for name in forwarded}
    assert set(forwarded) >= PROMISED
