"""Train YOLOv10 on rendered frames: ultralytics' network and loss, our own loop.

``python -m heatnet_ros.training.train_yolo --config config/train/demo_yolo.yaml --out
runs/demo_yolo``. The loop is our own because ultralytics' trainer has no bfloat16 on CPUs, which
halves the time, and no resume within an epoch. Interrupted, the same command continues.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatnet_ros.objects import load_objects
from heatnet_ros.training import loop
from heatnet_ros.training.frames import (
    INPUT_HW,
    FrameBatches,
    frame_sample,
    index_boxes,
    load_frames,
)
from heatnet_ros.training.yolo import DeployedYolo, build_yolo, to_float

UPDATES = 100
CLIP = 10.0


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


def learning_rate_at(progress: float, config: YoloTrainConfig) -> float:
    """Linear warm-up, then a cosine to a hundredth; progress 0..1."""
    warm = min(1.0, progress / config.warmup + 0.02)
    return float(config.learning_rate * warm * (0.505 + 0.495 * np.cos(np.pi * progress)))


def build_task(config: YoloTrainConfig) -> loop.Task:
    """Network, data, loss and schedule of a run."""
    torch.manual_seed(config.seed)
    names = list(load_objects(Path(config.objects_file)).objects)
    model: Any = build_yolo(len(names), config.size, UPDATES)
    held_out = index_boxes(load_frames(Path(config.data), 0, config.validation_shards))
    data = index_boxes(load_frames(Path(config.data), config.validation_shards, None))
    print(f"{len(data['frames'])} frames, {len(held_out['frames'])} held out", flush=True)

    def batches(seed: int) -> Iterable[Any]:
        stream = FrameBatches(data, config.batch, config.hue, seed)
        return torch.utils.data.DataLoader(
            stream, batch_size=None, num_workers=1, prefetch_factor=4
        )

    def rate_at(progress: float) -> float:
        while model.criterion.updates < progress * UPDATES:  # shifts weight to the one-to-one head
            model.criterion.update()
        return learning_rate_at(progress, config)

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image = batch["img"].permute(0, 3, 1, 2).float() / 255.0
        with torch.autocast("cpu", torch.bfloat16):
            predictions = model(image.contiguous(memory_format=torch.channels_last))
        return model.criterion(to_float(predictions), batch)[0].sum()

    return loop.Task(
        net=model,
        batches=batches,
        loss_of=loss_of,
        rate_at=rate_at,
        score=lambda limit: str(evaluate_frames(model, held_out, limit)),
        state={"input_hw": list(INPUT_HW)},
        clip=CLIP,
    )


def train(config: YoloTrainConfig, out: Path) -> None:
    """Run or continue a training in the folder ``out``."""
    loop.run(build_task(config), config, out)


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


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    train(*loop.read_command(__doc__, YoloTrainConfig, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
