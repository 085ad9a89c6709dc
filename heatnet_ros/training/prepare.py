"""Training data in the form that trainers read: a folder of shards, made from a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heatnet_ros.datasets.crop_cache import CacheOptions, ensure_cache
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.objects import load_objects
from heatnet_ros.training.ranks import Place
from heatnet_ros.training.run_config import Config


def prepare_data(config: Config, place: Place) -> Config:
    """The config with ``data`` a folder of shards; the first process makes what is missing.

    Raises DataError when the data set is not there or a file of it is missing or damaged, and
    ConfigError when its detector is not there.
    """
    folder = Path(config.data)
    if folder.is_dir() and any(folder.glob("shard_*.npz")):
        return config
    if not config.data or not folder.is_dir():
        raise DataError(
            "data: expected a data set (BOP or Linemod_preprocessed) or a folder of shards, "
            f"'{config.data}' is no folder. Render one (python -m heatnet_ros synthesize), get one "
            "(python -m heatnet_ros download), or correct 'data' in the training file."
        )
    if config.detector and not (Path(config.detector) / "manifest.yaml").exists():
        raise ConfigError(
            f"detector: {config.detector} has no manifest.yaml, so its boxes cannot crop the data "
            "set. Train and export the detector first (python -m heatnet_ros train, then export), "
            "or leave 'detector' out to crop around the true boxes."
        )
    library = load_objects(Path(config.objects_file))
    width = getattr(config, "frame_px", CacheOptions.frame_wh[0])
    options = CacheOptions(
        cache_px=config.cache_px,
        margin=config.cache_margin,
        frame_wh=(width, round(width * 3 / 4)),
        detector=config.detector,
    )
    if place.first:
        ensure_cache(folder, config.split, library, options)
    place.wait()
    # the others find everything made
    return replace(config, data=str(ensure_cache(folder, config.split, library, options)))
