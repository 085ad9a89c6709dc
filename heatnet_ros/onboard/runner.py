"""Run steps as processes: logs, progress, and an end in which nothing is left running."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from heatnet_ros.errors import DataError, HeatnetError

# says in a process's environment to which onboarding it belongs
MARK = "HEATNET_ROS_ONBOARD"
_POLL_S = 0.2
_LOG_INTERVAL_S = 30.0
NOTE_EVERY_S = 20.0
_PATIENCE_S = 8.0
_PR_SET_PDEATHSIG = 1
_PACKAGE = Path(__file__).resolve().parents[2]


class StepError(HeatnetError):
    """A step ended with an error; the message is the step's own, with the way to its log."""


@dataclass(frozen=True)
class Job:
    """One process. arguments: after ``python -m``. env: beside this process's own."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """The command line as a user would type it."""
        threads = [f"{key}={value}" for key, value in self.env.items()]
        return " ".join([*threads, "python", "-m", shlex.join(self.arguments)])


class Status:
    """One line that says where the work is: rewritten on a terminal, now and then in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._shown_s, self._open = 0.0, False

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        print(text, flush=True)

    def show(self, text: str) -> None:
        """What is going on now."""
        now = time.monotonic()
        if self._stream.isatty():
            width = os.get_terminal_size(self._stream.fileno()).columns - 1
            self._stream.write(f"\r{text[:width]}\033[K")
            self._open = True
        elif now - self._shown_s >= _LOG_INTERVAL_S:
            self._stream.write(text + "\n")
            self._shown_s = now
        self._stream.flush()

    def _clear(self) -> None:
        if self._open:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._open = False


def run_jobs(
    jobs: Sequence[Job],
    run_folder: Path,
    status: Status,
    left: str = "",
    note: Callable[[], None] = lambda: None,
) -> list[float]:
    """Run processes side by side until all are done; returns the seconds of each.

    left: what to say about the rest of the work. note: called now and then, for what a kill of
    this process must not lose. When one fails, or this process is interrupted,
    the others are stopped. Raises StepError with the last words of the step.
    """
    started_s = noted_s = time.monotonic()
    children: list[subprocess.Popen[bytes]] = []
    seconds = [0.0] * len(jobs)
    try:
        for job in jobs:
            children.append(_start(job, run_folder))
        running = set(range(len(jobs)))
        while running:
            for i in sorted(running):
                code = children[i].poll()
                if code is None:
                    continue
                seconds[i] = time.monotonic() - started_s
                running.discard(i)
                # workers may outlive the process that started them
                _signal_group(children[i].pid, signal.SIGKILL)
                if code:
                    raise StepError(_describe_failure(jobs[i], code))
            if running:
                told = [f"{jobs[i].name}: {last_line(jobs[i].log)}" for i in sorted(running)]
                status.show(" | ".join([*told, left] if left else told))
                if time.monotonic() - noted_s >= NOTE_EVERY_S:
                    note()
                    noted_s = time.monotonic()
                time.sleep(_POLL_S)
    finally:
        stop(children)
    return seconds


def _start(job: Job, run_folder: Path) -> subprocess.Popen[bytes]:
    paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        MARK: str(run_folder.resolve()),
        **job.env,
    }
    try:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            log.write(f"$ {job.shown()}\n".encode())
            log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                # a group of its own: Ctrl-C reaches this process alone, which then stops them all
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
    except OSError as error:
        raise DataError(
            f"Step '{job.name}' cannot be started: {error}. Make room for {job.log} and run the "
            "same command again."
        ) from error


def _end_with_parent() -> None:
    """In the child: ask the kernel for SIGTERM when the parent dies, even by kill -9."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and all that they started: first politely, then for sure."""
    living = [child for child in children if child.poll() is None]
    for child in living:
        _signal_group(child.pid, signal.SIGINT)
    limit_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < limit_s and any(child.poll() is None for child in living):
        time.sleep(_POLL_S)
    for child in living:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def stop_leftovers(run_folder: Path) -> int:
    """End what a killed onboarding of this folder left running; returns how many processes.

    Only to be called while the folder is locked. Does nothing where there is no /proc.
    """
    wanted = f"{MARK}={run_folder.resolve()}".encode()
    found = [pid for pid, environment in _list_environments() if wanted in environment.split(b"\0")]
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    limit_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < limit_s and any(_is_alive(pid) for pid in found):
        time.sleep(_POLL_S)
    return len(found)


def _list_environments() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        if pid != os.getpid():
            # another user's process, or one that just ended
            with contextlib.suppress(OSError):
                yield pid, path.read_bytes()


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def last_line(log: Path) -> str:
    """The newest line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            text = file.read().decode(errors="replace")
    except OSError:
        return "starting"
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return "starting" if not lines or lines[-1].startswith("$ ") else lines[-1]


def _describe_failure(job: Job, code: int) -> str:
    text = job.log.read_text(errors="replace") if job.log.exists() else ""
    # the last run's, without its command line
    own = f"\n{text}".rpartition("\n$ ")[2].partition("\n")[2]
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    words = errors[-1].removeprefix("error: ") if errors else " / ".join(lines[-2:])
    words = f"{words or 'it said nothing'}".rstrip(".")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    return (
        f"Step '{job.name}' {how}: {words}. All it said is in {job.log}. When the cause is "
        "removed, the same command continues with this step."
    )
