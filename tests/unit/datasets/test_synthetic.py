"""Rendered shards: the seed decides, workers do not; labels fit the pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from heatnet_ros.datasets import synthetic
from heatnet_ros.errors import ConfigError, DataError, EngineError
from heatnet_ros.geometry import camera, se3
from heatnet_ros.objects import load_objects
from heatnet_ros.rendering.rasterizer import Rasterizer
from heatnet_ros.resources import find_resource

DEMO = find_resource("config/objects/demo.yaml", "Object library")


@pytest.fixture(scope="module", autouse=True)
def _needs_gl():
    try:
        Rasterizer((8, 8)).release()
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    synthetic.write_shard(small_config(), out, 0)
    return out


def small_config() -> synthetic.SyntheticConfig:
    return synthetic.SyntheticConfig(objects_file=str(DEMO), scenes=8, scenes_per_shard=4, seed=7)


def test_labels_belong_to_the_pictures(shard):
    library = load_objects(DEMO)
    names = list(library.objects)
    keys = ("rgb", "depth", "keypoints", "object", "box", "T_camera_object", "K", "visible")
    crops = synthetic.load_shards(shard, keys)
    assert len(crops["object"]) >= 8
    for i, index in enumerate(crops["object"]):
        model = library[names[index]]
        T, K = crops["T_camera_object"][i], crops["K"][i]
        points = camera.project(se3.transform(T, model.keypoints_m), K)
        np.testing.assert_allclose(points, crops["keypoints"][i], atol=1e-3)
        # the box of the visible part lies in the box of the whole object
        surface = camera.project(se3.transform(T, model.load_mesh().vertices_m), K)
        low, high = surface.min(axis=0) - 1, surface.max(axis=0) + 1
        assert np.all(crops["box"][i][:2] >= low) and np.all(crops["box"][i][2:] <= high)
        # depth in the middle of the picture is of an object's size around the object's distance
        depth = crops["depth"][i] * synthetic.DEPTH_STEP_M
        near = np.abs(depth - T[2, 3]) < model.diameter_m
        assert near.mean() > 0.1
        assert 0.3 <= crops["visible"][i] <= 1.0


def test_same_seed_same_bytes_other_index_other_scene(shard, tmp_path):
    again = synthetic.write_shard(small_config(), tmp_path, 0)
    assert again.read_bytes() == (shard / again.name).read_bytes()
    other = synthetic.write_shard(small_config(), tmp_path, 1)
    with np.load(again) as a, np.load(other) as b:
        assert not np.array_equal(a["frames"][0], b["frames"][0])


def test_command_continues_where_it_stopped(shard, tmp_path, capsys):
    config = dataclasses.asdict(small_config())
    path = tmp_path / "scenes.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(repr_lists(config))))
    out = tmp_path / "data"
    out.mkdir()
    first = out / "shard_00000.npz"
    first.write_bytes((shard / first.name).read_bytes())
    before = first.stat().st_mtime_ns
    assert synthetic.main(["--scenes-file", str(path), "--out", str(out), "--workers", "1"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["shard_00000.npz", "shard_00001.npz"]
    assert first.stat().st_mtime_ns == before
    merged = synthetic.load_shards(out, ("frames", "boxes"))
    assert merged["boxes"][:, 0].max() == len(merged["frames"]) - 1 == 7


def repr_lists(value: object) -> str:
    import json

    return json.dumps(value)


def test_missing_mesh_and_missing_shards_say_what_to_do(tmp_path):
    content = yaml.safe_load(DEMO.read_text())
    content["objects"][0]["mesh"] = "nowhere.ply"
    library = tmp_path / "objects.yaml"
    library.write_text(yaml.safe_dump(content))
    config = dataclasses.replace(small_config(), objects_file=str(library))
    with pytest.raises(DataError, match=r"mesh of 'bracket'.*nowhere.ply is not there"):
        synthetic.write_shard(config, tmp_path, 0)
    assert not list(tmp_path.glob("shard_*"))
    with pytest.raises(DataError, match="No shards in"):
        synthetic.load_shards(tmp_path, ("rgb",))


def test_unknown_setting_names_the_nearest(tmp_path):
    path = Path(tmp_path / "scenes.yaml")
    path.write_text("scenes: 3\nsettings: {distance: [1, 2]}\n")
    with pytest.raises(ConfigError, match="Did you mean 'distance_m'"):
        synthetic.load_synthetic_config(path)
