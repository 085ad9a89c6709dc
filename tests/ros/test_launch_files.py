"""The launch files, run by ROS's own launch: processes, names, parameters, poses, respawn, the end.

``launch`` and ``launch_ros`` are not on PyPI (PyPI's ``launch`` is another program): a ROS
installation has them, or the repositories ros2/launch, ros2/launch_ros (branch jazzy) and
osrf/osrf_pycommon on PYTHONPATH, with composition_interfaces built.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import rclpy
import yaml
from child_environment import child_environment
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters

from heatnet_ros.ros.cameras import CAMERAS

ROOT = Path(__file__).resolve().parents[2]
FILES = ("launch/pose.launch.py", "launch/demo.launch.py", "examples/realsense.launch.py")
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = LaunchService(argv=sys.argv[2:])
given = [word.split(":=", 1) for word in sys.argv[2:]]
source = AnyLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])
)
sys.exit(service.run())
"""
SHOW_ARGUMENTS = """
import json, sys
from launch.launch_description_sources import get_launch_description_from_any_launch_file
description = get_launch_description_from_any_launch_file(sys.argv[1])
print(json.dumps([
    {"name": a.name, "what": a.description, "choices": a.choices,
     "default": a.default_value is not None}
    for a in description.get_launch_arguments()
]))
"""
# what RViz would be started with, and a process that waits as it would
STAND_IN = """#!{python}
import json, sys, time
from pathlib import Path
Path({file!r}).write_text(json.dumps(sys.argv[1:]))
time.sleep(600)
"""
# a driver that publishes what a RealSense would, if it is asked for aligned depth
DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
NAMES = ("align_depth.enable", "enable_sync", "log_level", "camera_name")

def build(context):
    given = {n: LaunchConfiguration(n).perform(context) for n in NAMES}
    assert given["align_depth.enable"] == given["enable_sync"] == "true", given
    assert given["log_level"] == "warn", given
    return [Node(package="heatnet_ros", executable="synthetic_camera", name="camera")]

def generate_launch_description():
    defaults = dict.fromkeys(NAMES, "false") | {"log_level": "warn", "camera_name": "camera"}
    declared = [
        DeclareLaunchArgument(n, default_value=v, description="An option of the driver")
        for n, v in defaults.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=build)])
"""

pytestmark = pytest.mark.skipif(
    find_spec("launch_ros") is None,
    reason="launch and launch_ros are not installed and not on PyPI: source a ROS 2 installation",
)
needs_renderer = pytest.mark.skipif(
    find_spec("moderngl") is None, reason="moderngl is not installed: pip install .[render]"
)


def install(prefix: Path, package: str, **folders: Path) -> Path:
    """Enter a package into the index of ``prefix``; its share has links to ``folders``."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True, exist_ok=True)
    (index / package).touch()
    share = prefix / "share" / package
    share.mkdir()
    for name, folder in folders.items():
        (share / name).symlink_to(folder)
    (prefix / "lib" / package).mkdir(parents=True)
    return share


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def prefix(tmp_path):
    """The source tree laid out as colcon installs it; RViz and a driver are stand-ins."""
    prefix = tmp_path / "prefix"
    folders = {name: ROOT / name for name in ("config", "examples", "launch", "models")}
    install(prefix, "heatnet_ros", **folders)
    scripts = ConfigParser()
    scripts.read(ROOT / "setup.cfg")
    for line in scripts["options.entry_points"]["console_scripts"].strip().splitlines():
        name, module, function = re.split(r"\s*[=:]\s*", line)
        program = f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        write_program(prefix / "lib" / "heatnet_ros" / name, f"{program}sys.exit({function}())\n")
    install(prefix, "rviz2")
    stand_in = STAND_IN.format(python=sys.executable, file=str(tmp_path / "rviz.json"))
    write_program(prefix / "lib" / "rviz2" / "rviz2", stand_in)
    driver = install(prefix, "realsense2_camera")
    (driver / "launch").mkdir()
    (driver / "launch" / "rs_launch.py").write_text(DRIVER)
    return prefix


class Launch:
    """A launch file that runs in a process of its own."""

    def __init__(self, prefix: Path, file: str, **arguments: str) -> None:
        self.log = prefix.parent / f"launch_{len(list(prefix.parent.glob('*.log')))}.log"
        words = [f"{name}:={value}" for name, value in arguments.items()]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(ROOT / file), *words],
                env=environment(prefix), cwd=prefix.parent, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, condition, what, timeout_s=90.0):
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None, f"the launch ended: {self.text()}"
            assert time.monotonic() < deadline, f"waited in vain: {what}. {self.text()}"
            time.sleep(0.05)
        return found

    def pids(self, program: str) -> list[int]:
        """Of the living processes of an installed program."""
        place = str(self.log.parent / "prefix" / "lib" / "heatnet_ros" / program)
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if place in (process / "cmdline").read_text().split("\0"):
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def stop(self) -> int:
        """Ctrl-C, as a terminal sends it: to launch and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.fixture
def launch(prefix):
    running = []

    def start(file, **arguments):
        running.append(Launch(prefix, file, **arguments))
        return running[-1]

    yield start
    for launched in running:
        launched.stop()
    for launched in running:
        assert not any(launched.pids(p) for p in ("pose_node", "synthetic_camera", "monitor"))


def environment(prefix: Path) -> dict[str, str]:
    prefixes = [str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")]
    return child_environment(
        AMENT_PREFIX_PATH=os.pathsep.join(filter(None, prefixes)), PYTHONUNBUFFERED="1"
    )


class Observer:
    """A node that looks at the graph and asks services."""

    def __init__(self):
        self.node = rclpy.create_node("observer")

    def spin_until(self, condition, launched, what, timeout_s=90.0):
        def check():
            rclpy.spin_once(self.node, timeout_sec=0.05)
            return condition()

        return launched.wait_for(check, what, timeout_s)

    def call(self, kind, service, request, launched):
        """Asked again until it answers: DDS loses replies to clients not discovered yet."""
        client = self.node.create_client(kind, service)
        self.spin_until(client.service_is_ready, launched, f"{service} is there")
        for _ in range(10):
            future = client.call_async(request)
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=3.0)
            if future.done():
                return future.result()
        raise AssertionError(f"{service} does not answer. {launched.text()}")

    def state(self, node, launched):
        reply = self.call(GetState, f"{node}/get_state", GetState.Request(), launched)
        return reply.current_state.label

    def wait_until_active(self, node, launched):
        def active():
            return self.state(node, launched) == "active"

        launched.wait_for(active, f"{node} is active")

    def parameters(self, node, launched, *names):
        request = GetParameters.Request(names=names)
        reply = self.call(GetParameters, f"{node}/get_parameters", request, launched)
        return dict(zip(names, reply.values, strict=True))

    def subscriptions(self, name, namespace):
        return dict(self.node.get_subscriber_names_and_types_by_node(name, namespace))


@pytest.fixture
def observer(ros):
    observer = Observer()
    yield observer
    observer.node.destroy_node()


@pytest.mark.parametrize("file", FILES)
def test_every_argument_is_explained(file, prefix):
    done = subprocess.run(
        [sys.executable, "-c", SHOW_ARGUMENTS, str(ROOT / file)],
        env=environment(prefix), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    arguments = {entry["name"]: entry for entry in json.loads(done.stdout)}
    for name, entry in arguments.items():
        assert entry["default"], f"{name} has no default: it would have to be given"
        assert len(entry["what"]) > 15 and entry["what"] != "no description given", name
    if file.startswith("launch"):
        assert {
            *("params_file", "namespace", "autostart", "respawn", "log_level", "use_sim_time"),
            "use_rviz",
        } <= set(arguments)
    if file.endswith("pose.launch.py"):
        assert set(arguments["camera"]["choices"]) == set(CAMERAS)


def test_ros2_launch_shows_the_arguments(prefix):
    if find_spec("ros2launch") is None:
        pytest.skip("ros2launch is not installed and not on PyPI: source a ROS 2 installation")
    from ros2launch.api.api import print_arguments_of_launch_file  # noqa: F401

    code = (
        "import sys; from ros2launch.api.api import print_arguments_of_launch_file as show; "
        "show(launch_file_path=sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "launch" / "pose.launch.py")],
        env=environment(prefix), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("'camera':", "'respawn':", "'camera_prefix':"):
        assert name in done.stdout
    assert "no description given" not in done.stdout


@needs_renderer
def test_demo_gives_poses_and_ends_cleanly(launch, observer):
    launched = launch("launch/demo.launch.py", use_rviz="false", rate_hz="5.0")
    poses = []
    for name in ("bracket", "connector", "mug", "pulley", "valve"):
        observer.node.create_subscription(PoseStamped, f"/pose_node/pose/{name}", poses.append, 50)
    observer.spin_until(lambda: len(poses) >= 5, launched, "five poses")
    assert poses[0].header.frame_id == CAMERAS["synthetic"].frame_id
    assert launched.stop() == 0, launched.text()
    assert "Traceback" not in launched.text()
    assert re.search(r"recall|objects?", launched.text()), "the monitor's table is missing"


def test_namespace_topics_parameters_and_autostart(launch, observer, tmp_path):
    params = tmp_path / "params.yaml"
    config = yaml.safe_load((ROOT / "config" / "pose_demo.yaml").read_text())
    config["/**"]["ros__parameters"]["gate"] = {"min_score": 0.4}
    params.write_text(yaml.safe_dump(config))
    launched = launch(
        "launch/pose.launch.py", namespace="left", camera="zed", camera_prefix="/zed_left/zed_node",
        depth_topic="/somewhere/depth", params_file=str(params), autostart="false",
        use_sim_time="true",
    )  # fmt: skip
    assert observer.state("/left/pose_node", launched) == "unconfigured"
    values = observer.parameters(
        "/left/pose_node", launched, "gate.min_score", "rectified", "use_sim_time", "autostart"
    )
    assert values["gate.min_score"].double_value == 0.4
    assert values["rectified"].bool_value, "a ZED's images are rectified"
    assert values["use_sim_time"].bool_value and not values["autostart"].bool_value
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    for transition in ("configure", "activate"):
        request = ChangeState.Request(transition=Transition(label=transition))
        client = observer.node.create_client(ChangeState, "/left/pose_node/change_state")
        observer.spin_until(client.service_is_ready, launched, "change_state is there")
        future = client.call_async(request)
        observer.spin_until(future.done, launched, transition)
        assert future.result().success, launched.text()
    topics = observer.spin_until(
        lambda: (
            (found := observer.subscriptions("pose_node", "/left"))
            and "/somewhere/depth" in found
            and found
        ),
        launched,
        "the node's subscriptions",
    )
    camera = CAMERAS["zed"].topics("/zed_left/zed_node")
    assert {camera["color/image_raw"], camera["color/camera_info"]} <= set(topics)
    assert observer.node.count_publishers("/left/pose_node/markers") == 1


def test_log_level_quiets_the_node(launch, observer):
    launched = launch("launch/pose.launch.py", camera="synthetic", log_level="error")
    observer.wait_until_active("/pose_node", launched)
    assert "[INFO] [" not in launched.text().replace("[INFO] [launch]", "").replace(
        "[INFO] [pose_node-1]", ""
    )


def test_respawn_brings_a_killed_node_back(launch, observer):
    launched = launch(
        "launch/pose.launch.py", camera="synthetic", respawn="true", respawn_delay_s="0.5"
    )
    (first,) = launched.wait_for(lambda: launched.pids("pose_node"), "the node runs")
    observer.wait_until_active("/pose_node", launched)
    os.kill(first, signal.SIGKILL)
    launched.wait_for(
        lambda: [pid for pid in launched.pids("pose_node") if pid != first], "a new process"
    )
    launched.wait_for(lambda: launched.text().count("Configured in") == 2, "configured again")


def test_without_respawn_it_stays_away(launch):
    launched = launch("launch/pose.launch.py", camera="synthetic")
    (first,) = launched.wait_for(lambda: launched.pids("pose_node"), "the node runs")
    os.kill(first, signal.SIGKILL)
    launched.process.wait(30)  # nothing is left to run
    assert not launched.pids("pose_node")


def test_rviz_gets_the_names_of_this_launch(launch, tmp_path):
    launched = launch(
        "launch/pose.launch.py", camera="kinect", namespace="cell/left", use_rviz="true"
    )
    file = tmp_path / "rviz.json"
    launched.wait_for(lambda: file.exists() and file.read_text(), "RViz is started")
    arguments = json.loads(file.read_text())
    camera = CAMERAS["kinect"]
    assert arguments[arguments.index("--fixed-frame") + 1] == camera.frame_id
    assert arguments[arguments.index("-d") + 1].endswith("config/pose.rviz")
    remaps = dict(word.split(":=") for word in arguments if ":=/" in word or ":=pose_node" in word)
    realsense = CAMERAS["realsense"].topics()
    for relative, topic in camera.topics().items():
        assert remaps[realsense[relative]] == topic
    assert (
        remaps["/camera/camera/aligned_depth_to_color/camera_info"] == "/depth_to_rgb/camera_info"
    )
    assert remaps["/pose_node/markers"] == "pose_node/markers"
    assert remaps["/pose_node/pose_with_covariance/mug"] == "pose_node/pose_with_covariance/mug"
    assert "__ns:=/cell/left" in arguments


def test_a_wrong_argument_is_refused_with_a_line(launch):
    launched = launch("launch/pose.launch.py", camera="webcam")
    assert launched.process.wait(60) != 0
    assert "webcam" in launched.text() and "realsense" in launched.text()


def test_a_missing_params_file_is_named_with_where_it_was_sought(launch, prefix):
    launched = launch("launch/pose.launch.py", params_file="config/nowhere.yaml")
    assert launched.process.wait(60) != 0
    assert "Parameter file 'config/nowhere.yaml' not found" in launched.text()
    assert str(prefix / "share" / "heatnet_ros") in launched.text()


@needs_renderer
def test_it_composes_with_the_launch_of_a_camera(launch, observer):
    launched = launch("examples/realsense.launch.py")
    poses = []
    for name in ("bracket", "connector", "mug", "pulley", "valve"):
        observer.node.create_subscription(PoseStamped, f"/pose_node/pose/{name}", poses.append, 50)
    observer.spin_until(lambda: poses, launched, "a pose")
    profile = "FASTRTPS_DEFAULT_PROFILES_FILE="
    (camera,) = launched.pids("synthetic_camera")
    variables = Path(f"/proc/{camera}/environ").read_text().split("\0")
    assert any(v.startswith(profile) and v.endswith("large_frames.xml") for v in variables)
    (node,) = launched.pids("pose_node")
    variables = Path(f"/proc/{node}/environ").read_text().split("\0")
    assert not any(v.startswith(profile) for v in variables), "meant for the camera alone"


def test_two_cameras_by_namespace(launch, observer):
    started = [
        launch(
            "launch/pose.launch.py", camera="realsense", namespace=side,
            camera_prefix=f"/{side}/{side}",
        )
        for side in ("left", "right")
    ]  # fmt: skip
    for side, launched in zip(("left", "right"), started, strict=True):
        observer.wait_until_active(f"/{side}/pose_node", launched)
        topics = observer.subscriptions("pose_node", f"/{side}")
        assert f"/{side}/{side}/aligned_depth_to_color/image_raw" in topics
