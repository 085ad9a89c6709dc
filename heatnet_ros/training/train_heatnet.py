"""Train HeatNet on rendered crops.

``python -m heatnet_ros.training.train_heatnet --config config/train/demo_heatnet.yaml --out
runs/demo_heatnet``. Interrupted at any moment, the same command continues from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatnet_ros.objects import load_objects
from heatnet_ros.training import loop
from heatnet_ros.training.crops import AugmentConfig, CropBatches, load_crops
from heatnet_ros.training.evaluate_heatnet import evaluate_crops, summarize
from heatnet_ros.training.heatnet import PRESETS, HeatNet, HeatNetConfig, heatmap_loss, normalize

CLIP = 5.0


@dataclass(frozen=True)
class TrainConfig:
    """One training run. samples: crops seen in all. init: a checkpoint to start from, or ''."""

    objects_file: str = ""
    data: str = ""
    preset: str = "lite"
    rgbd: bool = True
    width: int = 0
    samples: int = 200_000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    margin: float = 1.3
    validation_shards: int = 2
    init: str = ""
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def build_network(config: TrainConfig) -> HeatNet:
    """The network of a run, from its preset and its object library."""
    library = load_objects(Path(config.objects_file))
    keypoints = len(next(iter(library.objects.values())).keypoints_m)
    shape = dict(PRESETS[config.preset])
    if config.width:
        shape["width"] = config.width
    net_config = HeatNetConfig(len(library.objects), keypoints, rgbd=config.rgbd, **shape)
    torch.manual_seed(config.seed)
    return HeatNet(net_config).to(memory_format=torch.channels_last)


def learning_rate_at(progress: float, config: TrainConfig) -> float:
    """OneCycle: linear warm-up, then a cosine to zero; progress 0..1."""
    if progress < config.warmup:
        return config.learning_rate * (0.05 + 0.95 * progress / config.warmup)
    rest = (progress - config.warmup) / (1 - config.warmup)
    return float(config.learning_rate * 0.5 * (1 + np.cos(np.pi * min(rest, 1.0))))


def build_task(config: TrainConfig) -> loop.Task:
    """Network, data, loss and schedule of a run."""
    library = load_objects(Path(config.objects_file))
    diameters = [model.diameter_m for model in library.objects.values()]
    net = build_network(config)
    held_out = load_crops(Path(config.data), 0, config.validation_shards)
    crops = load_crops(Path(config.data), config.validation_shards, None)
    print(f"{len(crops['object'])} crops, {len(held_out['object'])} held out", flush=True)

    def batches(seed: int) -> Iterable[Any]:
        stream = CropBatches(
            crops, diameters, config.batch, net.config.crop_px, config.margin, config.augment,
            config.rgbd, seed,
        )  # fmt: skip
        return torch.utils.data.DataLoader(
            stream, batch_size=None, num_workers=1, prefetch_factor=4
        )

    def loss_of(batch: Any) -> torch.Tensor:
        rgb, depth, keypoints, index = batch
        image = normalize(rgb).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image, depth.contiguous(memory_format=torch.channels_last), index)
        return heatmap_loss(logits.float(), keypoints, net.config)

    return loop.Task(
        net=net,
        batches=batches,
        loss_of=loss_of,
        rate_at=lambda progress: learning_rate_at(progress, config),
        score=lambda limit: summarize(evaluate_crops(net, held_out, library, config.margin, limit)),
        state={"network": dataclasses.asdict(net.config)},
        clip=CLIP,
    )


def train(config: TrainConfig, out: Path) -> None:
    """Run or continue a training in the folder ``out``."""
    loop.run(build_task(config), config, out)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    train(*loop.read_command(__doc__, TrainConfig, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
