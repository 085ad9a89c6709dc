"""Cached crops: labels fit the pictures, damaged data is named, options have their own cache."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from fakes import LIBRARY, SIZE_HW, World, pose

from heatnet_ros.datasets import crop_cache, synthesize
from heatnet_ros.datasets.bop import BopImage, BopScene, ObjectTruth
from heatnet_ros.datasets.crop_cache import (
    DEPTH_STEP_M,
    CacheOptions,
    _divide,
    _hash_cache,
    ensure_cache,
)
from heatnet_ros.datasets.open import open_dataset
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


def test_other_images_truths_or_detector_are_cut_anew(dataset, cache, tmp_path):
    copy, library, options = tmp_path / "parts", load_objects(DEMO), CacheOptions()
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    shutil.copytree(cache, copy / "crops" / cache.name)
    # the same data elsewhere has the same cache, and its shards are taken
    assert ensure_cache(copy, "train", library, options).name == cache.name
    scenes, digests = open_dataset(copy, "train"), set()

    def digest() -> str:
        return _hash_cache(scenes, library, options, (320, 240))[:10]

    assert cache.name == f"train-{digest()}"
    digests.add(digest())
    victim = copy / "train/000001/rgb/000001.jpg"
    victim.write_bytes(victim.read_bytes() + b"longer")
    digests.add(digest())
    for name in ("scene_gt.json", "scene_gt_info.json"):
        path = copy / "train/000000" / name
        path.write_text(path.read_text().replace("7", "8", 1))
        digests.add(digest())
    assert len(digests) == 4
    # a detector counts as what it is, not as where it lies
    detector = tmp_path / "detector"
    shutil.copytree(find_resource("models/demo_yolo", "model"), detector)
    options = CacheOptions(detector=str(detector))
    first = digest()
    moved = detector.rename(tmp_path / "moved")
    options = CacheOptions(detector=str(moved))
    assert digest() == first
    model = moved / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    manifest = yaml.safe_load((moved / "manifest.yaml").read_text())
    manifest["onnx_sha256"] = hashlib.sha256(model.read_bytes()).hexdigest()
    (moved / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    assert digest() != first


def test_a_shard_may_have_no_crop_a_split_may_not(dataset, tmp_path):
    copy, library = tmp_path / "parts", load_objects(DEMO)
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    path = copy / "train/000000/scene_gt_info.json"
    infos = json.loads(path.read_text())
    for info in (i for image in infos.values() for i in image):
        info["visib_fract"] = 0.05
    path.write_text(json.dumps(infos))
    (copy / "train/000001").rename(tmp_path / "kept")
    for _ in range(2):  # not even when the shards are there
        with pytest.raises(DataError, match=r"visible enough in any of the 3 images"):
            ensure_cache(copy, "train", library, CacheOptions())
    (tmp_path / "kept").rename(copy / "train/000001")
    (full,) = ensure_cache(copy, "train", library, CacheOptions()).glob("*.npz")
    empty = next(f for f in (copy / "crops").rglob("*.npz") if f != full)
    both = tmp_path / "both"
    both.mkdir()
    for i, shard in enumerate((empty, full, empty)):
        shutil.copy(shard, both / f"shard_{i:05d}.npz")
    joined, alone = load_shards(both, (*KEYS, "frames", "boxes")), load_shards(full.parent, KEYS)
    assert len(joined["frames"]) == 3 + 6 + 3 and len(joined["object"]) == len(joined["rgb"]) > 0
    for key in KEYS:
        assert joined[key].shape == alone[key].shape
        np.testing.assert_array_equal(joined[key][0], alone[key][0])


def test_frames_have_the_shape_of_the_images(dataset, tmp_path):
    copy = tmp_path / "parts"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    for path in copy.glob("train/*/*/*.*g"):  # 640x480 -> 640x360
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), image[:360])
    folder = ensure_cache(copy, "train", load_objects(DEMO), CacheOptions(frame_px=160))
    assert load_shards(folder, ("frames",))["frames"].shape == (6, 90, 160, 3)


def scenes_of(*sizes: int) -> list[BopScene]:
    """Scenes without pictures: who comes into which shard does not depend on them."""
    truth = ObjectTruth(1, np.eye(4), 1.0, (0.0, 0.0, 9.0, 9.0))
    return [
        BopScene(
            Path(f"{k:06d}"), k, "parts",
            tuple(
                BopImage(k, i, Path("x.jpg"), None, np.eye(3), 1e-3, (truth,)) for i in range(n)
            ), True, {1: "bracket"},
        )
        for k, n in enumerate(sizes)
    ]  # fmt: skip


@pytest.mark.parametrize("sizes", [(40,) * 30, (33,) * 25, (1, 50) * 10, (22,) * 10])
def test_held_out_scenes_are_not_trained_on(sizes):
    shards = [
        [image for image, _ in shard] for shard in _divide(scenes_of(*sizes), load_objects(DEMO))
    ]
    assert len(shards) == -(-sum(sizes) // 100)
    seen = [{image.scene_id for image in shard} for shard in shards]
    for i, scenes in enumerate(seen):
        assert 50 <= len(shards[i]) <= 150 or i == len(shards) - 1
        assert all(scenes.isdisjoint(others) for others in seen[i + 1 :])
    assert len({(m.scene_id, m.image_id) for shard in shards for m in shard}) == sum(sizes)
    assert seen[0] != set(range(len(seen[0])))  # no particular ones
    again = _divide(scenes_of(*sizes), load_objects(DEMO))
    assert [[m.image_id for m, _ in s] for s in again] == [[m.image_id for m in s] for s in shards]


@pytest.mark.parametrize("sizes", [(200,) * 13, (40,) * 9])
def test_large_or_few_scenes_are_mixed(sizes):
    shards = _divide(scenes_of(*sizes), load_objects(DEMO))
    assert len({image.scene_id for image, _ in shards[0]}) > 0.8 * len(sizes)
    assert [len(shard) for shard in shards[:-1]] == [100] * (len(shards) - 1)


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


@pytest.mark.parametrize("name", ["scene_gt.json", "scene_gt_info.json", "mask_visib/*"])
def test_a_missing_file_of_truth_is_named_and_no_shard_is_written(dataset, tmp_path, name):
    copy = tmp_path / "parts"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    victim = next((copy / "train/000001").glob(name))
    victim.unlink()
    with pytest.raises(DataError, match=rf"000001/.*{victim.name} is missing"):
        ensure_cache(copy, "train", load_objects(DEMO), CacheOptions())
    assert not list(copy.rglob("shard_*"))


@pytest.mark.parametrize("name", ["scene_gt.json", "scene_gt_info.json"])
def test_a_split_without_truth_is_not_cut(dataset, tmp_path, name):
    copy = tmp_path / "parts"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    for path in copy.rglob(name):
        path.unlink()
    with pytest.raises(DataError, match=rf"has 6 images, and for none.*000000/{name}"):
        ensure_cache(copy, "train", load_objects(DEMO), CacheOptions())
    assert not list(copy.rglob("shard_*"))


def test_only_images_whose_objects_are_known_are_background(dataset, cache, tmp_path):
    """An image without objects is background; one that the truth does not mention may be full."""
    copy = tmp_path / "parts"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("crops"))
    for name in ("scene_gt.json", "scene_gt_info.json"):
        path = copy / "train/000000" / name
        content = json.loads(path.read_text()) | {"0": []}
        del content["1"]
        path.write_text(json.dumps(content))
    folder = ensure_cache(copy, "train", load_objects(DEMO), CacheOptions())
    assert folder.name != cache.name
    (left,), (all_,) = folder.glob("*.npz"), cache.glob("*.npz")
    assert (len(map_shard(left)["frames"]), len(map_shard(all_)["frames"])) == (5, 6)
    # the empty image is there, and has no box
    assert len(np.unique(map_shard(left)["boxes"][:, 0])) == 4


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


def test_depth_that_has_no_number_is_unknown():
    world = World(("wedge", pose(0, 0, 0.7)))
    frame = world.frame()
    depth_m = np.full(SIZE_HW, 7.0, np.float32)  # 16 bits of 0.1 mm end at 6.5535 m
    depth_m[:, :300], depth_m[:, 300:310] = 6.5, np.nan
    frame = dataclasses.replace(frame, depth_m=depth_m)
    (box,) = (d.bbox_xyxy_px for d in world.detections())
    crop = crop_cache._cut(
        frame, np.ones(SIZE_HW, bool), world.truth[0][1], box, LIBRARY["wedge"], CacheOptions()
    )
    assert set(np.unique(crop["depth"])) == {0, 65000}
