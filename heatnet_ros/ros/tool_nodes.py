"""What the small nodes beside ``pose_node`` share: options from a dataclass, the DDS profile."""

from __future__ import annotations

import os
from typing import TypeVar

from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from heatnet_ros.config import build_config
from heatnet_ros.errors import ConfigError
from heatnet_ros.options import list_options
from heatnet_ros.resources import find_resource
from heatnet_ros.ros.params import describe

T = TypeVar("T")

# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 the second
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def use_large_frames_profile() -> None:
    """Give this process a shared-memory segment that holds images; call before rclpy.init.

    A profile that the user has set stays.
    """
    if not any(os.environ.get(name) for name in _PROFILE_VARIABLES):
        profile = find_resource("config/fastdds_large_frames.xml", "Fast DDS profile")
        os.environ.update(dict.fromkeys(_PROFILE_VARIABLES, str(profile)))


def declare_options(node: Node, cls: type[T]) -> T:
    """Declare a flat config dataclass as the node's parameters and return the values.

    Raises ConfigError on a value of the wrong type or out of range.
    """
    values = {}
    for name, option in list_options(cls).items():
        try:
            parameter = node.declare_parameter(name, option.field.default, describe(option))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(f"Parameter '{name}' of {node.get_name()}: {error}") from error
        values[name] = parameter.value
    return build_config(cls, values, f"the parameters of {node.get_name()}")
