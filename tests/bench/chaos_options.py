"""Every parameter of the node with right and wrong values, from the dataclasses it declares.

A new option is therefore stormed, and set back, by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from heatnet_ros.config import PipelineConfig
from heatnet_ros.options import Option, list_options
from heatnet_ros.ros.node_config import NodeConfig

OPTIONS = list_options(NodeConfig, PipelineConfig)
LIVE = [name for name, option in OPTIONS.items() if option.field.metadata["live"]]
TRANSPORTS = {
    name: OPTIONS[name].field.metadata["choices"] for name in ("color_transport", "depth_transport")
}


def flatten(node: NodeConfig, pipeline: PipelineConfig) -> dict[str, Any]:
    """Every option by parameter name, as ROS takes it (a tuple of names is a list)."""
    values = {}
    for name in OPTIONS:
        owner = pipeline if name in list_options(PipelineConfig) else node
        value = reduce(getattr, name.split("."), owner)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def right_values(option: Option, objects: Sequence[str]) -> list[Any]:
    """Values in range, the extremes among them. ``objects``: names in the library."""
    low, high, choices = (option.field.metadata[k] for k in ("low", "high", "choices"))
    if option.kind is bool:
        return [True, False]
    if option.kind in (int, float):
        middle = option.field.default
        return [low, high, middle, option.kind((low + middle) / 2)]
    if option.kind is str:
        return list(choices or [option.field.default])
    return [[], list(objects), *([name] for name in objects), [objects[0], objects[0]]]


def wrong_values(option: Option) -> list[Any]:
    """Of another type, out of range, or not among the choices; None has no type at all."""
    low, high = (option.field.metadata[k] for k in ("low", "high"))
    others: list[Any] = [None, [1, 2], [0.5], [b"\x01"]]
    if option.kind is bool:
        return [*others, 1, "yes"]
    if option.kind in (int, float):
        beyond = [option.kind(low - 1), option.kind(high + 1)]
        return [*others, *beyond, True, "many", float("nan"), float("inf"), -float("inf"), 2**40]
    if option.kind is str:
        return [*others, 3, 0.5] + (
            ["no such choice", ""] if option.field.metadata["choices"] else []
        )
    return [*others, "a name", 3, [""], ["mug", ""]]
