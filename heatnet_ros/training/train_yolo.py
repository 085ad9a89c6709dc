"""Train YOLOv10: ultralytics' network and loss, our own loop.

``python -m heatnet_ros train --config config/train/demo_yolo.yaml --out runs/demo_yolo``. The loop
is our own because ultralytics' trainer has no bfloat16 on CPUs, which halves the time, and no
resume within an epoch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heatnet_ros.config import option
from heatnet_ros.geometry.boxes import box_overlaps
from heatnet_ros.objects import load_objects
from heatnet_ros.training import loop
from heatnet_ros.training.frames import (
    frame_batch,
    frame_sample,
    index_boxes,
    input_size,
    load_frames,
)
from heatnet_ros.training.ranks import choose_device
from heatnet_ros.training.run_config import RunConfig
from heatnet_ros.training.schedule import learning_rate_at
from heatnet_ros.training.trained_objects import describe_objects
from heatnet_ros.training.yolo import DeployedYolo, build_yolo, to_float

UPDATES = 100
SCORE_THRESHOLD, SCORE_IOU = 0.4, 0.7


@dataclass(frozen=True)
class YoloTrainConfig(RunConfig):
    """One detector training; a sample is a frame."""

    size: str = option("n", "Size of YOLOv10", choices=("n", "s", "m", "b", "l", "x"))
    samples: int = option(60_000, "Frames to see in all", low=1)
    batch: int = option(16, "Frames of a step, over all processes together", low=1)
    weight_decay: float = option(
        5e-4, "Weight decay; of convolutions under muon 100 times this", low=0.0
    )
    clip: float = option(  # ultralytics' own trainer has 10 as well
        10.0, "Largest norm of the gradient, longer ones are shortened to it; 0: off", low=0.0
    )
    hue: float = option(0.02, "Largest change of hue, as a part of the circle", low=0.0, high=0.5)
    flip: float = option(
        0.5,
        "Probability of a mirrored frame; 0 where objects differ from one another only as left and "
        "right hand do, or carry writing that tells them apart",
        low=0.0,
        high=1.0,
    )
    frame_px: int = option(320, "Width of the frames that a data set is cut to", low=64, high=4096)


def build_task(config: YoloTrainConfig) -> loop.Task:
    """Network, data, loss and schedule of a run."""
    torch.manual_seed(config.seed)
    library = load_objects(Path(config.objects_file))
    model: Any = build_yolo(len(library.objects), config.size, UPDATES)
    # the loss keeps tensors where the network is when it is made
    model = model.to(choose_device(config.device))
    model.criterion = model.init_criterion()
    held_out = index_boxes(load_frames(Path(config.data), 0, config.validation_shards))
    data = index_boxes(load_frames(Path(config.data), config.validation_shards, None))
    print(f"{len(data['frames'])} frames, {len(held_out['frames'])} held out", flush=True)

    def rate_at(progress: float) -> float:
        while model.criterion.updates < progress * UPDATES:  # shifts weight to the one-to-one head
            model.criterion.update()
        return learning_rate_at(progress, config)

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image = batch["img"].permute(0, 3, 1, 2).float() / 255.0
        predictions = to_float(model(image.contiguous(memory_format=torch.channels_last)))
        with torch.autocast(image.device.type, enabled=False):
            loss = model.criterion(predictions, batch)[0].sum()
        # ultralytics' loss grows with its batch: the whole one counts, not this process's share
        return loss * (config.batch / len(image))

    return loop.Task(
        net=model,
        make_batch=partial(frame_batch, data, config.hue, config.flip),
        size=len(data["frames"]),
        loss_of=loss_of,
        rate_at=rate_at,
        score=lambda limit: evaluate_frames(model, held_out, limit),
        state={
            "input_hw": list(input_size(data)),
            **describe_objects(library, keypoints=False),
        },
    )


def train(config: YoloTrainConfig, out: Path) -> None:
    """Run or continue a training in the folder ``out``."""
    loop.run(build_task(config), config, out)


def evaluate_frames(model: Any, data: dict[str, Any], limit: int = 0) -> dict[str, float]:
    """Recall and precision of boxes at IoU 0.7 and score 0.4 on held-out frames.

    The network computes in float32 unless the caller's autocast says otherwise.
    """
    deployed = DeployedYolo(model).eval()
    device = next(model.parameters()).device
    hits = wanted = given = 0
    count = min(limit or len(data["frames"]), len(data["frames"]))
    for i in range(count):
        image, truth = frame_sample(data, i, None, 0.0)
        with torch.no_grad():
            rows = deployed(torch.from_numpy(image[None]).to(device))[0].float().cpu().numpy()
        rows = rows[rows[:, 4] >= SCORE_THRESHOLD]
        given, wanted = given + len(rows), wanted + len(truth)
        for box in truth:
            same = rows[rows[:, 5] == box[0]]
            hits += bool((box_overlaps(same[:, :4], box[None, 1:]) >= SCORE_IOU).any())
    model.train()
    return {
        "frames": count,
        "recall_iou07": round(hits / max(wanted, 1), 4),
        "precision_iou07": round(hits / max(given, 1), 4),
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    train(*loop.read_command(__doc__, YoloTrainConfig, arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
