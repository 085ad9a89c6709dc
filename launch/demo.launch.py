"""The synthetic camera, pose_node and the monitor: ``ros2 launch heatnet_ros demo.launch.py``.

Without ROS tools ``python -m heatnet_ros demo`` does the same, measures and ends by itself.
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

FORWARDED = (
    "params_file",
    "namespace",
    "autostart",
    "respawn",
    "log_level",
    "use_sim_time",
    "use_rviz",
)
BOOLEAN = ["true", "false"]


def declare_arguments() -> list[DeclareLaunchArgument]:
    """Every argument with its meaning."""
    share = FindPackageShare("heatnet_ros")
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "pose_demo.yaml"]),
            description="Parameter file of pose_node",
        ),
        DeclareLaunchArgument(
            "objects_file",
            default_value="config/objects/demo.yaml",
            description="Objects that the camera draws; those that params_file names",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of pose_node and its outputs"
        ),
        DeclareLaunchArgument(
            "rate_hz", default_value="10.0", description="Frames per second of the camera"
        ),
        DeclareLaunchArgument(
            "seed", default_value="0", description="Scenes and noise follow from it"
        ),
        DeclareLaunchArgument(
            "use_monitor",
            default_value="true",
            choices=BOOLEAN,
            description="Print accuracy and latency at the end",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=BOOLEAN,
            description="pose_node configures and activates itself; false leaves it to a "
            "lifecycle manager, and the camera waits until then",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=BOOLEAN,
            description="Start pose_node again when its process ends",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Of pose_node's own messages",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=BOOLEAN,
            description="pose_node and RViz take the time from /clock (the camera never does)",
        ),
        DeclareLaunchArgument(
            "use_rviz",
            default_value="true",
            choices=BOOLEAN,
            description="Show image, cloud and poses in RViz",
        ),
    ]


def build_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Camera and monitor, once the arguments are known."""
    namespace = LaunchConfiguration("namespace").perform(context).strip("/")
    objects_file = ParameterValue(LaunchConfiguration("objects_file"), value_type=str)
    camera = Node(
        package="heatnet_ros",
        executable="synthetic_camera",
        name="synthetic_camera",
        parameters=[
            {
                "objects_file": objects_file,
                "rate_hz": ParameterValue(LaunchConfiguration("rate_hz"), value_type=float),
                "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
            }
        ],
        output="screen",
    )
    monitor = Node(
        package="heatnet_ros",
        executable="monitor",
        name="monitor",
        parameters=[
            {
                "objects_file": objects_file,
                "pose_node": f"/{namespace}/pose_node" if namespace else "/pose_node",
            }
        ],
        output="screen",
        condition=IfCondition(LaunchConfiguration("use_monitor")),
    )
    return [camera, monitor]


def generate_launch_description() -> LaunchDescription:
    """pose.launch.py with the camera and the monitor around it."""
    share = FindPackageShare("heatnet_ros")
    pose = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "pose.launch.py"])),
        launch_arguments={
            "camera": "synthetic",
            **{name: LaunchConfiguration(name) for name in FORWARDED},
        }.items(),
    )
    return LaunchDescription([*declare_arguments(), pose, OpaqueFunction(function=build_nodes)])
