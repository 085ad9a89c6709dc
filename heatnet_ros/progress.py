"""Progress of a long command: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR_WIDTH = 24
_LOG_INTERVAL_S = 5.0


class Progress:
    """Counts steps and shows them on ``stream`` (standard error)."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what, self._total = what, total
        self._stream = stream if stream is not None else sys.stderr
        self._done, self._start, self._shown = 0, time.monotonic(), 0.0

    def step(self, note: str = "") -> None:
        """Count one step and show it; ``note`` says what was just done."""
        self._done += 1
        now = time.monotonic()
        last = self._done == self._total
        left_s = (now - self._start) / self._done * (self._total - self._done)
        text = f"{self._what} {self._done}/{self._total}  {left_s:.0f} s left  {note}"
        if self._stream.isatty():
            filled = _BAR_WIDTH * self._done // self._total
            bar = "#" * filled + "." * (_BAR_WIDTH - filled)
            self._stream.write(f"\r[{bar}] {text}\033[K" + ("\n" if last else ""))
        elif last or now - self._shown > _LOG_INTERVAL_S:
            self._stream.write(text + "\n")
            self._shown = now
        self._stream.flush()
