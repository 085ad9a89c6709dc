"""What every training has, whatever its network; needs no torch, so that ``train --help`` is quick.

A network's own training file (``TrainConfig``, ``YoloTrainConfig``) derives from ``RunConfig`` and
adds its keys; in the YAML all keys stand side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heatnet_ros.config import build_config, load_yaml, option
from heatnet_ros.errors import ConfigError
from heatnet_ros.training.schedule import SCHEDULES

# the key that says which trainer a file is for; it is no option of either
NETWORK_KEY = "network"
# how long, where and how closely watched a run trains, and what it started from: these may change
# when it is continued, what it learns is the same
_FREE_KEYS = frozenset(
    {"samples", "epochs", "minutes", "workers", "device", "checkpoint_s", "score_s", "tensorboard",
     "init", "data_given"}
)  # fmt: skip

Config = TypeVar("Config", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig:
    """Data, length, optimiser and machine of a run. Fractions 0..1; ``batch`` is over all GPUs."""

    objects_file: str = option("", "The object library")
    data: str = option(
        "", "A data set (BOP, Linemod_preprocessed) or a folder of shards; in the file also a list"
    )
    data_given: str = option("", "Set by `train`: `data` as the file has it, before its shards")
    split: str = option("train", "Which part of the data set")
    detector: str = option("", "Model folder whose boxes crop the data set; '' takes true boxes")
    cache_px: int = option(
        0, "Side of the cached crops of a data set; 0: as the network needs them", low=0, high=1024
    )
    cache_margin: float = option(1.7, "Side of a cached crop over its box's", low=1.0, high=4.0)
    validation_shards: int = option(2, "The first shards are held out", low=1)
    samples: int = option(200_000, "Samples to see in all", low=1)
    epochs: float = option(0.0, "Passes over the data instead of ``samples``; 0: samples", low=0.0)
    minutes: float = option(0.0, "End after so many minutes of training; 0: no limit", low=0.0)
    batch: int = option(64, "Samples of a step, over all processes together", low=1)
    optimizer: str = option("adamw", "Optimiser", choices=("adam", "adamw", "muon"))
    learning_rate: float = option(2e-3, "Highest learning rate", low=0.0)
    weight_decay: float = option(
        1e-4, "Weight decay; of convolutions under muon 100 times this", low=0.0
    )
    clip: float = option(
        5.0, "Largest norm of the gradient, longer ones are shortened to it; 0: off", low=0.0
    )
    schedule: str = option("cosine", "Curve of the learning rate", choices=SCHEDULES)
    warmup: float = option(0.05, "Part of the run in which the rate rises", low=0.0, high=1.0)
    start_div: float = option(25.0, "onecycle: first rate = learning_rate / start_div", low=1.0)
    final_div: float = option(1e4, "onecycle: last rate = first rate / final_div", low=1.0)
    ema: float = option(
        0.0, "Decay of a moving average of the weights, which is then kept; 0: off", low=0, high=1
    )
    precision: str = option(
        "auto",
        "Arithmetic of the network: bf16 where the machine computes in it, fp16 on older GPUs",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    device: str = option("auto", "Where to train", choices=("auto", "cpu", "cuda"))
    workers: int = option(1, "Processes that make batches; the batches do not depend on it", low=0)
    checkpoint_s: float = option(60.0, "Seconds between checkpoints", low=0.0)
    score_s: float = option(300.0, "Seconds between looks at held-out samples", low=0.0)
    tensorboard: bool = option(True, "Write TensorBoard curves where it is installed")
    init: str = option("", "Weights to start from: a checkpoint, or torchvision's ResNet-18")
    init_depth: bool = option(True, "Start the depth stream from ResNet-18 weights as well")
    seed: int = option(0, "Of weights, order and augmentation", low=0)

    def count_samples(self, size: int) -> int:
        """Samples of the run, for training data of ``size`` samples.

        Raises ConfigError where epochs are asked for and the size is not known.
        """
        if not self.epochs:
            return self.samples
        if size < 1:
            raise ConfigError(
                f"epochs: {self.epochs:g} needs data of known size, got {size} samples. Give "
                "'samples' instead."
            )
        return max(1, round(self.epochs * size))


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two configs of one run, as mappings, differ in: 'key (was A, is B)'.

    Keys that may change when a run is continued are left out, and keys that only one of them has:
    a checkpoint may be older than the key. ``data`` is the same where the training file has the
    same folder, whatever shards were cut from it.
    """
    same_data = old.get("data_given") and old.get("data_given") == new.get("data_given")
    free = _FREE_KEYS | {"data"} if same_data else _FREE_KEYS
    changes = []
    for key in (key for key in new if key in old and key not in free):
        before, now = old[key], new[key]
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            changes += [f"{key}.{change}" for change in list_changes(before, now)]
        elif before != now:
            changes.append(f"{key} (was {before!r}, is {now!r})")
    return changes


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every training command."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="YAML", help="the training file"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER",
        help="folder of the run: checkpoint.pt, final.pt, log.jsonl, tensorboard/",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=int, metavar="N", help="samples to see in all, instead of the file's"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M",
        help="end after M minutes of training, earlier runs in the same folder included; the "
        "learning rate's curve follows whichever limit is nearer",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="instead of the file's (auto)"
    )


def join_folders(folders: list[Any], where: str) -> str:
    """Several folders as the one string of ``RunConfig.data``, separated as in PATH.

    Raises ConfigError naming the file ``where``.
    """
    wrong = [f for f in folders if not isinstance(f, str) or not f or os.pathsep in f]
    if wrong or not folders:
        raise ConfigError(
            f"'data' in {where}: expected a folder or a list of folders (without '{os.pathsep}' in "
            f"their names), got {wrong[0] if wrong else folders!r}."
        )
    return os.pathsep.join(folders)


def read_config(args: argparse.Namespace, kind: type[Config]) -> Config:
    """Training file and command line -> config. Raises ConfigError."""
    values = load_yaml(args.config, "Training file")
    values.pop(NETWORK_KEY, None)
    if isinstance(values.get("data"), list):
        values["data"] = join_folders(values["data"], str(args.config))
    config = build_config(kind, values, str(args.config))
    changes: dict[str, Any] = {}
    if args.samples is not None:
        changes |= {"samples": args.samples, "epochs": 0.0}
    if args.minutes is not None:
        changes["minutes"] = args.minutes
    if args.device is not None:
        changes["device"] = args.device
    for key, value in changes.items():
        if key != "device" and key != "epochs" and not value > 0:
            raise ConfigError(f"--{key}: expected more than 0, got {value}.")
    return dataclasses.replace(config, **changes)
