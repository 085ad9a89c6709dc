"""One line that says where a live process stands: renewed in place, or now and then in a log."""

from __future__ import annotations

import time
from typing import TextIO

_BAR_WIDTH = 24
_LOG_INTERVAL_S = 5.0


class StatusLine:
    """Use as a context manager: the line is ended also when an exception ends the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown_s = 0.0
        self._open = False

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def show(self, text: str) -> None:
        """Show the present state."""
        now = time.monotonic()
        if self._terminal:
            self._stream.write(f"\r{text}\033[K")
            self._open = True
        elif now - self._shown_s > _LOG_INTERVAL_S:
            self._stream.write(f"{text}\n")
            self._shown_s = now
        self._stream.flush()

    def show_bar(self, share: float, text: str) -> None:
        """Show a bar filled to ``share`` (0..1) and a text."""
        filled = round(_BAR_WIDTH * min(max(share, 0.0), 1.0))
        self.show(f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {text}")

    def end(self) -> None:
        """Leave the last state standing and begin a new line."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False
