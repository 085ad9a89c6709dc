"""A process of ``chaos.py`` that can be killed, and what it holds at a moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from heatnet_ros.ros.child import _die_with_parent

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A Python program in a process group of its own, which dies with this one."""

    def __init__(self, command: list[str], log_file: Path, pipes: bool = False) -> None:
        pipe = subprocess.PIPE if pipes else None
        with log_file.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, *command],
                stdin=pipe or subprocess.DEVNULL, stdout=pipe or log, stderr=log, cwd=ROOT,
                start_new_session=True, preexec_fn=_die_with_parent, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self.alive:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def group(self) -> list[int]:
        """The processes of its group that are there."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.popen.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found


@dataclass(frozen=True)
class Sample:
    """The node at one moment: MB resident, of which its own, and threads."""

    time_s: float
    rss_mb: float
    anonymous_mb: float
    threads: int


def sample(pid: int) -> Sample | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    values = dict(re.findall(r"(\w+):\s+(\d+)", text))
    if "VmRSS" not in values:
        return None
    rss, own = (int(values[name]) * 1024 / 1e6 for name in ("VmRSS", "RssAnon"))
    return Sample(time.monotonic(), round(rss, 1), round(own, 1), int(values["Threads"]))
