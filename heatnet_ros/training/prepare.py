"""Training data in the form that trainers read: a folder of shards, made from data sets."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from heatnet_ros.datasets.crop_cache import CacheOptions, ensure_cache
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.objects import load_objects
from heatnet_ros.training.heatnet import PRESETS, HeatNetConfig
from heatnet_ros.training.ranks import Place
from heatnet_ros.training.run_config import Config

CACHE_STEP = 32


def prepare_data(config: Config, place: Place) -> Config:
    """The config with ``data`` a folder of shards; the first process makes what is missing.

    Raises DataError when a data set is not there or a file of it is missing or damaged, and
    ConfigError when its detector is not there.
    """
    config = replace(config, cache_px=choose_cache_px(config))
    folders = [Path(config.data)]
    if not folders[0].is_dir():
        folders = [Path(folder) for folder in config.data.split(os.pathsep)]
    if place.first:
        _make_shards(folders, config)
    place.wait()
    # the others find everything made
    given = config.data_given or config.data
    return replace(config, data=str(_make_shards(folders, config)), data_given=given)


def choose_cache_px(config: Config) -> int:
    """Side of cached crops: ``cache_px``, or one of which the network sees every pixel.

    That is crop_px * cache_margin / margin, to the nearest 32. A detector's training has no crops;
    its data set is cut as the lite network's would be, whose training then finds it done.
    """
    if config.cache_px:
        return config.cache_px
    preset = PRESETS[getattr(config, "preset", "lite")]
    crop_px = getattr(config, "crop_px", 0) or preset.get("crop_px", HeatNetConfig.crop_px)
    side = crop_px * config.cache_margin / getattr(config, "margin", 1.3)
    return max(1, round(side / CACHE_STEP)) * CACHE_STEP


def _make_shards(folders: Sequence[Path], config: Config) -> Path:
    made = [_shards_of(folder, config) for folder in folders]
    return made[0] if len(made) == 1 else join_shards(made)


def _shards_of(folder: Path, config: Config) -> Path:
    """The folder itself where it is one of shards, else the cache of the data set in it."""
    if folder.is_dir() and any(folder.glob("shard_*.npz")):
        return folder
    if not config.data or not folder.is_dir():
        raise DataError(
            "data: expected a data set (BOP or Linemod_preprocessed) or a folder of shards, "
            f"'{folder}' is no folder. Render one (python -m heatnet_ros synthesize), get one "
            "(python -m heatnet_ros download), or correct 'data' in the training file."
        )
    if config.detector and not (Path(config.detector) / "manifest.yaml").exists():
        raise ConfigError(
            f"detector: {config.detector} has no manifest.yaml, so its boxes cannot crop the data "
            "set. Train and export the detector first (python -m heatnet_ros train, then export), "
            "or leave 'detector' out to crop around the true boxes."
        )
    options = CacheOptions(
        cache_px=config.cache_px,
        margin=config.cache_margin,
        frame_px=getattr(config, "frame_px", CacheOptions.frame_px),
        detector=config.detector,
    )
    return ensure_cache(folder, config.split, load_objects(Path(config.objects_file)), options)


def join_shards(folders: Sequence[Path]) -> Path:
    """A folder of links to all shards, beside the first of ``folders``.

    They take turns, so that the first ones, which trainings hold out, are of every data set.
    Raises DataError when it cannot be made.
    """
    listed = [sorted(folder.resolve().glob("shard_*.npz")) for folder in folders]
    shards = [path for turn in zip_longest(*listed) for path in turn if path is not None]
    digest = hashlib.sha256("\n".join(map(str, shards)).encode()).hexdigest()[:10]
    joined = folders[0].parent / f"joined-{digest}"
    if joined.is_dir():
        return joined
    part: Path | None = None
    try:
        part = Path(tempfile.mkdtemp(prefix=f"{joined.name}.", dir=joined.parent))
        for i, path in enumerate(shards):
            (part / f"shard_{i:05d}.npz").symlink_to(path)
        os.replace(part, joined)
    except OSError as error:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        if not joined.is_dir():  # else another training was quicker
            raise DataError(
                f"{joined} cannot be made: {error.strerror}. It holds links to the shards of all "
                "folders of 'data'; put one that can be written to first."
            ) from error
    return joined
