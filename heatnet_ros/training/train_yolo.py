"""Train YOLOv10 on rendered frames: ultralytics' network and loss, our own loop.

``python -m heatnet_ros.training.train_yolo --config config/train/demo_yolo.yaml --out
runs/demo_yolo``. The loop is our own because ultralytics' trainer has no bfloat16 on CPUs, which
halves the time, and no resume within an epoch. Interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatnet_ros.config import build_config, load_yaml
from heatnet_ros.objects import load_objects
from heatnet_ros.training.frames import (
    INPUT_HW,
    FrameBatches,
    frame_sample,
    index_boxes,
    load_frames,
)
from heatnet_ros.training.train_heatnet import CHECKPOINT_EVERY_S
from heatnet_ros.training.yolo import DeployedYolo, build_yolo, to_float

UPDATES = 100


@dataclass(frozen=True)
class YoloTrainConfig:
    """One detector training. samples: frames seen in all. init: a checkpoint, or ''."""

    objects_file: str = ""
    data: str = ""
    size: str = "n"
    samples: int = 60_000
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    warmup: float = 0.05
    hue: float = 0.02
    validation_shards: int = 2
    init: str = ""
    seed: int = 0


def train(config: YoloTrainConfig, out: Path) -> None:
    """Run or continue a training; writes ``checkpoint.pt`` and at the end ``final.pt``."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    names = list(load_objects(Path(config.objects_file)).objects)
    model = build_yolo(len(names), config.size, UPDATES)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    seen, updates, checkpoint = 0, 0, out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        seen = state["seen"]
        print(f"continuing after {seen} frames", flush=True)
    elif config.init:
        source = torch.load(config.init, map_location="cpu", weights_only=True)["net"]
        own = model.state_dict()
        fit = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
        model.load_state_dict(fit, strict=False)
        print(f"started from {config.init}: {len(fit)} of {len(own)} tensors fit", flush=True)
    held_out = index_boxes(load_frames(Path(config.data), 0, config.validation_shards))
    data = index_boxes(load_frames(Path(config.data), config.validation_shards, None))
    print(f"{len(data['frames'])} frames, {len(held_out['frames'])} held out", flush=True)
    batches = FrameBatches(data, config.batch, config.hue, config.seed + seen)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    started, started_at, saved = time.monotonic(), seen, time.monotonic()
    losses: list[float] = []
    model.train()
    for batch in loader:
        if seen >= config.samples:
            break
        progress = seen / config.samples
        while updates < progress * UPDATES:
            model.criterion.update()
            updates += 1
        warm = min(1.0, progress / config.warmup + 0.02)
        rate = float(config.learning_rate * warm * (0.505 + 0.495 * np.cos(np.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        image = batch["img"].permute(0, 3, 1, 2).float() / 255.0
        with torch.autocast("cpu", torch.bfloat16):
            predictions = model(image.contiguous(memory_format=torch.channels_last))
        loss = model.criterion(to_float(predictions), batch)[0].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        seen += config.batch
        losses.append(loss.item() / config.batch)
        if len(losses) % 50 == 0:
            speed = (seen - started_at) / (time.monotonic() - started)
            print(
                f"{seen}/{config.samples}  loss {np.mean(losses[-100:]):.3f}  "
                f"{speed:.0f} frames/s  {(config.samples - seen) / speed / 60:.0f} min left",
                flush=True,
            )
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            save(checkpoint, model, optimizer, seen, config)
            print(f"  held out: {evaluate_frames(model, held_out, limit=96)}", flush=True)
            saved = time.monotonic()
    save(checkpoint, model, optimizer, seen, config)
    save(out / "final.pt", model, None, seen, config)
    print(f"held out: {evaluate_frames(model, held_out)}")


def evaluate_frames(
    model: Any, data: dict[str, Any], limit: int = 0, threshold: float = 0.4, iou: float = 0.7
) -> dict[str, float]:
    """Recall and precision of boxes at IoU 0.7 and score 0.4 on held-out frames."""
    deployed = DeployedYolo(model).eval()
    hits = wanted = given = 0
    count = min(limit or len(data["frames"]), len(data["frames"]))
    for i in range(count):
        image, truth = frame_sample(data, i, None, 0.0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rows = deployed(torch.from_numpy(image[None]))[0].float().numpy()
        rows = rows[rows[:, 4] >= threshold]
        given, wanted = given + len(rows), wanted + len(truth)
        for box in truth:
            same = rows[rows[:, 5] == box[0]]
            hits += bool(len(same)) and bool((_iou(same[:, :4], box[1:]) >= iou).any())
    model.train()
    return {
        "frames": count,
        "recall_iou07": round(hits / max(wanted, 1), 4),
        "precision_iou07": round(hits / max(given, 1), 4),
    }


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return common / (areas + np.prod(box[2:] - box[:2]) - common)


def save(path: Path, model: Any, optimizer: Any, seen: int, config: YoloTrainConfig) -> None:
    """Write a checkpoint; it appears whole or not at all."""
    state = {
        "net": model.state_dict(),
        "seen": seen,
        "input_hw": list(INPUT_HW),
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
    parser.add_argument("--config", type=Path, required=True, help="YAML: YoloTrainConfig")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--samples", type=int, help="frames in all, instead of the file's")
    args = parser.parse_args(arguments)
    config = build_config(
        YoloTrainConfig, load_yaml(args.config, "Training file"), str(args.config)
    )
    if args.samples:
        config = dataclasses.replace(config, samples=args.samples)
    train(config, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
