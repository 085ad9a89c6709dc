"""Training data: crops as large as the network needs them, several data sets as one."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'train' is not installed")

import torch

from heatnet_ros.config import load_yaml
from heatnet_ros.datasets.shards import load_shards, write_shard
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.training.prepare import choose_cache_px, prepare_data
from heatnet_ros.training.ranks import Place
from heatnet_ros.training.run_config import join_folders
from heatnet_ros.training.train_heatnet import TrainConfig
from heatnet_ros.training.train_yolo import YoloTrainConfig

pytestmark = pytest.mark.train
PLACE = Place(torch.device("cpu"))


def write_rows(folder: Path, values: list[list[int]], side: int = 4) -> Path:
    folder.mkdir(parents=True)
    for i, rows in enumerate(values):
        rgb = np.zeros((len(rows), side, side, 3), np.uint8)
        write_shard(folder / f"shard_{i:05d}.npz", {"rgb": rgb, "object": np.array(rows, np.int64)})
    return folder


def test_cached_crops_are_as_large_as_the_network_needs():
    # margin 1.3, cache_margin 1.7: 128 * 1.7 / 1.3 = 167.4 and 256 * 1.7 / 1.3 = 334.8
    assert choose_cache_px(TrainConfig(preset="lite")) == 160
    assert choose_cache_px(TrainConfig(preset="full")) == 320
    assert choose_cache_px(TrainConfig(preset="full", crop_px=192)) == 256
    assert choose_cache_px(TrainConfig(preset="full", margin=1.7)) == 256
    assert choose_cache_px(TrainConfig(preset="full", cache_px=96)) == 96
    # the detector's data set is cut once, for both
    assert choose_cache_px(YoloTrainConfig()) == choose_cache_px(TrainConfig())


def test_several_folders_are_one_and_all_are_held_out(tmp_path):
    a = write_rows(tmp_path / "a", [[0], [1, 1], [2]])
    b = write_rows(tmp_path / "b", [[10], [11]])
    config = TrainConfig(data=join_folders([str(a), str(b)], "x.yaml"), validation_shards=2)
    prepared = prepare_data(config, PLACE)
    rows = load_shards(Path(prepared.data), ("object",))["object"]
    assert rows.tolist() == [0, 10, 1, 1, 11, 2]
    assert load_shards(Path(prepared.data), ("object",), 0, 2)["object"].tolist() == [0, 10]
    assert prepare_data(config, PLACE) == prepared
    # a training file that has been prepared is prepared as it is
    assert prepare_data(prepared, PLACE) == prepared and prepared.data_given == config.data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", Path(prepared.data).name]
    assert prepare_data(dataclasses.replace(config, data=str(a)), PLACE).data == str(a)


def test_folders_that_do_not_fit_are_told(tmp_path):
    a, b = write_rows(tmp_path / "a", [[0]]), write_rows(tmp_path / "b", [[1]], side=6)
    config = TrainConfig(data=join_folders([str(a), str(b)], "x.yaml"))
    joined = Path(prepare_data(config, PLACE).data)
    with pytest.raises(DataError, match=r"'rgb' of \(4, 4, 3\) and of \(6, 6, 3\).*cache_px"):
        load_shards(joined, ("rgb",))
    nowhere = dataclasses.replace(config, data=join_folders([str(a), "nowhere"], "x.yaml"))
    with pytest.raises(DataError, match="'nowhere' is no folder"):
        prepare_data(nowhere, PLACE)
    for wrong in ([], [3], [""], [f"a{os.pathsep}b"]):
        with pytest.raises(ConfigError, match=r"'data' in x.yaml: expected a folder or a list"):
            join_folders(wrong, "x.yaml")


def test_shipped_training_files_keep_their_caches():
    for path in sorted(Path("config/train").glob("*_heatnet*.yaml")):
        values = load_yaml(path, "Training file")
        known = {k: values[k] for k in ("preset", "cache_px", "margin", "crop_px") if k in values}
        assert choose_cache_px(TrainConfig(**known)) == 160, path
