"""pose_node for a camera that is running: ``ros2 launch heatnet_ros pose.launch.py``.

The node configures and activates itself (argument ``autostart``). ``--show-args`` lists the
arguments. ``examples/realsense.launch.py`` includes this file beside a camera's own.
"""

from __future__ import annotations

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from heatnet_ros.config import load_yaml
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.cameras import CAMERAS
from launch import LaunchContext, LaunchDescription

BOOLEAN = ["true", "false"]
LEVELS = ["debug", "info", "warn", "error", "fatal"]
# as pose.rviz names the camera's topics
RVIZ_CAMERA = CAMERAS["realsense"].topics()


def declare_arguments() -> list[DeclareLaunchArgument]:
    """Every argument with its meaning."""
    share = FindPackageShare("heatnet_ros")
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "pose_demo.yaml"]),
            description="Parameter file of the node: objects, models, thresholds. A relative path "
            "is looked for in the current folder, $HEATNET_ROS_SHARE and the installed package",
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="realsense",
            choices=list(CAMERAS),
            description="Whose topic names to listen to (docs/cameras.md: how to start each); "
            "kinect is azure_kinect, synthetic what demo.launch.py starts",
        ),
        DeclareLaunchArgument(
            "camera_prefix",
            default_value="",
            description="What the camera's topics begin with, for one that has another name than "
            "its driver's default: /left/left for a RealSense called left; empty: the preset's",
        ),
        DeclareLaunchArgument(
            "color_topic",
            default_value="",
            description="Colour image (with the parameter color_transport: compressed, the topic "
            "without /compressed); empty: the camera's",
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="",
            description="CameraInfo of the colour image; empty: the camera's",
        ),
        DeclareLaunchArgument(
            "depth_topic",
            default_value="",
            description="Depth image aligned to colour; empty: the camera's",
        ),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="Namespace of the node and its outputs; one per camera where there are "
            "several",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=BOOLEAN,
            description="Configure and activate at once; false leaves it to a lifecycle manager. "
            "Stands over what params_file says",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=BOOLEAN,
            description="Start the node again when its process ends, unless the launch ends",
        ),
        DeclareLaunchArgument(
            "respawn_delay_s",
            default_value="2.0",
            description="Seconds from its end to its next start, with respawn",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=LEVELS,
            description="Of pose_node's own messages, not of ROS below it",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=BOOLEAN,
            description="Take the time from /clock, for simulations and bags. Stands over what "
            "params_file says",
        ),
        DeclareLaunchArgument(
            "use_rviz",
            default_value="false",
            choices=BOOLEAN,
            description="Show image, cloud and poses in RViz",
        ),
        DeclareLaunchArgument(
            "rviz_config",
            default_value=PathJoinSubstitution([share, "config", "pose.rviz"]),
            description="What RViz shows. Topics of pose_node and of a RealSense in it are "
            "replaced by those of this launch",
        ),
        DeclareLaunchArgument(
            "rviz_frame",
            default_value="",
            description="Fixed frame of RViz; empty: the frame of the camera's colour images "
            "under its default name",
        ),
    ]


def build_nodes(context: LaunchContext) -> list[Node]:
    """The nodes, once the arguments are known. Raises ConfigError for a file that is not there."""

    def value_of(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    camera = CAMERAS[value_of("camera")]
    topics = camera.topics(value_of("camera_prefix"))
    for relative, argument in zip(
        topics, ("color_topic", "camera_info_topic", "depth_topic"), strict=True
    ):
        topics[relative] = value_of(argument) or topics[relative]
    namespace = value_of("namespace").rstrip("/")
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    params_file = find_resource(value_of("params_file"), "Parameter file")
    pose_node = Node(
        package="heatnet_ros",
        executable="pose_node",
        name="pose_node",
        namespace=namespace,
        parameters=[
            {"rectified": camera.rectified},
            ParameterFile(str(params_file)),
            {"use_sim_time": use_sim_time, "autostart": autostart},
        ],
        remappings=list(topics.items()),
        ros_arguments=[
            "--log-level",
            f"{name_logger(context, namespace)}:={value_of('log_level')}",
        ],
        respawn=value_of("respawn") == "true",
        respawn_delay=float(value_of("respawn_delay_s")),
        output="screen",
    )
    rviz_config = find_resource(value_of("rviz_config"), "RViz configuration")
    frame_id = value_of("rviz_frame") or camera.frame_id
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", str(rviz_config), "--fixed-frame", frame_id],
        parameters=[{"use_sim_time": use_sim_time}],
        remappings=remap_rviz(rviz_config, topics),
        condition=IfCondition(LaunchConfiguration("use_rviz")),
    )
    return [pose_node, rviz]


def name_logger(context: LaunchContext, namespace: str) -> str:
    """The node's logger, below what the including launch file pushed (PushRosNamespace)."""
    pushed = context.launch_configurations.get("ros_namespace", "")
    full = namespace if namespace.startswith("/") else f"{pushed}/{namespace}"
    return ".".join([*filter(None, full.split("/")), "pose_node"])


def remap_rviz(config: Path, topics: dict[str, str]) -> list[tuple[str, str]]:
    """Names in RViz's configuration -> those of this launch.

    RViz's file knows the node without a namespace and a RealSense. The depth cloud takes the
    CameraInfo that stands beside the depth image.
    """
    ours = {name: topics[relative] for relative, name in RVIZ_CAMERA.items()}
    depth = RVIZ_CAMERA["depth/image_raw"]
    ours[_info_beside(depth)] = _info_beside(topics["depth/image_raw"])
    displays = load_yaml(config, "RViz configuration")["Visualization Manager"]["Displays"]
    outputs = sorted(t for t in _strings(displays) if t.startswith("/pose_node/"))
    # relative: they follow the namespace
    return [(name, to) for name, to in ours.items() if name != to] + [(t, t[1:]) for t in outputs]


def _info_beside(image_topic: str) -> str:
    return image_topic.rsplit("/", 1)[0] + "/camera_info"


def _strings(value: object) -> set[str]:
    """Every text in a tree of lists and mappings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {text for part in value for text in _strings(part)}
    return {value} if isinstance(value, str) else set()


def generate_launch_description() -> LaunchDescription:
    """Arguments, then nodes."""
    return LaunchDescription([*declare_arguments(), OpaqueFunction(function=build_nodes)])
