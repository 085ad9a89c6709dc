"""Config dataclasses <-> ROS parameters: names by dots, description and range from the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from heatnet_ros.config import PipelineConfig, build_config, check_option
from heatnet_ros.errors import ConfigError
from heatnet_ros.options import Option, hint_at, is_of_ros, list_options
from heatnet_ros.ros.node_config import NodeConfig

T = TypeVar("T")


def describe(option: Option) -> ParameterDescriptor:
    """Descriptor with description, choices and range, as ``ros2 param describe`` shows it."""
    metadata = option.field.metadata
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    descriptor = ParameterDescriptor(
        description=metadata["description"],
        additional_constraints=f"one of: {', '.join(choices)}" if choices else "",
        # `use_depth: true` is a bool to YAML and to `ros2 param set`; it is stored as text. And an
        # empty list has no type to ROS
        dynamic_typing="true" in choices or option.kind == tuple[str, ...],
    )
    if low is not None and high is not None:
        if option.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
    return descriptor


class NodeParameters:
    """The node's parameters: declared from ``NodeConfig`` and ``PipelineConfig``, then read back.

    The node must have been built with ``automatically_declare_parameters_from_overrides``: a bad
    value in a parameter file must not stop the node from starting. It is remembered in ``errors``
    (parameter name -> message), and the default is declared in its place until somebody sets it.
    ``warnings`` names the parameters that nobody declared.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.options = list_options(NodeConfig, PipelineConfig)
        self.errors: dict[str, str] = {}
        given = {name: p.value for name, p in node.get_parameters_by_prefix("").items()}
        for option in self.options.values():
            self._declare(option, given)
        # no error: a file for `/**` may hold parameters of other nodes
        self.warnings = [
            self._unknown(name)
            for name in given
            if name not in self.options and not is_of_ros(name)
        ]

    def _declare(self, option: Option, given: Mapping[str, Any]) -> None:
        value = option.field.default
        if option.name in given:
            self._node.undeclare_parameter(option.name)
            try:
                value = self.check(option.name, given[option.name])
            except ConfigError as error:
                self.errors[option.name] = f"{error} Correct the parameter file or set it."
        self._node.declare_parameter(option.name, value, describe(option), ignore_override=True)

    def _unknown(self, name: str) -> str:
        return f"Unknown parameter '{name}'. {hint_at(name, self.options)} It is ignored."

    def check(self, name: str, value: Any) -> Any:
        """Return ``value`` as the option's type. Raises ConfigError."""
        option = self.options[name]
        if option.kind is str and isinstance(value, bool):
            value = str(value).lower()
        return check_option(option.field, option.kind, value, f"parameter '{name}'")

    def raise_errors(self) -> None:
        """Raise ConfigError with everything that is wrong with the parameters, if anything is."""
        if self.errors:
            raise ConfigError(" ".join(self.errors.values()))

    def read(self) -> tuple[NodeConfig, PipelineConfig]:
        """The present configuration."""
        values = {
            name: self.check(name, self._node.get_parameter(name).value) for name in self.options
        }
        return _build(NodeConfig, values), _build(PipelineConfig, values)

    def check_changes(self, parameters: list[Parameter], configured: bool) -> SetParametersResult:
        """Whether a set request is allowed. While ``configured``, only live options may change."""
        for parameter in parameters:
            option = self.options.get(parameter.name)
            if option is None:
                continue
            try:
                self.check(option.name, parameter.value)
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if configured and not option.field.metadata["live"]:
                name = self._node.get_fully_qualified_name()
                reason = (
                    f"Parameter '{option.name}' is used while configuring and cannot change in "
                    f"this state. Run: ros2 lifecycle set {name} deactivate (if active), then "
                    "cleanup, set the parameter, configure, activate."
                )
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def note_changes(self, parameters: list[Parameter]) -> bool:
        """Call it when values were set: their errors are over. Whether any is one of ours."""
        names = [p.name for p in parameters if p.name in self.options]
        for name in names:
            self.errors.pop(name, None)
        return bool(names)


def _build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Nest dotted names and build the dataclass."""
    nested: dict[str, Any] = {}
    for name in list_options(cls):
        *groups, leaf = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[leaf] = values[name]
    return build_config(cls, nested, "the node's parameters")
