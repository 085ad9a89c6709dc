"""A RealSense and pose_node in one launch: ``ros2 launch heatnet_ros realsense.launch.py``.

Copy it for your robot. What it shows: each included file in a group of its own (both have
arguments with the same names, ``log_level``), the driver's options that the node needs, and the
Fast DDS profile without which a camera's large images get lost (docs/cameras.md).
"""

from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    SetEnvironmentVariable,
)
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def include(package: str, *path: str, **arguments: object) -> IncludeLaunchDescription:
    """Another package's launch file, with these arguments."""
    return IncludeLaunchDescription(
        PathJoinSubstitution([FindPackageShare(package), *path]),
        launch_arguments=arguments.items(),
    )


def generate_launch_description() -> LaunchDescription:
    """The driver, then the node."""
    profile = PathJoinSubstitution(
        [FindPackageShare("heatnet_ros"), "config", "fastdds_large_frames.xml"]
    )
    # read by Fast DDS 2 (Jazzy) and 3 (Kilted and newer)
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    set_profile = [SetEnvironmentVariable(name, profile) for name in names]
    camera = include(
        "realsense2_camera", "launch", "rs_launch.py",
        **{"align_depth.enable": "true", "enable_sync": "true"},
    )  # fmt: skip
    pose = include(
        "heatnet_ros", "launch", "pose.launch.py",
        camera="realsense",
        respawn="true",
        params_file=LaunchConfiguration("params_file"),
        use_rviz=LaunchConfiguration("use_rviz"),
    )  # fmt: skip
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value="config/pose_demo.yaml",
                description="Parameter file of pose_node",
            ),
            DeclareLaunchArgument(
                "use_rviz", default_value="false", description="Show image, cloud and poses"
            ),
            # neither arguments nor environment get out of a group
            GroupAction([*set_profile, camera]),
            GroupAction([pose]),
        ]
    )
