"""Every option of the config dataclasses by its parameter name (``gate.min_score``)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable
from typing import Any, get_type_hints

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides")


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of the config dataclasses: its parameter name, its field and its type."""

    name: str
    field: dataclasses.Field[Any]
    kind: type


def list_options(*classes: type) -> dict[str, Option]:
    """Every option of the (nested) dataclasses by parameter name (``gate.min_score``)."""
    return {option.name: option for cls in classes for option in _walk(cls, "")}


def _walk(cls: type, prefix: str) -> Iterable[Option]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _walk(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield Option(f"{prefix}{field.name}", field, kind)


def hint_at(name: str, known: Collection[str]) -> str:
    """What an unknown name may mean: the nearest known one, else all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."


def is_of_ros(parameter: str) -> bool:
    """Whether rcl and rclpy declare it themselves."""
    return parameter.split(".")[0] in _OF_ROS
