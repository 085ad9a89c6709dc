"""The training loop, from top to bottom, for every network: resume, steps, checkpoints, scores.

One process or several (``torchrun``): each sees its own share of every batch, gradients are
averaged, the first process writes. Everything random in a step comes from (seed, step, rank), so a
run that was killed at any moment continues from its checkpoint with exactly the steps that an
unbroken run takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from heatnet_ros.errors import ConfigError
from heatnet_ros.files import make_folder
from heatnet_ros.machine import describe_commit
from heatnet_ros.training.batches import MakeBatch, NumberedBatches, Position, load_batches
from heatnet_ros.training.muon import Muon
from heatnet_ros.training.pretrained import start_from
from heatnet_ros.training.ranks import Place, choose_precision, joined, keep_freed_memory
from heatnet_ros.training.run_config import Config, RunConfig, add_run_arguments, read_config
from heatnet_ros.training.run_log import RunLog
from heatnet_ros.training.schedule import learning_rate_at
from heatnet_ros.training.weights import Average, holds_samples, restore, save

SCORED_ON_THE_WAY = 256


@dataclasses.dataclass(frozen=True)
class Task:
    """What differs between networks.

    net: on any device; the loop moves it. make_batch: (indices of training samples, random
    generator, samples seen before) -> batch, a nest of tensors; it runs in loader processes.
    size: number of training samples. loss_of: batch on the run's device -> scalar; called under
    the run's autocast, so what needs float32 must ask for it. score: number of held-out samples,
    0 for all -> text or names and numbers; called under the run's autocast with the net on the
    run's device. state: entries of the checkpoint that describe the network and the objects that it
    knows; a run continues only where they and its settings are the same.
    rate_at: progress 0..1 -> learning rate, instead of the training file's schedule.
    """

    net: nn.Module
    make_batch: MakeBatch
    size: int
    loss_of: Callable[[Any], torch.Tensor]
    score: Callable[[int], str | Mapping[str, Any]]
    state: dict[str, Any]
    rate_at: Callable[[float], float] | None = None


def run(task: Task, config: RunConfig, out: Path) -> None:
    """Train or continue; writes ``checkpoint.pt`` now and then and at the end ``final.pt``.

    Raises ConfigError, ModelError (weights that don't fit, a loss that is no number) and DataError
    (full disk; the checkpoint before is then whole).
    """
    keep_freed_memory()
    with joined(config.device) as place:
        check_shares(config, place)
        _train(_Run(task, config, out, place))


def check_shares(config: RunConfig, place: Place) -> None:
    """Raise ConfigError where a batch cannot be shared evenly among the processes."""
    if config.batch % place.world:
        raise ConfigError(
            f"batch: expected a multiple of the {place.world} processes, got {config.batch}."
        )


def _train(run: _Run) -> None:
    task, config, checkpoint = run.task, run.config, run.out / "checkpoint.pt"
    rate_at = task.rate_at or (lambda progress: learning_rate_at(progress, config))
    log = RunLog(run.out, run.seen, config.tensorboard) if run.place.first else None
    saved_s = scored_s = time.monotonic()
    done = run.progress()
    for batch in _open_batches(run) if done < 1 else ():
        rate = rate_at(done)
        loss = run.step(batch, rate)
        done = run.progress()
        if log is not None:
            log.step(run.seen, loss, rate, min(done, 1.0), run.spent_s(), last=done >= 1)
            now_s = time.monotonic()
            if done < 1 and now_s - saved_s >= config.checkpoint_s:
                log.check_loss(run.seen)
                run.save(checkpoint)
                saved_s = time.monotonic()
            if done < 1 and now_s - scored_s >= config.score_s:
                log.score(run.seen, run.score(SCORED_ON_THE_WAY))
                scored_s = time.monotonic()
        if done >= 1:
            break
    if log is not None:
        final = run.out / "final.pt"
        # a finished run called again stays as it was, with the command and commit that trained it
        if not holds_samples(final, run.seen):
            run.save(checkpoint)
            run.save(final, resumable=False)
        log.score(run.seen, run.score(0))
        log.close()
    run.place.wait()


class _Run:
    """A network in training: its optimiser, its average, and how far it is."""

    def __init__(self, task: Task, config: RunConfig, out: Path, place: Place) -> None:
        self.task, self.config, self.out, self.place = task, config, out, place
        self.net = task.net.to(place.device)
        self.precision = choose_precision(config.precision, place.device)
        self.optimizer = build_optimizer(self.net, config, self.precision)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.average = Average(self.net, config.ema)
        make_folder(out, "Give the run another --out.")
        self.seen, self.before_s = restore(
            out / "checkpoint.pt", task.state, self.net, self.optimizer, self.scaler, self.average,
            config,
        )  # fmt: skip
        if not self.seen and config.init:
            start_from(self.net, config.init, config.init_depth)
            self.average = Average(self.net, config.ema)
        self.samples = config.count_samples(task.size)
        self.started_s = time.monotonic()
        self.step_loss = _wrap(task, place)
        self.net.train()

    def spent_s(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.before_s + time.monotonic() - self.started_s

    def progress(self) -> float:
        """Part of the run that is done, by samples or by time, whichever is nearer to its end."""
        if not self.config.minutes:
            return self.seen / self.samples
        spent_s = self.place.agree(self.spent_s())
        return max(self.seen / self.samples, spent_s / (60 * self.config.minutes))

    def autocast(self) -> torch.autocast:
        """A context in which the network computes in the run's precision."""
        precision = self.precision
        return torch.autocast(self.place.device.type, precision, enabled=precision is not None)

    def step(self, batch: Any, rate: float) -> torch.Tensor:
        """One optimiser step; returns the detached loss, which is not yet waited for."""
        _seed_step(self.config.seed, self.seen // self.config.batch, self.place.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast():
            loss = self.step_loss(_to_device(batch, self.place.device))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.net)
        self.seen += self.config.batch
        return loss.detach()

    def save(self, path: Path, resumable: bool = True) -> None:
        """Write the weights and, where a run is to continue from them, all it needs for that."""
        entries = {
            "seen": self.seen,
            "seconds": self.spent_s(),
            "config": dataclasses.asdict(self.config),
            **self.task.state,
            **_provenance(),
        }
        optimizing = (self.optimizer, self.scaler) if resumable else None
        save(path, self.net, self.average, entries, optimizing)

    def score(self, count: int) -> str | Mapping[str, Any]:
        """What held-out samples give with the weights that are kept."""
        with self.average.applied(self.net), self.autocast():
            found = self.task.score(count)
        self.net.train()
        return found


def build_optimizer(
    net: nn.Module, config: RunConfig, precision: torch.dtype | None = None
) -> torch.optim.Optimizer:
    """Adam (the paper's Table 1), AdamW, or Muon for convolutions with AdamW for the rest."""
    if config.optimizer == "muon":
        dtype = torch.bfloat16 if precision == torch.bfloat16 else torch.float32
        return Muon(net.parameters(), config.learning_rate, config.weight_decay, dtype)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)


class _Step(nn.Module):
    """Batch -> loss as one module, so that DistributedDataParallel sees the whole step."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.net, self.loss_of = task.net, task.loss_of

    def forward(self, batch: Any) -> torch.Tensor:
        return self.loss_of(batch)


def _wrap(task: Task, place: Place) -> nn.Module:
    step = _Step(task)
    return step if place.world == 1 else DistributedDataParallel(step)


def _open_batches(run: _Run) -> Iterable[Any]:
    task, config, place = run.task, run.config, run.place
    position = Position(run.seen // config.batch, place.rank, place.world)
    stream = NumberedBatches(task.make_batch, task.size, config.batch, config.seed, position)
    return load_batches(stream, config.workers, pin=place.device.type == "cuda")


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Dropout and other noise of a step depend on nothing that came before."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0] >> 1))


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_to_device(value, device) for value in batch)
    return batch


def _provenance() -> dict[str, str]:
    """The command that trains and the commit of the code."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = module.name.removesuffix(".__main__") if module else ""
    program = f"python -m {name}" if name else Path(sys.argv[0]).name
    return {"command": " ".join([program, *sys.argv[1:]]), "commit": describe_commit()}


def read_command(
    description: str | None, kind: type[Config], arguments: list[str] | None
) -> tuple[Config, Path]:
    """Command line of a training: its config and the folder of the run."""
    parser = argparse.ArgumentParser(description=description)
    add_run_arguments(parser)
    args = parser.parse_args(arguments)
    return read_config(args, kind), args.out
