"""``predict`` end to end on small inputs; only the networks' answers are made up."""

import argparse
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import K, World, pose

from heatnet_ros.datasets import bop
from heatnet_ros.errors import ConfigError, DataError, ModelError
from heatnet_ros.image_inputs import list_file_inputs
from heatnet_ros.predict import add_arguments, run

CAMERA = "615,612,320,241"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "pose.yaml"
    path.write_text("/**:\n  ros__parameters:\n    autostart: true\n    objects_file: fake.yaml\n")
    return path


@pytest.fixture
def world() -> World:
    return World(("wedge", pose(-0.1, 0.0, 0.7)), ("disc", pose(0.12, 0.02, 0.8)))


def predict(world: World, params: Path, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([*map(str, arguments), "--params", str(params)])
    return run(args, load=world.pipeline)


def write_pair(world: World, color: Path, depth: Path | None) -> None:
    frame = world.frame()
    for path in filter(None, (color, depth)):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(color), frame.rgb[..., ::-1])
    if depth is not None:
        assert frame.depth_m is not None
        cv2.imwrite(str(depth), np.rint(frame.depth_m * 1000).astype(np.uint16))


def test_folder_of_pairs(world: World, params: Path, tmp_path: Path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_pair(world, folder / "rgb" / "a.png", folder / "depth" / "a.png")
    write_pair(world, folder / "rgb" / "b.png", None)
    assert predict(world, params, folder, "--camera", CAMERA, "--out", out) == 0
    document = json.loads((out / "poses.json").read_text())
    with_depth, without = document["predictions"]
    (wedge, disc) = with_depth["poses"]
    assert (wedge["object"], disc["object"]) == ("wedge", "disc")
    T = np.array(wedge["T_camera_object_m"])
    np.testing.assert_allclose(T, world.truth[0][1], atol=0.002)
    assert np.array(wedge["covariance_m_rad"]).shape == (6, 6)
    assert wedge["depth_error_m"] == pytest.approx(0.0, abs=0.002)
    assert set(with_depth["timings_s"]) == {"detect", "estimate", "refine", "gate", "filter"}
    assert with_depth["engines"]["detector"] == "fake CPU fp32"
    # the network takes depth: an image without it gives reasons, no poses
    assert without["poses"] == []
    assert [entry["reason"] for entry in without["rejected"]] == ["no_depth", "no_depth"]
    assert len(without["rejected"][0]["detection"]["bbox_xyxy_px"]) == 4
    for name in ("a", "b"):
        overlay = cv2.imread(str(out / "overlays" / f"{name}.png"))
        assert overlay.shape == (480, 640, 3)
        assert overlay.any()
    with (out / "poses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["im_id"], row["obj_id"]) for row in rows] == [("0", "1"), ("0", "3")]
    assert document["bop_obj_ids"] == {"wedge": 1, "brick": 2, "disc": 3}
    text = capsys.readouterr()
    assert "2 images, 1 with depth; detector: fake CPU fp32" in text.out
    assert "2 poses, 2 boxes rejected (no_depth 2)" in text.out
    assert "predict 2/2" in text.err


def test_single_image_with_depth_in_other_units(world: World, params: Path, tmp_path: Path):
    color, depth = tmp_path / "x.png", tmp_path / "x_depth.png"
    write_pair(world, color, None)
    depth_m = world.frame().depth_m
    assert depth_m is not None
    cv2.imwrite(str(depth), np.rint(depth_m * 10000).astype(np.uint16))
    (tmp_path / "camera.json").write_text(
        '{"fx": 615, "fy": 612, "cx": 320, "cy": 241, "width": 640, "height": 480}'
    )
    options = ("--depth", depth, "--depth-scale", 0.0001, "--out", tmp_path / "out")
    assert predict(world, params, color, *options) == 0
    document = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert document["summary"]["poses"] == 2


@pytest.fixture
def scene(world: World, tmp_path: Path, monkeypatch) -> Path:
    """A BOP scene of a data set whose objects are called like the fake library's."""
    monkeypatch.setattr(bop, "LINEMOD_NAMES", {1: "wedge", 2: "brick", 3: "disc"})
    folder = tmp_path / "lm" / "test" / "000004"
    ids = {"wedge": 1, "brick": 2, "disc": 3}
    cameras, truths, infos = {}, {}, {}
    for image_id in (7, 9):
        name = f"{image_id:06d}.png"
        write_pair(world, folder / "rgb" / name, folder / "depth" / name)
        cameras[image_id] = {"cam_K": K.ravel().tolist(), "depth_scale": 1.0}
        # the brick is never detected; in image 9 it is too hidden to count
        seen = [*world.truth, ("brick", pose(0.0, 0.1, 0.9))]
        truths[image_id] = [
            {
                "obj_id": ids[name],
                "cam_R_m2c": T[:3, :3].ravel().tolist(),
                "cam_t_m2c": (T[:3, 3] * 1000).tolist(),
            }
            for name, T in seen
        ]
        fractions = [1.0, 1.0, 0.5 if image_id == 7 else 0.05]
        infos[image_id] = [{"visib_fract": f, "bbox_visib": [1, 1, 9, 9]} for f in fractions]
    for name, content in (("camera", cameras), ("gt", truths), ("gt_info", infos)):
        (folder / f"scene_{name}.json").write_text(json.dumps(content))
    return folder


def test_bop_scene_is_scored(scene: Path, world: World, params: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert predict(world, params, scene, "--out", out, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    objects = summary["score"]["objects"]
    assert objects["wedge"]["add_01d"] == 1.0
    assert objects["wedge"]["median_error_mm"] < 2.0
    assert objects["disc"]["proj_5px"] == 1.0
    assert (objects["brick"]["targets"], objects["brick"]["found"]) == (1, 0)
    assert summary["score"]["mean"]["add_01d"] == pytest.approx(2 / 3)
    with (out / "heatnet-ros_lm-test.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["scene_id"], row["im_id"], row["obj_id"]) == ("4", "7", "1")
    t_mm = np.array(row["t"].split(), float)
    np.testing.assert_allclose(t_mm, world.truth[0][1][:3, 3] * 1000, atol=2.0)
    assert (out / "overlays" / "000004_000009.png").exists()


def test_objects_that_were_not_asked_for_are_not_missed(
    scene: Path, world: World, params: Path, tmp_path: Path, capsys
):
    with params.open("a") as file:
        file.write("    objects: [wedge]\n    laser: {rate: 3.0}\n")
    targets = tmp_path / "targets.json"
    asked = [{"scene_id": 4, "im_id": 7, "obj_id": i, "inst_count": 1} for i in (1, 3)]
    targets.write_text(json.dumps(asked))
    for more in ((), ("--targets", targets)):
        assert predict(world, params, scene, "--out", tmp_path / "out", "--json", *more) == 0
        captured = capsys.readouterr()
        assert "'laser.rate' is unknown and ignored" in captured.err
        score = json.loads(captured.out)["score"]
        assert list(score["objects"]) == ["wedge"] and score["mean"]["add_01d"] == 1.0


def test_bop_split_limit_targets_and_table(
    scene: Path, world: World, params: Path, tmp_path: Path, capsys
):
    out = tmp_path / "out"
    predict(world, params, scene.parent, "--out", out, "--limit", 1)
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith("1 images, 1 with depth")
    assert "ADD(-S) 0.1d" in text
    targets = tmp_path / "targets.json"
    targets.write_text('[{"scene_id": 4, "im_id": 9, "obj_id": 1, "inst_count": 1}]')
    predict(world, params, scene, "--out", out, "--targets", targets)
    document = json.loads((out / "poses.json").read_text())
    assert [entry["image_id"] for entry in document["predictions"]] == [9]


def test_objects_of_another_data_set_are_refused(
    scene: Path, world: World, params: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(bop, "LINEMOD_NAMES", {1: "wedge"})
    with pytest.raises(DataError, match="Object 'brick' has no id in BOP data set 'lm'"):
        predict(world, params, scene, "--out", tmp_path / "out")


def test_a_damaged_image_is_reported_and_the_others_go_on(
    world: World, params: Path, tmp_path: Path, capsys
):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b", "c"):
        write_pair(world, folder / "rgb" / f"{name}.png", folder / "depth" / f"{name}.png")
    (folder / "rgb" / "b.png").write_bytes((folder / "rgb" / "b.png").read_bytes()[:99])
    assert predict(world, params, folder, "--camera", CAMERA, "--out", out) == 1
    document = json.loads((out / "poses.json").read_text())
    assert [entry["name"] for entry in document["predictions"]] == ["a", "c"]
    assert len(document["predictions"][1]["poses"]) == 2
    (failure,) = document["summary"]["failures"]
    assert "b.png cannot be decoded" in failure
    assert f"error: {failure}" in capsys.readouterr().err


def test_nothing_but_damaged_images(world: World, params: Path, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded.*with 1 other"):
        predict(world, params, tmp_path, "--camera", CAMERA, "--out", tmp_path / "out")


def test_camera_is_never_guessed(world: World, params: Path, tmp_path: Path):
    write_pair(world, tmp_path / "x.png", None)
    with pytest.raises(ConfigError, match=r"No camera calibration for .*x\.png.*--camera"):
        predict(world, params, tmp_path / "x.png", "--out", tmp_path / "out")


def test_calibration_of_another_resolution(world: World, params: Path, tmp_path: Path):
    write_pair(world, tmp_path / "x.png", None)
    camera = tmp_path / "c.json"
    camera.write_text('{"fx": 9, "fy": 9, "cx": 9, "cy": 9, "width": 1280, "height": 720}')
    with pytest.raises(DataError, match=r"x\.png is 640x480.* is for 1280x720"):
        predict(world, params, tmp_path / "x.png", "--camera", camera, "--out", tmp_path / "o")


def test_wrong_inputs(scene: Path, world: World, params: Path, tmp_path: Path):
    def fails(kind: type, message: str, *arguments: object) -> None:
        with pytest.raises(kind, match=message):
            predict(world, params, *arguments, "--out", tmp_path / "out")

    empty = tmp_path / "empty"
    empty.mkdir()
    camera = ("--camera", CAMERA)
    fails(DataError, "nowhere does not exist", tmp_path / "nowhere", *camera)
    fails(DataError, "holds no images", empty, *camera)
    fails(ConfigError, "--depth belongs to a single image", empty, *camera, "--depth", "d.png")
    fails(ConfigError, "with its own calibration", scene, *camera)
    fails(ConfigError, "--limit: expected 1 or more, got 0", scene, "--limit", 0)
    fails(ConfigError, "--depth-scale: expected", scene, "--depth-scale", 0)
    fails(ConfigError, "--targets needs a BOP scene", empty, "--targets", "t.json")
    for suffix in ("png", "jpg"):
        write_pair(world, tmp_path / "twice" / f"a.{suffix}", None)
    fails(DataError, "several images named a", tmp_path / "twice", *camera)


def test_missing_model_is_reported_before_anything_is_written(tmp_path: Path):
    path, out = tmp_path / "pose.yaml", tmp_path / "out"
    path.write_text(
        "/**:\n  ros__parameters:\n    objects_file: config/objects/demo.yaml\n"
        f"    detector: {{model: {tmp_path}}}\n    estimator: {{model: {tmp_path}}}\n"
    )
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((480, 640, 3), np.uint8))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = [tmp_path / "x.png", "--params", path, "--camera", CAMERA, "--out", out]
    with pytest.raises(ModelError, match=r"has no manifest\.yaml"):
        run(parser.parse_args([str(argument) for argument in arguments]))
    assert not out.exists()


def test_what_is_missing_is_told_before_it_disappoints(
    world: World, params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_pair(world, tmp_path / "x.png", None)
    predict(world, params, tmp_path / "x.png", "--camera", CAMERA, "--out", tmp_path / "out")
    said = capsys.readouterr().err
    assert "takes depth and no image has any" in said and "Give --depth FILE" in said
    assert "3 of 3 objects have no mesh here" in said


def test_depth_in_another_unit_is_told(
    world: World, params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    color, depth = tmp_path / "x.png", tmp_path / "d.png"
    write_pair(world, color, depth)
    for scale, told in (("0.001", False), ("1", True)):
        options = ("--depth", depth, "--camera", CAMERA, "--depth-scale", scale)
        predict(world, params, color, *options, "--out", tmp_path / scale)
        said = capsys.readouterr()
        assert ("Is --depth-scale right" in said.err) is told
        assert ("x: wedge at " in said.out) is not told


def test_a_data_set_or_its_rgb_folder_is_led_to_the_right_place(tmp_path: Path):
    scene = tmp_path / "set" / "test" / "000001"
    (scene / "rgb").mkdir(parents=True)
    (scene / "scene_camera.json").write_text("{}")
    with pytest.raises(DataError, match=r"is a BOP data set. Give one of its splits \(test\)"):
        list_file_inputs(tmp_path / "set", None, None, 0.001)
    cv2.imwrite(str(scene / "rgb" / "000000.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"belongs to the BOP scene .*000001, which knows"):
        list_file_inputs(scene / "rgb", None, None, 0.001)
