"""How fast this machine is: the real steps with the real settings, for a few tens of seconds."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatnet_ros.datasets.shards import load_shards
from heatnet_ros.errors import DataError
from heatnet_ros.machine import count_cores
from heatnet_ros.onboard.budget import (
    GPU_WIDTH,
    IMAGES_PER_SCENE,
    LEAST_IMAGES_OF_A_SET,
    NARROW,
    Plan,
    Rates,
)
from heatnet_ros.onboard.check import CheckedObject
from heatnet_ros.onboard.files import training_content, write_training_file
from heatnet_ros.onboard.options import Options, Places
from heatnet_ros.onboard.runner import Job, Status, run_jobs
from heatnet_ros.onboard.steps import crops_job, render_job, training_job

# of training: a part of the budget, within these limits
_PART_OF_BUDGET, _SHORTEST_S, _LONGEST_S = 0.008, 10.0, 30.0
_NEVER_S = 1e9
_LOOK_FOR_GPU = (
    "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
)


def measure_machine(
    options: Options,
    objects: Sequence[CheckedObject],
    places: Places,
    workers: int,
    status: Status,
) -> Rates:
    """Render the first training images, cut them, and train both networks for a moment.

    The images are kept: they are the first of the data set. Needs the object library and the scenes
    file. Raises StepError when a step fails, as it would later.
    """
    cores = count_cores()
    gpu = find_gpu()
    images = max(LEAST_IMAGES_OF_A_SET, 2 * workers * IMAGES_PER_SCENE)
    images = min(images, options.images or images)
    first = Places(places.run / "calibration", options.name)
    for left_over in (places.run / "calibration", places.data):  # of one that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    job = render_job(options, places, "train", images, workers)
    run_jobs([_logged(job, "calibrate-render", places)], places.run, status, "measuring")
    images_per_s = rendering_rate(places.data / "train", workers)
    job = _logged(crops_job(places), "calibrate-crops", places)
    (cut_s,) = run_jobs([job], places.run, status, "measuring")
    crops_per_image = count_crops(places.data)
    train_s = min(max(_PART_OF_BUDGET * options.budget_s, _SHORTEST_S), _LONGEST_S)
    side_by_side = cores >= 2 and not gpu
    jobs = [
        _training(network, options, objects, (places, first), gpu, cores, train_s)
        for network in ("yolo", "heatnet")
    ]
    groups = [jobs] if side_by_side else [[job] for job in jobs]
    seconds = [s for group in groups for s in run_jobs(group, places.run, status, "measuring")]
    rates = Rates(
        cores=cores,
        gpu=gpu,
        images_per_s=images_per_s,
        cut_per_s=images / cut_s,
        crops_per_s=training_rate(first.training("heatnet") / "log.jsonl"),
        frames_per_s=training_rate(first.training("yolo") / "log.jsonl"),
        crops_per_image=crops_per_image,
        start_s=max(max(seconds) - train_s, 1.0),
    )
    shutil.rmtree(places.run / "calibration", ignore_errors=True)
    shutil.rmtree(places.data / "crops", ignore_errors=True)  # of too few images
    return rates


def find_gpu() -> str:
    """Name of the GPU that trainings will use, or ''; asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK_FOR_GPU], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def rendering_rate(split: Path, workers: int) -> float:
    """Images a second, from when the first and the last image of a new split were written.

    Each worker's first image starts the clock, so it does not count. Raises DataError without
    images.
    """
    times = sorted(path.stat().st_mtime for path in split.glob("*/rgb/*"))
    if len(times) <= workers:
        raise DataError(f"{split} has {len(times)} images, expected more than {workers}.")
    return (len(times) - workers) / max(times[-1] - times[0], 1e-3)


def training_rate(log: Path) -> float:
    """Samples a second of a training, from its log. Raises DataError when it took no two steps."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else ():
        entry: dict[str, Any] = json.loads(line)
        if "loss" in entry:
            found.append((entry["seen"], entry["seconds"]))
    if len(found) < 2 or found[-1][1] <= found[0][1]:
        raise DataError(
            f"{log} has {len(found)} lines, expected two or more: this machine is too slow or too "
            "busy to be measured. Try again when it is less busy, or fix --images and --samples."
        )
    return float((found[-1][0] - found[0][0]) / (found[-1][1] - found[0][1]))


def count_crops(dataset: Path) -> float:
    """Crops for each image of the only crop cache of a data set."""
    (folder,) = (dataset / "crops").iterdir()
    shards = load_shards(folder, ("object", "frames"))
    return len(shards["object"]) / len(shards["frames"])


def _logged(job: Job, name: str, places: Places) -> Job:
    return dataclasses.replace(job, name=name, log=places.log(name))


def _training(
    network: str,
    options: Options,
    objects: Sequence[CheckedObject],
    places: tuple[Places, Places],
    gpu: str,
    cores: int,
    train_s: float,
) -> Job:
    """A short training in a folder that is removed afterwards. places: the set's, and that one."""
    own, first = places
    width = GPU_WIDTH if gpu else NARROW
    plan = Plan(
        images=0, test_images=0, width=width, detector_size="m" if gpu else "n",
        yolo_minutes=train_s / 60, heatnet_minutes=train_s / 60, samples=0,
        side_by_side=cores >= 2 and not gpu,
        threads=max(1, cores // 2) if cores >= 2 and not gpu else 0,
        estimates_s={}, reasons=(),
    )  # fmt: skip
    content = training_content(network, options, objects, own, plan)
    content |= {"checkpoint_s": _NEVER_S, "score_s": _NEVER_S, "tensorboard": False}
    write_training_file(first.training_file(network), content)
    return _logged(training_job(network, first, plan.threads), f"calibrate-{network}", own)
