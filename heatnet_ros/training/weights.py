"""Weights of a run: their moving average, and the checkpoint that a run continues from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heatnet_ros.errors import ConfigError
from heatnet_ros.files import not_written, writing_whole
from heatnet_ros.training.checkpoint import load_checkpoint
from heatnet_ros.training.run_config import RunConfig, list_changes
from heatnet_ros.training.trained_objects import check_trained_objects

Optimizing = tuple[torch.optim.Optimizer, torch.amp.GradScaler]

_REMEDY = (
    "What stood there before is whole; make room (three times the network's size) and run the same "
    "command again."
)


class Average:
    """Exponential moving average of a network's weights and batch-norm statistics.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that a short run's average is not
    full of its beginning. Decay 0: off, and every method leaves the network as it is.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {k: v.detach().clone() for k, v in net.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the weights after a step."""
        if not self.decay:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in net.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    @contextmanager
    def applied(self, net: nn.Module) -> Iterator[None]:
        """The network with its averaged weights, for as long as the context lasts."""
        if not self.decay:
            yield
            return
        own = {key: value.detach().clone() for key, value in net.state_dict().items()}
        net.load_state_dict(self.state)
        try:
            yield
        finally:
            net.load_state_dict(own)


def save(
    path: Path,
    net: nn.Module,
    average: Average,
    entries: dict[str, Any],
    optimizing: Optimizing | None = None,
) -> None:
    """Write a checkpoint; it appears whole or not at all.

    ``net`` are the weights to use: the averaged ones where there is an average. With ``optimizing``
    the file holds what a run needs to continue. Raises DataError on a full disk.
    """
    state = {**entries, "net": average.state if average.decay else net.state_dict()}
    if optimizing is not None:
        optimizer, scaler = optimizing
        state |= {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
        if average.decay:
            state |= {"raw_net": net.state_dict(), "average_steps": average.steps}
    try:
        with writing_whole(path, _REMEDY) as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's writer turns a failed write into one
        raise not_written(path, error.__context__ or error, _REMEDY) from error


def restore(
    path: Path,
    description: dict[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Average,
    config: RunConfig,
) -> tuple[int, float]:
    """(samples seen, seconds spent) of the checkpoint that was loaded, zeros without one.

    description: entries that must be the checkpoint's own. Raises ConfigError when the folder holds
    a run of another network or with other settings, ModelError when the file is damaged or the
    network was trained for other objects.
    """
    if not path.exists():
        return 0, 0.0
    state = load_checkpoint(path, ("net", "optimizer", "seen"))
    check_trained_objects(state, description, path, config.objects_file)
    for key, value in description.items():
        if state.get(key) != value:
            raise ConfigError(
                f"{path} is of another network: its '{key}' is {state.get(key)}, this run's is "
                f"{value}. Give another --out, or the training file of that run."
            )
    _check_settings(path, state.get("config", {}), config)
    try:
        net.load_state_dict(state.get("raw_net", state["net"]))
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{path} is of another network: {str(error).splitlines()[0]}. Give another --out, or "
            "the training file of that run."
        ) from error
    if state.get("scaler"):
        scaler.load_state_dict(state["scaler"])
    if average.decay:
        _restore_average(average, state)
    print(f"continuing after {state['seen']} samples", flush=True)
    return int(state["seen"]), float(state.get("seconds", 0.0))


def _check_settings(path: Path, before: Mapping[str, Any], config: RunConfig) -> None:
    """Raise ConfigError where a run would go on with other settings than it began with."""
    changes = list_changes(before, dataclasses.asdict(config))
    if changes:
        raise ConfigError(
            f"{path} is of a run with other settings: {'; '.join(changes)}. Continued, it would be "
            "neither of the two: give another --out, or the old values."
        )


def holds_samples(path: Path, seen: int) -> bool:
    """Whether ``path`` is a checkpoint of a run after ``seen`` samples."""
    return path.exists() and load_checkpoint(path, ("seen",))["seen"] == seen


def _restore_average(average: Average, state: dict[str, Any]) -> None:
    source: dict[str, Tensor] = state["net"]
    for key, value in average.state.items():
        value.copy_(source[key])
    average.steps = int(state.get("average_steps", 0))
