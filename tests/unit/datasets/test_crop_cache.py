"""Cached crops: labels fit the pictures, damaged data is named, options have their own cache."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.datasets import synthesize
from heatnet_ros.datasets.crop_cache import DEPTH_STEP_M, CacheOptions, ensure_cache
from heatnet_ros.datasets.shards import load_shards, map_shard, write_shard
from heatnet_ros.errors import DataError, EngineError
from heatnet_ros.geometry import camera, se3
from heatnet_ros.objects import load_objects
from heatnet_ros.rendering.rasterizer import Rasterizer
from heatnet_ros.resources import find_resource

DEMO = find_resource("config/objects/demo.yaml", "Object library")
KEYS = ("rgb", "depth", "mask", "keypoints", "object", "box", "T_camera_object", "K", "visible")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    try:
        Rasterizer((8, 8)).release()
    except EngineError as error:
        pytest.skip(f"off-screen OpenGL cannot be had here: {error}")
    out = tmp_path_factory.mktemp("cache") / "parts"
    config = synthesize.SyntheticConfig(
        objects_file=str(DEMO), images=6, images_per_scene=3, seed=7, sensor=0.0
    )
    synthesize.synthesize(config, out, "train", workers=1)
    return out


@pytest.fixture(scope="module")
def cache(dataset):
    return ensure_cache(dataset, "train", load_objects(DEMO), CacheOptions())


def test_labels_belong_to_the_pictures(cache):
    library = load_objects(DEMO)
    names = list(library.objects)
    crops = load_shards(cache, KEYS)
    assert len(crops["object"]) >= 8
    assert crops["rgb"].shape == (len(crops["object"]), 160, 160, 3)
    for i, index in enumerate(crops["object"]):
        model = library[names[index]]
        T, K = crops["T_camera_object"][i], crops["K"][i]
        points = camera.project(se3.transform(T, model.keypoints_m), K)
        np.testing.assert_allclose(points, crops["keypoints"][i], atol=1e-3)
        mask, depth = crops["mask"][i] > 0, crops["depth"][i] * DEPTH_STEP_M
        assert mask.any() and 0.25 <= crops["visible"][i] <= 1.0
        ys, xs = np.nonzero(mask)
        # what the mask shows lies, lifted by its depth, inside the object's bounds
        lifted = camera.backproject(np.column_stack([xs, ys]).astype(float), depth[mask], K)
        inside = se3.transform(se3.invert(T), lifted)
        low, high = model.bounds_m
        assert np.mean((inside > low - 0.004) & (inside < high + 0.004)) > 0.97
        x0, y0, x1, y1 = crops["box"][i]
        assert xs.min() > x0 - 2 and xs.max() < x1 + 2 and ys.min() > y0 - 2 and ys.max() < y1 + 2


def test_frames_and_boxes_count_over_all_shards(cache):
    merged = load_shards(cache, ("frames", "boxes"))
    assert merged["frames"].shape == (6, 240, 320, 3)
    assert set(merged["boxes"][:, 0]) <= set(range(6))
    assert np.all(merged["boxes"][:, 2:6] >= 0) and np.all(merged["boxes"][:, 2:6] <= 1)


def test_a_second_call_makes_nothing_other_options_do(dataset, cache):
    library = load_objects(DEMO)
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert ensure_cache(dataset, "train", library, CacheOptions()) == cache
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    other = ensure_cache(dataset, "train", library, CacheOptions(cache_px=96))
    assert other != cache and load_shards(other, ("rgb",))["rgb"].shape[1:] == (96, 96, 3)


def test_a_detector_decides_where_crops_lie(dataset, cache):
    detector = str(find_resource("models/demo_yolo", "model"))
    folder = ensure_cache(dataset, "train", load_objects(DEMO), CacheOptions(detector=detector))
    theirs, ours = (load_shards(f, ("box", "object", "rgb")) for f in (folder, cache))
    assert 0 < len(theirs["object"]) <= len(ours["object"])
    assert not np.array_equal(theirs["rgb"][0], ours["rgb"][0])


def test_a_missing_image_is_named_and_no_shard_is_written(dataset, tmp_path):
    copy = tmp_path / "parts"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    victim = copy / "train/000001/rgb/000001.jpg"
    victim.unlink()
    with pytest.raises(DataError, match=r"000001.*000001"):
        ensure_cache(copy, "train", load_objects(DEMO), CacheOptions())
    assert not list(copy.rglob("shard_*"))
    shutil.copy(dataset / "train/000001/rgb/000001.jpg", victim)
    assert list(ensure_cache(copy, "train", load_objects(DEMO), CacheOptions()).iterdir())


def test_the_wrong_library_is_refused(dataset):
    linemod = load_objects(find_resource("config/objects/linemod.yaml", "Object library"))
    with pytest.raises(DataError, match=r"None of the data set's objects \(bracket, .*is in"):
        ensure_cache(dataset, "train", linemod, CacheOptions())


def test_mapped_shards_equal_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "rgb": rng.integers(0, 255, (5, 4, 4, 3)).astype(np.uint8),
        "object": np.arange(5),
        "boxes": np.zeros((0, 7), np.float32),
    }
    path = tmp_path / "shard_00000.npz"
    write_shard(path, arrays)
    mapped = map_shard(path)
    assert isinstance(mapped["rgb"], np.memmap)
    for key, array in arrays.items():
        assert np.array_equal(mapped[key], array) and mapped[key].dtype == array.dtype
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged"):
        map_shard(path)


def test_rows_of_several_shards_are_numbered_through(tmp_path):
    for i, rows in enumerate((3, 2, 4)):
        images = (
            np.full((rows, 2, 2, 3), i, np.uint8)
            + np.arange(rows, dtype=np.uint8)[:, None, None, None] * 10
        )
        write_shard(tmp_path / f"shard_{i:05d}.npz", {"rgb": images, "object": np.arange(rows)})
    shards = load_shards(tmp_path, ("rgb", "object"))
    assert len(shards["rgb"]) == 9 == len(shards["object"])
    seen = [int(shards["rgb"][i].max()) for i in range(9)]
    assert seen == [0, 10, 20, 1, 11, 2, 12, 22, 32]
    with pytest.raises(DataError, match="No shards"):
        load_shards(Path(tmp_path / "nowhere"), ("rgb",))
