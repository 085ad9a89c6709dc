"""The node's parameter file, read without ROS: the same file drives the node and ``predict``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatnet_ros.config import PipelineConfig, build_config, load_yaml
from heatnet_ros.errors import ConfigError
from heatnet_ros.ros.node_config import NodeConfig

# sections that reach pose_node, the later one wins; other sections are those of other nodes
_SECTIONS = ("/**", "/**/pose_node", "pose_node", "/pose_node")
# parameters that rclpy declares itself
_ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides")


def load_params(path: Path) -> PipelineConfig:
    """The pipeline's part of a parameter file, see ``load_all_params``."""
    return load_all_params(path)[1]


def load_all_params(path: Path) -> tuple[NodeConfig, PipelineConfig]:
    """Read a ROS parameter file (``/**: ros__parameters: ...``); rclpy's own options are left out.

    Raises ConfigError on any other unknown key, a wrong type or a value out of range.
    """
    content = load_yaml(path, "Parameter file")
    values: dict[str, Any] = {}
    sections = [name for name in _SECTIONS if name in content]
    if not sections:
        raise ConfigError(
            f"Parameter file {path}: expected a section '/**' or 'pose_node' with "
            f"'ros__parameters', got {', '.join(map(str, content)) or 'nothing'}. "
            "Compare with config/pose_demo.yaml."
        )
    for name in sections:
        section = content[name]
        parameters = section.get("ros__parameters") if isinstance(section, Mapping) else None
        if not isinstance(parameters, Mapping):
            raise ConfigError(
                f"Parameter file {path}, section '{name}': expected a mapping 'ros__parameters'."
            )
        values |= _flatten(parameters)
    values = {
        name: value for name, value in values.items() if name.split(".")[0] not in _ROS_PARAMETERS
    }
    node_names = {field.name for field in dataclasses.fields(NodeConfig)}
    node_values = {name: values.pop(name) for name in list(values) if name in node_names}
    if isinstance(node_values.get("use_depth"), bool):  # `use_depth: true` is a bool to YAML
        node_values["use_depth"] = str(node_values["use_depth"]).lower()
    node = build_config(NodeConfig, node_values, str(path))
    return node, build_config(PipelineConfig, _nest(values, path), str(path))


def _flatten(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{a: {b: 1}}`` and ``{a.b: 1}`` are the same parameter to ROS: ``a.b``."""
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nest(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
            if not isinstance(level, dict):
                raise ConfigError(f"'{group}' in {path} is given both as a value and as a group.")
        level[leaf] = value
    return nested
