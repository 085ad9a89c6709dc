"""A ROS node in a process of its own, which never outlives its parent."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatnet_ros.errors import EngineError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_STOP_LIMIT_S = 5.0
_TAIL_LINES = 15


class Child:
    """Starts ``module.main`` as a context manager; leaving it ends the process, surely."""

    def __init__(
        self,
        name: str,
        module: str,
        ros_args: Sequence[str],
        log_file: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._log_file = log_file
        code = f"import sys; from {module} import main; sys.exit(main())"
        self._command = [sys.executable, "-c", code, "--ros-args", *ros_args]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C must reach the parent alone, which then ends its children in order
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(_STOP_LIMIT_S)

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Raise EngineError with the end of the log if the process ended with a failure."""
        if self._process is not None and self._process.poll() not in (None, 0):
            raise EngineError(f"The {self.name} failed.\n{self.describe_log()}")

    def stop(self, limit_s: float) -> None:
        """Ask the process to end; kill it when it has not after ``limit_s``."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def peak_memory_mb(self) -> float:
        """Largest resident memory so far; 0 where the system does not tell (not Linux)."""
        return self._memory_mb("VmHWM")

    def memory_mb(self) -> float:
        """Resident memory now; 0 where the system does not tell."""
        return self._memory_mb("VmRSS")

    def _memory_mb(self, field: str) -> float:
        if self._process is None:
            return 0.0
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0.0
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        return round(int(found.group(1)) * 1024 / 1e6, 1) if found else 0.0

    def describe_log(self) -> str:
        """The last lines of the log, for an error message."""
        lines = self._log_file.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        text = "\n".join(f"  {line}" for line in lines) or "  (empty)"
        return f"End of {self._log_file}:\n{text}"


def _die_with_parent() -> None:
    """Runs in the child: if the parent is killed outright, the kernel ends the child."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
