"""Train HeatNet on rendered crops: one loop, top to bottom.

``python -m heatnet_ros.training.train_heatnet --config config/train/demo_heatnet.yaml --out
runs/demo_heatnet``. Interrupted at any moment, the same command continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatnet_ros.config import build_config, load_yaml
from heatnet_ros.objects import load_objects
from heatnet_ros.training.crops import AugmentConfig, CropBatches, load_crops
from heatnet_ros.training.evaluate_heatnet import evaluate_crops, summarize
from heatnet_ros.training.heatnet import PRESETS, HeatNet, HeatNetConfig, heatmap_loss, normalize

CHECKPOINT_EVERY_S = 150


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


def start_from(net: HeatNet, path: str) -> None:
    """Copy every weight whose name and shape fit (the head never does for other objects)."""
    source = torch.load(path, map_location="cpu", weights_only=True)["net"]
    own = net.state_dict()
    fitting = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
    net.load_state_dict(fitting, strict=False)
    print(f"started from {path}: {len(fitting)} of {len(own)} tensors fit", flush=True)


def train(config: TrainConfig, out: Path) -> None:
    """Run or continue a training; writes ``checkpoint.pt`` and at the end ``final.pt``."""
    out.mkdir(parents=True, exist_ok=True)
    library = load_objects(Path(config.objects_file))
    diameters = [model.diameter_m for model in library.objects.values()]
    net = build_network(config)
    optimizer = torch.optim.AdamW(
        net.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    seen, checkpoint = 0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        seen = state["seen"]
        print(f"continuing after {seen} crops", flush=True)
    elif config.init:
        start_from(net, config.init)
    held_out = load_crops(Path(config.data), 0, config.validation_shards)
    crops = load_crops(Path(config.data), config.validation_shards, None)
    print(f"{len(crops['object'])} crops, {len(held_out['object'])} held out", flush=True)
    batches = CropBatches(
        crops, diameters, config.batch, net.config.crop_px, config.margin, config.augment,
        config.rgbd, config.seed + seen,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    started, started_at, saved = time.monotonic(), seen, time.monotonic()
    losses: list[float] = []
    net.train()
    for rgb, depth, keypoints, index in loader:
        if seen >= config.samples:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(seen / config.samples, config)
        image = normalize(rgb).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image, depth.contiguous(memory_format=torch.channels_last), index)
        loss = heatmap_loss(logits.float(), keypoints, net.config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        seen += len(index)
        losses.append(loss.item())
        if len(losses) % 20 == 0:
            rate = (seen - started_at) / (time.monotonic() - started)
            print(
                f"{seen}/{config.samples}  loss {np.mean(losses[-50:]):.4f}  {rate:.0f} crops/s  "
                f"{(config.samples - seen) / rate / 60:.0f} min left",
                flush=True,
            )
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save(checkpoint, net, optimizer, seen, config)
            scores = evaluate_crops(net, held_out, library, config.margin, limit=256)
            print(f"  held out: {summarize(scores)}", flush=True)
            saved = time.monotonic()
    save(checkpoint, net, optimizer, seen, config)
    save(out / "final.pt", net, None, seen, config)
    print(f"held out: {summarize(evaluate_crops(net, held_out, library, config.margin))}")


def save(path: Path, net: HeatNet, optimizer: Any, seen: int, config: TrainConfig) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    state = {
        "net": net.state_dict(),
        "seen": seen,
        "network": dataclasses.asdict(net.config),
        "config": dataclasses.asdict(config),
    }
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML: TrainConfig")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--samples", type=int, help="crops in all, instead of the file's")
    args = parser.parse_args(arguments)
    config = build_config(TrainConfig, load_yaml(args.config, "Training file"), str(args.config))
    if args.samples:
        config = dataclasses.replace(config, samples=args.samples)
    train(config, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
