"""``python -m heatnet_ros train``: a training file and a data set -> a network."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from heatnet_ros.config import load_yaml
from heatnet_ros.errors import ConfigError
from heatnet_ros.training.run_config import NETWORK_KEY, add_run_arguments, read_config

_EPILOG = """\
The training file says what is trained on what. One key is needed beside the data, `network`:

  network: heatnet                          # or yolo, the detector
  objects_file: config/objects/parts.yaml   # written by `keypoints`
  data: data/parts                          # written by `synthesize` or `download`; or shards
  samples: 150000                           # or epochs: 30, or minutes: 60

All other keys have defaults (config/train/*.yaml are examples; an unknown key is an error that
names the nearest known one). config/train/published/ has the settings of HeatNet's paper.

examples:
  python -m heatnet_ros train --config config/train/demo_yolo.yaml --out runs/demo_yolo
  python -m heatnet_ros train --config parts.yaml --out runs/parts --minutes 60
  torchrun --nproc_per_node 4 -m heatnet_ros train --config parts.yaml --out runs/parts

Stopped or killed at any moment, the same command continues from its last checkpoint (one a minute)
with exactly the steps an unbroken run would take, where samples or epochs bound it; more samples or
minutes prolong a finished run, with other settings it is refused. The folder of the run has
checkpoint.pt, final.pt, log.jsonl and, with TensorBoard installed, tensorboard/ (tensorboard
--logdir runs). Next: python -m heatnet_ros export --run runs/parts."""


class _Trainer(NamedTuple):
    module: str
    config: str
    own_keys: frozenset[str]  # tell the trainer of a file without `network`
    packages: tuple[str, ...]


TRAINERS = {
    "heatnet": _Trainer(
        "heatnet_ros.training.train_heatnet",
        "TrainConfig",
        frozenset({"preset", "rgbd", "width", "margin", "augment"}),
        ("torch",),
    ),
    "yolo": _Trainer(
        "heatnet_ros.training.train_yolo",
        "YoloTrainConfig",
        frozenset({"size", "hue", "frame_px"}),
        ("torch", "ultralytics"),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train or continue. Raises HeatnetError."""
    trainer = choose_trainer(load_yaml(args.config, "Training file"), args.config)
    missing = [name for name in trainer.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Training needs {' and '.join(missing)}, which this Python does not have. Install the "
            "training extra: pip install 'heatnet_ros[train]' (in a checkout: pip install -e "
            "'.[train]')."
        )
    ranks = importlib.import_module("heatnet_ros.training.ranks")
    prepare = importlib.import_module("heatnet_ros.training.prepare")
    module = importlib.import_module(trainer.module)
    config = read_config(args, getattr(module, trainer.config))
    with (
        ranks.joined(config.device) as place,
        Path(os.devnull).open("w") as nowhere,
        # what is said is said once, by the first process of torchrun's
        nullcontext() if place.first else redirect_stdout(nowhere),
    ):
        module.train(prepare.prepare_data(config, place), args.out)
    return 0


def choose_trainer(values: Mapping[str, Any], path: Path) -> _Trainer:
    """The trainer of a file: by its key ``network``, else by keys that one trainer alone has.

    Raises ConfigError where that does not decide.
    """
    named = values.get(NETWORK_KEY)
    if named is not None:
        if named not in TRAINERS:
            raise ConfigError(
                f"'{NETWORK_KEY}' in {path}: expected {' or '.join(TRAINERS)}, got {named!r}."
            )
        return TRAINERS[named]
    fitting = [trainer for trainer in TRAINERS.values() if trainer.own_keys & set(values)]
    if len(fitting) != 1:
        raise ConfigError(
            f"{path} does not say which network it trains. Add 'network: heatnet' or 'network: "
            "yolo' (the detector)."
        )
    return fitting[0]
