"""Where a run computes: the device, and the processes that ``torchrun`` started."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from heatnet_ros.errors import ConfigError

# the others wait while the first process scores and writes
_PATIENCE = timedelta(hours=2)
_KEEP, _NO_MAPPING = (-1, 2**31 - 1), (-4, 0)  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX


@dataclass(frozen=True)
class Place:
    """One process among ``world`` ones; ``rank`` 0 alone writes and speaks."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared.item())

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.world > 1:
            distributed.barrier()


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` -> this process's device. Raises ConfigError without one."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= found:
        raise ConfigError(
            f"device: {name} needs {local + 1} CUDA GPU(s) for process {local}, found {found}. "
            "Use device: cpu, a torch with CUDA, or a smaller --nproc_per_node."
        )
    return torch.device("cuda", local)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Precision of a run -> type for autocast, or None for float32. Raises ConfigError."""
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if _gpu_computes_bf16(device) else torch.float16
        return torch.bfloat16 if _cpu_computes_bf16() else None
    if name == "fp16" and device.type != "cuda":
        raise ConfigError("precision: fp16 needs a CUDA GPU; use bf16, fp32 or auto on the CPU.")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _gpu_computes_bf16(device: torch.device) -> bool:
    """Whether the instructions are there: NVIDIA's from Ampere (8.0) on, and AMD's.

    ``torch.cuda.is_bf16_supported`` says yes to older GPUs as well, which emulate it slowly.
    """
    return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8


def _cpu_computes_bf16() -> bool:
    """Whether the instructions are there (x86: AMX or AVX512; ARM: bf16); emulated it is slower."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@contextmanager
def joined(device_name: str) -> Iterator[Place]:
    """Join the processes of ``torchrun``, or be alone; an open group is used and left open."""
    device = choose_device(device_name)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Place(device)
        return
    opened = not distributed.is_initialized()
    if opened:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Place(device, distributed.get_rank(), world)
    finally:
        if opened:
            distributed.destroy_process_group()


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning them to the kernel after every layer.

    Fresh pages have to be cleared: a tenth of a step on the CPU. Elsewhere nothing happens.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        for option_, value in (_KEEP, _NO_MAPPING):
            ctypes.CDLL(None).mallopt(option_, value)
