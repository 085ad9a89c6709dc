"""What is wrong at the moment: one clear message a problem, throttled in the log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

REPEAT_S = 5.0
_MAX_KINDS = 256


class Source(StrEnum):
    """Where a problem comes from. Each source has at most one present problem."""

    CONFIGURATION = "configuration"
    QOS = "qos"
    LOSS = "loss"
    COLOR = "color"
    CAMERA_INFO = "camera_info"
    DEPTH = "depth"
    SYNC = "sync"
    SLOP = "slop"
    STAMPS = "stamps"
    INPUT = "input"
    CHECKS = "checks"
    PIPELINE = "pipeline"


@dataclass(frozen=True)
class Problem:
    """A message and when (monotonic seconds) it was last reported; whether the log has it."""

    message: str
    time_s: float
    logged: bool


class Problems:
    """Collects problems from all threads and logs each message at most every ``REPEAT_S``.

    Messages that differ only in their numbers are the same message, except for configuration
    errors: each answers to a change that somebody made.
    """

    def __init__(
        self,
        log_error: Callable[[str], object],
        log_info: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_error, self._log_info, self._clock = log_error, log_info, clock
        self._lock = threading.Lock()
        self._present: dict[Source, Problem] = {}
        self._logged_s: dict[str, float] = {}
        self.last: Problem | None = None

    def report(self, source: Source, message: str) -> None:
        """A problem is there (still, or again)."""
        now = self._clock()
        folded = source is not Source.CONFIGURATION
        kind = re.sub(r"\d+", "#", message) if folded else message
        with self._lock:
            log = now - self._logged_s.get(kind, -REPEAT_S) >= REPEAT_S
            if log:
                self._logged_s[kind] = now
                self._forget_old(now)
            known = self._present.get(source)
            logged = log or (known is not None and known.logged)
            self.last = self._present[source] = Problem(message, now, logged)
        if log:
            self._log_error(message)

    def _forget_old(self, now: float) -> None:
        """Messages quote what cameras send: there is no end of them."""
        if len(self._logged_s) > _MAX_KINDS:
            recent = {kind: s for kind, s in self._logged_s.items() if now - s < REPEAT_S}
            self._logged_s = dict(list(recent.items())[-_MAX_KINDS:])

    def clear(self, source: Source) -> None:
        """The problem, if there was one, is over."""
        with self._lock:
            problem = self._present.pop(source, None)
        if problem is not None and problem.logged:  # else good and bad frames flood the log
            self._log_info(f"Solved ({source}): {problem.message.split('. ')[0]}")  # no remedy

    def forget(self) -> None:
        """Drop all problems without a word: the node starts anew, and may say the same again."""
        with self._lock:
            self._present.clear()
            self._logged_s.clear()

    @property
    def present(self) -> dict[Source, Problem]:
        """The problems of this moment."""
        with self._lock:
            return dict(self._present)

    def seconds_since(self, problem: Problem) -> float:
        """Age of a problem's last report."""
        return self._clock() - problem.time_s
