"""Rendered BOP scenes: the seed decides, workers do not; truth fits pictures; nothing is halved."""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from child_environment import child_environment

from heatnet_ros.datasets import synthesize
from heatnet_ros.datasets.bop_writer import SceneWriter, write_models
from heatnet_ros.datasets.open import open_dataset
from heatnet_ros.datasets.statistics import measure_views
from heatnet_ros.errors import ConfigError, DataError, EngineError
from heatnet_ros.geometry import se3
from heatnet_ros.mesh import load_ply, write_ply
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


def small_config(**changes) -> synthesize.SyntheticConfig:
    config = synthesize.SyntheticConfig(
        objects_file=str(DEMO),
        camera=(300.0, 300.0, 159.5, 119.5, 320, 240),
        images=6,
        images_per_scene=3,
        cameras_per_layout=2,
        seed=7,
        max_faces=0,
    )
    return dataclasses.replace(config, **changes)


def command(tmp_path: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    synthesize.add_arguments(parser)
    return parser.parse_args(["--objects", str(DEMO), "--out", str(tmp_path), *more])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "parts"
    synthesize.synthesize(small_config(sensor=0.0), out, "train", workers=1)
    return out


def test_truth_masks_and_depth_fit_each_other(dataset):
    library = load_objects(DEMO)
    scenes = open_dataset(dataset, "train")
    assert [len(scene.images) for scene in scenes] == [3, 3]
    with Rasterizer((320, 240)) as rasterizer:
        for scene in scenes:
            info = json.loads((scene.folder / "scene_gt_info.json").read_text())
            for image in scene.images:
                frame = image.load_frame()
                assert frame.depth_m is not None and image.truths
                for i, truth in enumerate(image.truths):
                    mask = image.load_mask(i)
                    model = library[scene.name_of(truth.obj_id)]
                    alone = rasterizer.render_depth(
                        model.load_mesh(), image.K, truth.T_camera_object
                    )
                    assert not np.any(mask & (alone == 0))
                    # depth is stored in millimetres
                    np.testing.assert_allclose(frame.depth_m[mask], alone[mask], atol=6e-4)
                    entry = info[str(image.image_id)][i]
                    assert entry["px_count_visib"] == np.count_nonzero(mask)
                    assert entry["px_count_valid"] == np.count_nonzero(alone)
                    assert entry["px_count_all"] >= entry["px_count_valid"]
                    assert truth.visible_fraction == pytest.approx(
                        entry["px_count_visib"] / entry["px_count_all"], abs=1e-5
                    )
                    x0, y0, x1, y1 = (int(v) for v in truth.bbox_xyxy_px)
                    assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
                    assert mask[y0].any() and mask[y1].any()


def test_holes_of_the_depth_are_not_counted_as_valid(tmp_path):
    synthesize.synthesize(small_config(images=2), tmp_path, "train", 1)
    library, (scene,) = load_objects(DEMO), open_dataset(tmp_path, "train")
    info = json.loads((scene.folder / "scene_gt_info.json").read_text())
    holes = 0
    with Rasterizer((320, 240)) as rasterizer:
        for image in scene.images:
            depth_m = image.load_frame().depth_m
            for truth, entry in zip(image.truths, info[str(image.image_id)], strict=True):
                mesh = library[scene.name_of(truth.obj_id)].load_mesh()
                inside = rasterizer.render_depth(mesh, image.K, truth.T_camera_object) > 0
                assert entry["px_count_valid"] == np.count_nonzero(inside & (depth_m > 0))
                holes += np.count_nonzero(inside & (depth_m == 0))
    assert holes > 0


def test_models_are_the_library_in_millimetres(dataset):
    library = load_objects(DEMO)
    infos = json.loads((dataset / "models/models_info.json").read_text())
    assert [info["name"] for info in infos.values()] == list(library.objects)
    for obj_id, info in infos.items():
        mesh = load_ply(dataset / f"models/obj_{int(obj_id):06d}.ply", "mm")
        model = library[info["name"]]
        np.testing.assert_allclose(mesh.bounds_m, model.bounds_m, atol=1e-5)
        assert info["diameter"] == pytest.approx(model.diameter_m * 1e3)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_same_seed_same_files_whatever_the_workers(tmp_path):
    for workers in (1, 2):
        synthesize.synthesize(small_config(), tmp_path / str(workers), "train", workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    synthesize.synthesize(small_config(images=3), tmp_path / "1", "test", 1)
    a, b = (tree(tmp_path / "1" / split / "000000") for split in ("train", "test"))
    assert a["rgb/000000.jpg"] != b["rgb/000000.jpg"]


def test_more_images_go_on_with_the_same_split_only(tmp_path, capsys):
    synthesize.synthesize(small_config(images=2), tmp_path, "train", 1)
    before = tree(tmp_path / "train/000000")
    moved = tmp_path / "moved/elsewhere.yaml"
    content = yaml.safe_load(DEMO.read_text())
    for entry in content["objects"]:
        entry["mesh"] = str(DEMO.parent / entry["mesh"])
    moved.parent.mkdir()
    moved.write_text(yaml.safe_dump(content))
    # where the files lie does not matter; a scene that is too short now is rendered anew
    more = small_config(images=4, objects_file=str(moved))
    synthesize.synthesize(more, tmp_path, "train", 1)
    assert [len(scene.images) for scene in open_dataset(tmp_path, "train")] == [3, 1]
    after = tree(tmp_path / "train/000000")
    assert after["rgb/000001.jpg"] == before["rgb/000001.jpg"]
    made = tree(tmp_path)
    assert not [name for name in made if ".old" in name or ".part" in name]
    for changes, told in (
        ({"seed": 8}, r"seed \(7 there, 8 now\)"),
        ({"renderer": "path"}, r"renderer \(raster there, path now\)"),
        ({"camera": (310.0, 300.0, 159.5, 119.5, 320, 240)}, "camera"),
        ({"settings": dataclasses.replace(more.settings, poses="any")}, r"settings.poses \(upr"),
        ({"clutter": (str(tmp_path / "models/obj_000001.ply"),), "clutter_unit": "mm"}, "clutter"),
    ):
        with pytest.raises(DataError, match=rf"made from something else: {told}.*another --out"):
            synthesize.synthesize(dataclasses.replace(more, **changes), tmp_path, "train", 1)
    assert tree(tmp_path) == made


def test_a_corrected_mesh_is_not_mixed_with_the_old_one(tmp_path):
    content = yaml.safe_load(DEMO.read_text())
    for entry in content["objects"]:
        entry["mesh"] = str(DEMO.parent / entry["mesh"])
    library = tmp_path / "objects.yaml"
    library.write_text(yaml.safe_dump(content))
    config, out = small_config(images=1, objects_file=str(library)), tmp_path / "parts"
    synthesize.synthesize(config, out, "train", 1)
    mesh = load_ply(Path(content["objects"][0]["mesh"]))
    larger = dataclasses.replace(mesh, vertices_m=mesh.vertices_m * 1.01)
    write_ply(tmp_path / "larger.ply", larger)
    content["objects"][0]["mesh"] = str(tmp_path / "larger.ply")
    library.write_text(yaml.safe_dump(content))
    name = content["objects"][0]["name"]
    for split in ("train", "test"):  # the models belong to all splits
        with pytest.raises(DataError, match=rf"train was made from.*objects.{name} \(another mesh"):
            synthesize._load.cache_clear()
            synthesize.synthesize(config, out, split, 1)
    # without the split that was made from it, nothing keeps the old mesh
    shutil.rmtree(out / "train")
    synthesize.synthesize(config, out, "train", 1)
    written = load_ply(out / "models/obj_000001.ply", "mm")
    np.testing.assert_allclose(written.bounds_m, larger.bounds_m, atol=1e-6)


def test_scenes_that_nobody_noted_the_making_of_are_left_alone(tmp_path):
    synthesize.synthesize(small_config(images=1), tmp_path, "train", 1)
    (tmp_path / "train.made_from.json").unlink()
    with pytest.raises(DataError, match=r"train.made_from.json.*is missing. Give another --out"):
        synthesize.synthesize(small_config(images=4), tmp_path, "train", 1)
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["000000"]


def test_the_larger_room_of_far_cameras_is_noted(tmp_path):
    """Pictures from 3 m that were made when all rooms had 5 m do not mix with today's."""
    far = dataclasses.replace(small_config().settings, distance_m=(3.0, 6.0))
    config = small_config(images=1, settings=far)
    synthesize.synthesize(config, tmp_path, "train", 1)
    note = tmp_path / "train.made_from.json"
    content = json.loads(note.read_text())
    assert content.pop("settings.room_half_size_m") == far.room_half_size_m > 6
    note.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"settings.room_half_size_m \(unset there, 7"):
        synthesize.synthesize(config, tmp_path, "train", 1)
    synthesize.synthesize(small_config(images=1), tmp_path / "near", "train", 1)
    assert "room" not in (tmp_path / "near/train.made_from.json").read_text()


def test_path_traced_scenes_are_the_rasterised_ones_in_another_light(tmp_path):
    pytest.importorskip("mitsuba_oidn", reason="the extra 'pathtrace' is not installed")
    small = small_config(camera=(75.0, 75.0, 39.5, 29.5, 80, 60), samples=2, images=4)
    traced = dataclasses.replace(small, renderer="path", images_per_scene=2)
    for workers in (1, 2):
        synthesize.synthesize(traced, tmp_path / str(workers), "train", workers)
    files = tree(tmp_path / "1")
    assert files == tree(tmp_path / "2")
    raster = dataclasses.replace(traced, renderer="raster")
    synthesize.synthesize(raster, tmp_path / "raster", "train", 1)
    others = tree(tmp_path / "raster")
    assert set(files) == set(others)
    differ = {name for name in files if files[name] != others[name]}
    # poses, masks and depth do not
    pictures = {name for name in files if name.endswith(".jpg")}
    assert differ == pictures | {"train.made_from.json"}


def test_without_mitsuba_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    config = synthesize.read_config(command(tmp_path, "--renderer", "path", "--images", "1"))
    with pytest.raises(EngineError, match=r"'mitsuba'.*pip install 'heatnet_ros\[pathtrace\]'"):
        synthesize.write_scene(config, tmp_path / "train", 0)
    assert not (tmp_path / "train").exists()


def test_the_command_continues_after_kill_9(tmp_path):
    arguments = [
        sys.executable, "-c",
        "import sys; from heatnet_ros.__main__ import main; sys.exit(main())",
        "synthesize", "--objects", str(DEMO), "--out", str(tmp_path), "--images", "60",
        "--workers", "1",
    ]  # fmt: skip
    environment = child_environment()
    first = subprocess.Popen(arguments, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "train/000000").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = tree(tmp_path / "train/000000")
    assert not (tmp_path / "train/000001").exists()
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    assert "60 images" in done.stdout
    assert tree(tmp_path / "train/000000") == before
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == ["000000", "000001"]
    assert len(open_dataset(tmp_path, "train")[1].images) == 20


def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path):
    synthesize.synthesize(small_config(images=3), tmp_path, "train", 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written: .*Make room"):
            synthesize.write_scene(small_config(), tmp_path / "train", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["000000"]


def test_what_cannot_be_made_is_said(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(DataError, match=r"file/parts/train cannot be made: Not a dir.*--out"):
        synthesize.synthesize(small_config(), file / "parts", "train", 1)
    with pytest.raises(DataError, match=r"file/000000/rgb cannot be written: Not a dir.*Make room"):
        SceneWriter(file / "000000")
    with pytest.raises(DataError, match=r"file/models_info.json cannot be written: File exists"):
        write_models(file, {}, {}, {}, {})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--seed", "-1"), "seed: expected 0 or more"),
        (("--images", "0"), "images and images_per_scene: expected at least 1, got 0"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, options, told):
    with pytest.raises(ConfigError, match=told):
        synthesize.read_config(command(tmp_path, *options))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("settings: {objects: [5, 3]}", r"objects: .*smaller one first.*got \(5, 3\)"),
        ("settings: {objects: [1.5, 3]}", r"objects: .*each a whole number of 0 or more"),
        ("settings: {objects: [3]}", r"objects: expected two values.*got \(3,\)"),
        ("settings: {distractors: [-1, 3]}", "distractors: .*0 or more"),
        ("settings: {distance_m: [1.2, 0.4]}", r"distance_m: .*got \(1.2, 0.4\)"),
        ("settings: {distance_m: [0, 1]}", "distance_m: .*from 0.05 to 10"),
        ("settings: {distance_m: [1, 11]}", "distance_m: .*from 0.05 to 10"),
        ("settings: {distance_m: [near, far]}", r"distance_m: .*got \('near', 'far'\)"),
        ("settings: {elevation_deg: [-20, 40]}", "elevation_deg: .*from 0 to 89"),
        ("settings: {elevation_deg: [20, 90]}", "elevation_deg: .*from 0 to 89"),
        ("settings: {light_range: [1, .nan]}", r"light_range: .*got \(1, nan\)"),
        ("settings: {spread_m: -0.2}", "spread_m: expected a number of 0 or more, got -0.2"),
        ("settings: {spread_m: .inf}", "spread_m: expected a number of 0 or more, got inf"),
        ("settings: {gap: -1}", "gap: expected a number of 0 or more, got -1"),
        ("settings: {aim_m: -0.1}", "aim_m: expected a number of 0 or more"),
        ("settings: {roll_deg: 200}", "roll_deg: expected a number from 0 to 180, got 200"),
        ("settings: {color_jitter: 1.5}", "color_jitter: expected a number from 0 to 1"),
        ("camera: [600, 600, 320, 240, 0, 0]", "camera: width: expected a whole .*got 0"),
        ("camera: [600, 600, 320, 240, 640, 480.5]", r"camera: height: .*got 480\.5"),
        ("camera: [-600, 600, 320, 240, 640, 480]", "camera: fx: .*of 1 or more, got -600"),
        ("camera: [600, 600, wide, 240, 640, 480]", "camera: cx: expected a number, got 'wide'"),
        ("camera: [600, 320, 240, 640, 480]", "camera: expected fx, fy, cx, cy, width, height"),
        ("jpeg_quality: [90]", "jpeg_quality: expected two values"),
        ("jpeg_quality: [90, 80]", "jpeg_quality: .*from 1 to 100"),
        ("sensor: -1", "sensor: expected a number of 0 or more"),
        ("max_faces: -1", "max_faces: expected a whole number of 0 or more"),
    ],
)
def test_impossible_numbers_of_a_scene_file_are_refused(tmp_path, text, told):
    path = tmp_path / "scenes.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        synthesize.load_synthetic_config(path)


def test_numbers_at_their_limits_are_taken(tmp_path):
    path = tmp_path / "scenes.yaml"
    path.write_text(
        "camera: [600, 600, -5, 240.5, 640.0, 480]\n"
        "settings: {objects: [2, 2], distractors: [0, 0], distance_m: [1, 1], spread_m: 0}\n"
    )
    config = synthesize.load_synthetic_config(path)
    assert config.size_wh == (640, 480) and config.settings.distance_m == (1, 1)


def test_no_workers_and_no_cameras_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--workers: expected 1 or more, got 0"):
        synthesize.synthesize(small_config(), tmp_path, "train", 0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="cameras_per_layout and samples 1 or more"):
        small_config(cameras_per_layout=0)
    with pytest.raises(ConfigError, match="jpeg_quality"):
        small_config(jpeg_quality=(90, 101))


def test_too_little_room_is_said_before_anything_is_rendered(tmp_path):
    with pytest.raises(DataError, match=r"images take about .* GB"):
        synthesize.synthesize(small_config(images=10**9), tmp_path, "train", 1)
    half_written = tmp_path / "train/000000.part"
    half_written.mkdir()
    with pytest.raises(DataError, match=r"^1000000000 images take about"):
        synthesize.synthesize(small_config(images=10**9), tmp_path, "train", 1)


def test_missing_mesh_and_wrong_options_say_what_to_do(tmp_path):
    content = yaml.safe_load(DEMO.read_text())
    content["objects"][0]["mesh"] = "nowhere.ply"
    library = tmp_path / "objects.yaml"
    library.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=r"mesh of 'bracket'.*nowhere.ply is not there"):
        synthesize.synthesize(small_config(objects_file=str(library)), tmp_path, "train", 1)
    with pytest.raises(ConfigError, match=r"--distance '2,1': expected 0.1 < NEAR < FAR"):
        synthesize.read_config(command(tmp_path, "--distance", "2,1"))
    path = tmp_path / "scenes.yaml"
    path.write_text("images: 3\nsettings: {distance: [1, 2]}\n")
    with pytest.raises(ConfigError, match="Did you mean 'distance_m'"):
        synthesize.load_synthetic_config(path)
    path.write_text("settings: {poses: lying}\n")
    with pytest.raises(ConfigError, match="upright, resting, any"):
        synthesize.load_synthetic_config(path)


def test_statistics_of_a_data_set_are_taken_over(dataset, tmp_path):
    views = measure_views(dataset, "train")
    assert views.camera == (300.0, 300.0, 159.5, 119.5, 320, 240)
    low, high = synthesize.SyntheticConfig().settings.distance_m
    assert low * 0.5 < views.distance_m[0] < views.distance_m[1] < high * 1.6
    args = command(tmp_path, "--like", f"{dataset}:train")
    config = synthesize.read_config(args)
    assert config.camera == views.camera and config.settings.distance_m == views.distance_m


@pytest.mark.parametrize("poses", ["resting", "any"])
def test_objects_may_lie_on_other_sides(poses, tmp_path):
    pytest.importorskip("scipy", reason="resting poses need SciPy")
    settings = dataclasses.replace(small_config().settings, poses=poses)
    synthesize.synthesize(small_config(settings=settings, images=3), tmp_path, "train", 1)
    image = open_dataset(tmp_path, "train")[0].images[0]
    # upright objects share the table's normal as their z axis
    up = np.stack([truth.T_camera_object[:3, 2] for truth in image.truths])
    assert len(up) > 1 and np.min(up @ up.T) < 0.99
    for truth in image.truths:
        np.testing.assert_allclose(
            se3.orthonormalize(truth.T_camera_object[:3, :3]), truth.T_camera_object[:3, :3],
            atol=1e-5,
        )  # fmt: skip
