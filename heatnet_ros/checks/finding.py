"""One result of a check: one line that says what, on what evidence, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from heatnet_ros.errors import HeatnetError

_MARKS = ("ok     ", "warning", "error  ")


class Level(IntEnum):
    """How bad it is; the worst of all findings is the doctor's exit status."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """what: topic, file, network or package. evidence: expected and got, without a full stop.

    remedy: whole sentences; empty where nothing is to be done.
    """

    level: Level
    what: str
    evidence: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """``what: evidence. Remedy.``"""
        return " ".join(f"{self.what}: {self.evidence}. {self.remedy}".split())

    @property
    def line(self) -> str:
        """``level  what: evidence. Remedy.``"""
        return f"{_MARKS[self.level]}  {self.text}"

    def to_json(self) -> dict[str, Any]:
        """All parts; the level by its name."""
        return asdict(self) | {"level": self.level.name.lower()}


def ok(what: str, evidence: str) -> Finding:
    """Nothing is wrong, and this was measured."""
    return Finding(Level.OK, what, evidence)


def warning(what: str, evidence: str, remedy: str) -> Finding:
    """Poses come, but worse or fewer than they could."""
    return Finding(Level.WARNING, what, evidence, remedy)


def error(what: str, evidence: str, remedy: str) -> Finding:
    """No pose comes, or a wrong one, until this is mended."""
    return Finding(Level.ERROR, what, evidence, remedy)


def from_error(fault: HeatnetError | str, what: str = "") -> Finding:
    """An error's message as a finding: its first sentence is the evidence, the rest the remedy.

    ``what`` is taken from before its first colon where it is not given.
    """
    text = " ".join(str(fault).split())
    # a number or a path may hold full stops: only one before a capital letter ends the sentence
    first, *rest = re.split(r"(?<=[.?]) (?=[A-Z])", text, maxsplit=1)
    if not what:
        what, separator, after = first.partition(": ")
        first, what = (after, what) if separator else (first, "heatnet_ros")
    return error(what, first.rstrip("."), rest[0] if rest else "")


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level; OK of nothing."""
    return max((finding.level for finding in findings), default=Level.OK)
