"""Train HeatNet on cached crops.

``python -m heatnet_ros train --config config/train/demo_heatnet.yaml --out runs/demo_heatnet``.
Interrupted at any moment, the same command continues from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from heatnet_ros.config import option
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.training import loop
from heatnet_ros.training.augment import AugmentConfig
from heatnet_ros.training.auxiliary import LossWeights, Targets, training_loss
from heatnet_ros.training.crops import CropMaker, load_crops
from heatnet_ros.training.evaluate_heatnet import evaluate_crops, list_numbers
from heatnet_ros.training.heatnet import PRESETS, HeatNet, HeatNetConfig, normalize
from heatnet_ros.training.run_config import RunConfig
from heatnet_ros.training.trained_objects import describe_objects

_PRESET_KEYS = (
    "width", "crop_px", "decoder", "decoder_fine", "activation", "loss", "sigma", "stem",
    "lateral_place",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One HeatNet training; a sample is a crop. Of the network, 0 and '' mean the preset's."""

    preset: str = option("lite", "Size of the network", choices=tuple(PRESETS))
    rgbd: bool = option(True, "Take depth as well")
    width: int = option(0, "Channels of the first stage", low=0)
    crop_px: int = option(0, "Side of the network's input", low=0)
    decoder: int = option(0, "Channels of the decoder", low=0)
    decoder_fine: int = option(0, "Channels of the decoder's last stage", low=0)
    activation: str = option("", "relu, silu or mish", choices=("", "relu", "silu", "mish"))
    loss: str = option("", "Of the heatmaps", choices=("", "focal", "softmax"))
    sigma: float = option(0.0, "Of the targets, heatmap pixels", low=0.0)
    stem: str = option("", "First layers", choices=("", "resnet", "light"))
    lateral_place: str = option(
        "", "Where lateral connections join the decoder", choices=("", "after", "inside")
    )
    condition: str = option(
        "head", "Which layers know the object", choices=("head", "decoder", "all")
    )
    margin: float = option(1.3, "Side of a crop over its box", low=1.0, high=4.0)
    curriculum: float = option(
        0.0, "Part of the samples over which the augmentation grows", low=0.0, high=1.0
    )
    weights: LossWeights = field(default_factory=LossWeights)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


def network_config(config: TrainConfig, library: ObjectLibrary) -> HeatNetConfig:
    """The network of a run: its preset, what the file changes, and the heads it has losses for."""
    keypoints = len(next(iter(library.objects.values())).keypoints_m)
    changed = {key: getattr(config, key) for key in _PRESET_KEYS if getattr(config, key)}
    return HeatNetConfig(
        len(library.objects), keypoints, rgbd=config.rgbd, condition=config.condition,
        confidence=config.weights.confidence > 0, dense_head=config.weights.dense,
        deep_head=config.weights.deep > 0, **(PRESETS[config.preset] | changed),
    )  # fmt: skip


def build_network(config: TrainConfig) -> HeatNet:
    """The network of a run with its first weights, which depend on the seed alone."""
    torch.manual_seed(config.seed)
    net = HeatNet(network_config(config, load_objects(Path(config.objects_file))))
    return net.to(memory_format=torch.channels_last)


def build_task(config: TrainConfig) -> loop.Task:
    """Network, data, loss and schedule of a run."""
    library = load_objects(Path(config.objects_file))
    net = build_network(config)
    held_out = load_crops(Path(config.data), 0, config.validation_shards)
    crops = load_crops(Path(config.data), config.validation_shards, None)
    print(f"{len(crops['object'])} crops, {len(held_out['object'])} held out", flush=True)
    size = len(crops["object"])
    make_batch = CropMaker(
        crops, list(library.objects.values()), net.config.crop_px, net.config.stride,
        config.margin, config.augment, config.rgbd, config.weights.dense,
        config.curriculum * config.count_samples(size),
    )  # fmt: skip
    return loop.Task(
        net=net,
        make_batch=make_batch,
        size=size,
        loss_of=lambda batch: batch_loss(net, batch, config.weights),
        score=lambda limit: list_numbers(
            evaluate_crops(net, held_out, library, config.margin, limit)
        ),
        state={
            "network": dataclasses.asdict(net.config),
            **describe_objects(library, keypoints=True),
        },
    )


def batch_loss(net: HeatNet, batch: dict[str, Any], weights: LossWeights) -> torch.Tensor:
    """Loss of a batch of ``CropMaker``'s; the losses themselves are computed in float32."""
    image = normalize(batch["rgb"]).contiguous(memory_format=torch.channels_last)
    depth = batch["depth"].contiguous(memory_format=torch.channels_last)
    found = net.predict_all(image, depth, batch["object"])
    targets = Targets(batch["keypoints"], batch.get("mask"), batch.get("coordinates"))
    with torch.autocast(image.device.type, enabled=False):
        return training_loss(found, targets, weights, net.config)


def train(config: TrainConfig, out: Path) -> None:
    """Run or continue a training in the folder ``out``."""
    loop.run(build_task(config), config, out)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    train(*loop.read_command(__doc__, TrainConfig, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
