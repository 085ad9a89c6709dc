"""What numbers were made on: processor, memory, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resident_memory_mb() -> float:
    """Resident memory of this process, or 0 where the system does not tell (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def total_memory_gb() -> float:
    """Memory of the machine, or 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (OSError, ValueError):
        return 0.0


def count_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_commit(folder: Path | None = None) -> str:
    """``git describe`` of the checkout that a folder is in (the current one), or ``unknown``."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def describe_package() -> str:
    """The commit of this package's own checkout, or ``unknown`` where it is installed."""
    return describe_commit(_PACKAGE)
