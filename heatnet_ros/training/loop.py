"""The training loop, from top to bottom, for every network: resume, steps, checkpoints, scores."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from heatnet_ros.config import build_config, load_yaml

CHECKPOINT_EVERY_S = 150
SAY_EVERY_STEPS = 20

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Task:
    """What differs between networks.

    batches: given a seed, an endless stream. loss_of: batch -> scalar, called under no autocast.
    rate_at: progress 0..1 -> learning rate. score: number of held-out samples, 0 for all -> text.
    state: entries of the checkpoint that describe the network.
    """

    net: torch.nn.Module
    batches: Callable[[int], Iterable[Any]]
    loss_of: Callable[[Any], torch.Tensor]
    rate_at: Callable[[float], float]
    score: Callable[[int], str]
    state: dict[str, Any]
    clip: float


def run(task: Task, config: Any, out: Path) -> None:
    """Train or continue; writes ``checkpoint.pt`` every few minutes and at the end ``final.pt``.

    config: has samples, batch, learning_rate, weight_decay, init and seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    net, checkpoint = task.net, out / "checkpoint.pt"
    optimizer = torch.optim.AdamW(
        net.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    seen = _resume(net, optimizer, checkpoint)
    if not seen and config.init:
        start_from(net, config.init)
    started_s, started_at, saved_s = time.monotonic(), seen, time.monotonic()
    losses: list[float] = []
    net.train()
    for batch in task.batches(config.seed + seen):
        if seen >= config.samples:
            break
        for group in optimizer.param_groups:
            group["lr"] = task.rate_at(seen / config.samples)
        loss = task.loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), task.clip)
        optimizer.step()
        seen += config.batch
        losses.append(loss.item())
        if len(losses) % SAY_EVERY_STEPS == 0 or seen >= config.samples:
            rate = (seen - started_at) / (time.monotonic() - started_s)
            minutes = max(config.samples - seen, 0) / rate / 60
            said = f"{seen}/{config.samples}  loss {np.mean(losses[-50:]):.4f}"
            print(f"{said}  {rate:.0f} samples/s  {minutes:.0f} min left", flush=True)
        if time.monotonic() - saved_s > CHECKPOINT_EVERY_S:
            _save(checkpoint, task, config, seen, optimizer)
            print(f"  held out: {task.score(256)}", flush=True)
            saved_s = time.monotonic()
    _save(checkpoint, task, config, seen, optimizer)
    _save(out / "final.pt", task, config, seen)
    print(f"held out: {task.score(0)}", flush=True)


def _provenance() -> dict[str, str]:
    """The command that trains and the commit of the code."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else Path(sys.argv[0]).name
    return {"command": " ".join([program, *sys.argv[1:]]), "commit": describe_commit()}


def describe_commit() -> str:
    """``git describe`` of the working tree, or ``unknown``."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _resume(net: torch.nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Samples seen by the checkpoint that was loaded, 0 without one."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"continuing after {state['seen']} samples", flush=True)
    return int(state["seen"])


def start_from(net: torch.nn.Module, path: str) -> None:
    """Copy every weight whose name and shape fit (the head never does for other objects)."""
    source = torch.load(path, map_location="cpu", weights_only=True)["net"]
    own = net.state_dict()
    fitting = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(fitting, strict=False)
    print(f"started from {path}: {len(fitting)} of {len(own)} tensors fit", flush=True)


def _save(
    path: Path,
    task: Task,
    config: Any,
    seen: int,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    state = {"net": task.net.state_dict(), "seen": seen, "config": dataclasses.asdict(config)}
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    part = path.with_suffix(".part")
    torch.save(state | task.state | _provenance(), part)
    os.replace(part, path)


def read_command(
    description: str | None, kind: type[Config], arguments: list[str] | None
) -> tuple[Config, Path]:
    """Command line of a training: its config and the folder of the run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help=f"YAML: {kind.__name__}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--samples", type=int, help="samples in all, instead of the file's")
    args = parser.parse_args(arguments)
    config = build_config(kind, load_yaml(args.config, "Training file"), str(args.config))
    if args.samples:
        config = dataclasses.replace(config, samples=args.samples)  # type: ignore[type-var]
    return config, args.out
