"""What the demo asks for before it starts anything."""

import importlib.util

import pytest

from heatnet_ros.errors import ConfigError
from heatnet_ros.ros import demo


@pytest.fixture
def hide(monkeypatch):
    """Returns a function that makes all needed packages appear installed but the one named."""

    def install_all_but(hidden):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == hidden else object()
        )

    return install_all_but


def test_a_sourced_ros_has_no_package_of_the_middleware(hide, monkeypatch):
    """rmw_fastrtps_cpp is a Python package only in the wheels."""
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    hide("rmw_fastrtps_cpp")
    demo._check_installed()


def test_without_a_sourced_ros_the_wheel_of_the_middleware_is_needed(hide, monkeypatch):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    hide("rmw_fastrtps_cpp")
    with pytest.raises(ConfigError, match=r"'rmw_fastrtps_cpp'.*make demo.*source.*\[ros\]"):
        demo._check_installed()


@pytest.mark.parametrize("distro", ["jazzy", None])
@pytest.mark.parametrize("module", ["rclpy", "visualization_msgs", "diagnostic_msgs", "moderngl"])
def test_the_rest_is_always_needed(hide, monkeypatch, distro, module):
    monkeypatch.setenv("ROS_DISTRO", distro or "")
    hide(module)
    with pytest.raises(ConfigError, match=f"'{module}'"):
        demo._check_installed()


def test_the_children_use_the_middleware_that_was_checked(monkeypatch):
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert demo._environment()["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"
    assert demo._environment()["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
