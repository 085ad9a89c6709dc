"""The node's parameter file, read without ROS: the same file drives the node and ``predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heatnet_ros.config import PipelineConfig, build_config, load_yaml
from heatnet_ros.errors import ConfigError
from heatnet_ros.options import hint_at, is_of_ros, list_options
from heatnet_ros.ros.node_config import NodeConfig

# sections that reach pose_node, the later one wins; other sections are those of other nodes
_SECTIONS = ("/**", "/**/pose_node", "pose_node", "/pose_node")


def load_params(path: Path) -> PipelineConfig:
    """The pipeline's part of a parameter file, see ``load_all_params``."""
    return load_all_params(path)[1]


def load_all_params(path: Path) -> tuple[NodeConfig, PipelineConfig]:
    """Read a ROS parameter file (``/**: ros__parameters: ...``); rclpy's own options are left out.

    Raises ConfigError on any other unknown key, a wrong type or a value out of range.
    """
    return _build(_read_values(path), path)


def load_known_params(path: Path) -> tuple[NodeConfig, PipelineConfig, dict[str, str]]:
    """``load_all_params`` as the node does it: what it does not know it leaves out.

    A file for ``/**`` may hold parameters of other nodes. Returns these, too: name -> what it may
    mean. Raises ConfigError on a wrong type or a value out of range.
    """
    values, options = _read_values(path), list_options(NodeConfig, PipelineConfig)
    unknown = {name: hint_at(name, options) for name in values if name not in options}
    known = {name: value for name, value in values.items() if name in options}
    return *_build(known, path), unknown


def _read_values(path: Path) -> dict[str, Any]:
    """Parameters of the sections that reach the node, flat, without rclpy's own."""
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
    return {name: value for name, value in values.items() if not is_of_ros(name)}


def _build(values: dict[str, Any], path: Path) -> tuple[NodeConfig, PipelineConfig]:
    node_names = list_options(NodeConfig)
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


def load_qos_overrides(path: Path) -> dict[str, Any]:
    """The parameters ``qos_overrides.<topic>.subscription.<policy>`` of a parameter file."""
    content = load_yaml(path, "Parameter file")
    values: dict[str, Any] = {}
    for name in _SECTIONS:
        values |= _flatten(content.get(name, {}).get("ros__parameters", {}))
    return {key: value for key, value in values.items() if key.startswith("qos_overrides.")}
