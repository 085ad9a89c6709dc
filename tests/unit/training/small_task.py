"""A training that takes milliseconds a step: batch norm, dropout and augmentation included.

``python small_task.py OUT KEY=VALUE ...`` runs it as a process of its own, to be killed.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from heatnet_ros.training import loop
from heatnet_ros.training.run_config import RunConfig

SIZE = 60


@dataclass(frozen=True)
class SmallConfig(RunConfig):
    samples: int = 640
    batch: int = 16
    tensorboard: bool = False
    precision: str = "fp32"
    workers: int = 0
    score_s: float = 1e9
    hidden: int = 24
    noise: float = 0.05
    plain: bool = False  # neither batch norm nor dropout: the same for any number of processes
    pause_s: float = 0.0
    spoil_at: int = 0  # from this sample on the loss is no number


def build_net(config: SmallConfig) -> nn.Module:
    torch.manual_seed(config.seed)
    middle = [] if config.plain else [nn.BatchNorm1d(config.hidden), nn.Dropout(0.2)]
    return nn.Sequential(
        nn.Linear(8, config.hidden), *middle, nn.ReLU(), nn.Linear(config.hidden, 1)
    )


def build_task(config: SmallConfig) -> loop.Task:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SIZE, 8)).astype(np.float32)
    y = np.sin(x.sum(axis=1, keepdims=True)).astype(np.float32)
    net = build_net(config)

    def make_batch(picks, rng, seen):
        time.sleep(config.pause_s)
        noise = config.noise * rng.normal(size=(len(picks), 8)).astype(np.float32)
        spoiled = config.spoil_at and seen >= config.spoil_at
        target = y[picks] * np.float32(np.nan if spoiled else 1)
        return {"x": torch.from_numpy(x[picks] + noise), "y": torch.from_numpy(target)}

    def loss_of(batch):
        return nn.functional.mse_loss(net(batch["x"]).float(), batch["y"])

    def score(count: int):
        with torch.no_grad():
            error = (net.eval()(torch.from_numpy(x)).float() - torch.from_numpy(y)).abs().mean()
        return {"error": round(float(error), 4)}

    return loop.Task(
        net=net, make_batch=make_batch, size=SIZE, loss_of=loss_of, score=score,
        state={"network": {"hidden": config.hidden}},
    )  # fmt: skip


def train(out: Path, **changes) -> dict:
    """The state of final.pt."""
    config = SmallConfig(**changes)
    loop.run(build_task(config), config, out)
    return torch.load(out / "final.pt", weights_only=True)


if __name__ == "__main__":
    pairs = (argument.split("=") for argument in sys.argv[2:])
    train(Path(sys.argv[1]), **{key: float(v) if "." in v else int(v) for key, v in pairs})
