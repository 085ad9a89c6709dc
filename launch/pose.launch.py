"""pose_node for a camera that is running: ``ros2 launch heatnet_ros pose.launch.py``.

The node configures and activates itself (parameter ``autostart``). ``--show-args`` lists the
arguments.
"""

from __future__ import annotations

from typing import NamedTuple

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription


class Preset(NamedTuple):
    """Topics of a camera driver as it starts by default; depth aligned to colour."""

    color: str
    camera_info: str
    depth: str
    rectified: bool = False


PRESETS = {
    "realsense": Preset(
        "/camera/camera/color/image_raw",
        "/camera/camera/color/camera_info",
        "/camera/camera/aligned_depth_to_color/image_raw",
    ),
    "orbbec": Preset(
        "/camera/color/image_raw", "/camera/color/camera_info", "/camera/depth/image_raw"
    ),
    "zed": Preset(
        "/zed/zed_node/rgb/color/rect/image",
        "/zed/zed_node/rgb/color/rect/camera_info",
        "/zed/zed_node/depth/depth_registered",
        rectified=True,
    ),
    "azure_kinect": Preset("/rgb/image_raw", "/rgb/camera_info", "/depth_to_rgb/image_raw"),
}


def declare_arguments() -> list[DeclareLaunchArgument]:
    """Every argument with its meaning."""
    share = FindPackageShare("heatnet_ros")
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "pose_demo.yaml"]),
            description="Parameter file of the node: objects, models, thresholds",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node and its outputs"
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="realsense",
            choices=list(PRESETS),
            description="Whose topic names to listen to",
        ),
        DeclareLaunchArgument(
            "color_topic", default_value="", description="Colour image; empty: the camera's"
        ),
        DeclareLaunchArgument(
            "camera_info_topic", default_value="", description="CameraInfo; empty: the camera's"
        ),
        DeclareLaunchArgument(
            "depth_topic",
            default_value="",
            description="Depth image aligned to colour; empty: the camera's",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="Configure and activate at once; false leaves it to a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", description="Take the time from /clock"
        ),
        DeclareLaunchArgument(
            "use_rviz", default_value="false", description="Show image and poses in RViz"
        ),
    ]


def build_nodes(context: LaunchContext) -> list[Node]:
    """The nodes, once the arguments are known."""

    def value_of(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    preset = PRESETS[value_of("camera")]
    color = value_of("color_topic") or preset.color
    camera_info = value_of("camera_info_topic") or preset.camera_info
    depth = value_of("depth_topic") or preset.depth
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    share = FindPackageShare("heatnet_ros")
    pose_node = Node(
        package="heatnet_ros",
        executable="pose_node",
        name="pose_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {"rectified": preset.rectified},
            ParameterFile(LaunchConfiguration("params_file")),
            {"use_sim_time": use_sim_time, "autostart": autostart},
        ],
        remappings=[
            ("color/image_raw", color),
            ("color/camera_info", camera_info),
            ("depth/image_raw", depth),
        ],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([share, "config", "pose.rviz"])],
        parameters=[{"use_sim_time": use_sim_time}],
        # the names in pose.rviz -> those of this launch
        remappings=[
            ("/pose_node/markers", "pose_node/markers"),
            (PRESETS["realsense"].color, color),
        ],
        condition=IfCondition(LaunchConfiguration("use_rviz")),
    )
    return [pose_node, rviz]


def generate_launch_description() -> LaunchDescription:
    """Arguments, then nodes."""
    return LaunchDescription([*declare_arguments(), OpaqueFunction(function=build_nodes)])
