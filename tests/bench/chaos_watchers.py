"""Watchers of the node's outputs come, go, hang and die in ``chaos.py``."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

from chaos_event import Event
from chaos_process import ROOT, Process

# until such a process has found the node
_START_S = 1.5


class Watcher(Event):
    """``chaos_watcher.py`` for as long as the event lasts; then it is killed: no good-bye."""

    mode = "churn"
    outer = True

    def begin(self) -> None:
        program = str(ROOT / "tests/bench/chaos_watcher.py")
        log = self.world.node_log.with_name("watcher.log")
        seed = str(self.rng.randrange(10**6))
        self._process = Process([program, self.mode, seed], log, pipes=True)
        time.sleep(_START_S)

    def end(self) -> None:
        self._process.kill()
        came = Counter(self._process.popen.stdout.read().split())
        self.world.watched.update(came)
        self.detail = ", ".join(f"{number} {name}" for name, number in sorted(came.items()))


class Watchers(Watcher):
    """Subscribers come and go many times a second, also during the transitions."""

    name = "watchers come and go"


class HungWatcher(Watcher):
    """A program like RViz that stops reading, and is then killed."""

    name = "watcher hangs and dies"
    mode = "stay"

    def begin(self) -> None:
        super().begin()
        os.killpg(self._process.popen.pid, signal.SIGSTOP)
