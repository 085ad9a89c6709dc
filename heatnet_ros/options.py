"""Every option of the config dataclasses by its parameter name (``gate.min_score``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, get_type_hints


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
