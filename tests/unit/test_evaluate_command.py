"""``evaluate`` on a small BOP data set; only the networks' answers are made up."""

import argparse
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import LIBRARY, MESHES, K, World, pose

from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.evaluate_command import LOG_FILE, EvaluatedModel, add_arguments, run
from heatnet_ros.mesh import write_ply
from heatnet_ros.types import Frame, PipelineResult

NAMES = {1: "wedge", 2: "brick", 3: "disc", 4: "jug"}
IDS = {name: obj_id for obj_id, name in NAMES.items()}
IMAGES = 4


class StoppedError(Exception):
    """Stands for a kill in the middle."""


@pytest.fixture
def world() -> World:
    return World(("wedge", pose(-0.1, 0.0, 0.7)), ("disc", pose(0.12, 0.02, 0.8)))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "pose.yaml"
    path.write_text("/**:\n  ros__parameters:\n    objects_file: fake.yaml\n")
    return path


@pytest.fixture
def dataset(world: World, tmp_path: Path) -> Path:
    """Four images; a brick that is never found, and a jug that the model does not know."""
    folder = tmp_path / "parts"
    scene = folder / "test" / "000001"
    for kind in ("rgb", "depth"):
        (scene / kind).mkdir(parents=True)
    (folder / "models").mkdir()
    truth = [*world.truth, ("brick", pose(0.0, 0.1, 0.9)), ("jug", pose(0.0, -0.1, 0.9))]
    boxes = {d.object_id: d.bbox_xyxy_px for d in world.detections()}
    frame = world.frame()
    assert frame.depth_m is not None
    cameras, truths, infos = {}, {}, {}
    for image_id in range(IMAGES):
        cv2.imwrite(str(scene / "rgb" / f"{image_id:06d}.png"), frame.rgb[..., ::-1])
        depth = np.rint(frame.depth_m * 10000).astype(np.uint16)
        cv2.imwrite(str(scene / "depth" / f"{image_id:06d}.png"), depth)
        cameras[image_id] = {"cam_K": K.ravel().tolist(), "depth_scale": 0.1}
        truths[image_id] = [
            {
                "obj_id": IDS[name],
                "cam_R_m2c": T[:3, :3].ravel().tolist(),
                "cam_t_m2c": (T[:3, 3] * 1000).tolist(),
            }
            for name, T in truth
        ]
        infos[image_id] = [_info(boxes.get(name, (1.0, 1.0, 41.0, 41.0))) for name, _ in truth]
    for name, content in (("camera", cameras), ("gt", truths), ("gt_info", infos)):
        (scene / f"scene_{name}.json").write_text(json.dumps(content))
    models = {}
    for name in ("wedge", "brick", "disc"):
        write_ply(folder / "models" / f"obj_{IDS[name]:06d}.ply", _in_mm(name))
        models[IDS[name]] = {"diameter": LIBRARY[name].diameter_m * 1000, "name": name}
    models[3]["symmetries_continuous"] = [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]
    models[4] = {"diameter": 100.0, "name": "jug"}
    (folder / "models" / "models_info.json").write_text(json.dumps(models))
    return folder


def _info(box: tuple[float, ...]) -> dict[str, object]:
    """The pixels whose outer edges are nearest to the detector's box."""
    x0, y0, x1, y1 = (round(v + 0.5) for v in box)
    return {"visib_fract": 0.8, "bbox_visib": [x0, y0, x1 - x0, y1 - y0]}


def _in_mm(name: str):
    mesh = MESHES[name]
    return type(mesh)(mesh.vertices_m * 1000, mesh.faces, mesh.normals, mesh.colors)


def evaluate(world: World, dataset: Path, params: Path, *options: object, stop_after=None) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["--dataset", dataset, "--params", params, *options]

    def load(config: PipelineConfig) -> EvaluatedModel:
        pipeline = world.pipeline(config)
        run_frame, calls = pipeline.run, []

        def counted(frame: Frame) -> PipelineResult:
            calls.append(frame)
            if stop_after is not None and len(calls) > stop_after:
                raise StoppedError
            return run_frame(frame)

        pipeline.run = counted  # type: ignore[method-assign]
        world.calls = calls
        return EvaluatedModel(pipeline, tuple(LIBRARY.objects), "fake", {"detector": "1"})

    return run(parser.parse_args([str(a) for a in arguments]), load=load)


def test_report_has_the_promised_keys(world: World, dataset: Path, params: Path, capsys):
    out = dataset.parent / "numbers" / "e.json"
    assert evaluate(world, dataset, params, "--json", out) == 0
    document = json.loads(out.read_text())
    assert (document["dataset"], document["split"], document["model"]) == ("parts", "test", "fake")
    keys = {"targets", "add_002d", "add_005d", "add_01d", "proj_5px", "mspd", "mssd", "vsd"}
    assert set(document["objects"]) == {"wedge", "brick", "disc"}
    assert all(keys <= set(entry) for entry in [*document["objects"].values(), document["mean"]])
    wedge, brick = document["objects"]["wedge"], document["objects"]["brick"]
    assert (wedge["targets"], wedge["add_01d"], wedge["measured_on"]) == (4, 1.0, "models")
    assert wedge["vsd"] > 0.9
    assert wedge["map"] > 0.8
    assert (brick["targets"], brick["found"], brick["add_01d"], brick["vsd"]) == (4, 0, 0, 0)
    assert brick["map"] == 0.0
    assert document["mean"]["add_01d"] == pytest.approx(2 / 3)
    assert document["ar"] == pytest.approx(np.mean(list(document["ar_parts"].values())))
    assert document["objects_not_in_model"] == {"jug": 4}
    records = document["records"]
    assert len(records) == 12
    worst = [r for r in records if not r["found"]]
    assert {(r["object"], r["reason"]) for r in worst} == {("brick", "not_detected")}
    text = capsys.readouterr().out
    assert "jug (not in model)" in text
    assert "disc*" in text
    assert "brick is not symmetric in models/models_info.json, unlike" in text


def test_targets_file_says_what_counts(world: World, dataset: Path, params: Path, capsys):
    wanted = [(0, "wedge"), (0, "jug"), (2, "wedge")]
    (dataset / "test_targets_bop19.json").write_text(
        json.dumps(
            [
                {"scene_id": 1, "im_id": image, "obj_id": IDS[name], "inst_count": 1}
                for image, name in wanted
            ]
        )
    )
    out = dataset.parent / "e.json"
    evaluate(world, dataset, params, "--json", out)
    document = json.loads(out.read_text())
    assert document["images"] == 2
    assert set(document["objects"]) == {"wedge"}
    assert document["objects"]["wedge"]["targets"] == 2
    # the jug was asked for: the mean cannot look better for not knowing it
    assert document["mean"]["add_01d"] == 0.5
    assert document["mean"]["map"] == document["objects"]["wedge"]["map"] / 2
    assert document["mean_in_model"]["add_01d"] == 1.0
    assert "mean of all 2" in capsys.readouterr().out


def test_an_interrupted_run_continues(world: World, dataset: Path, params: Path):
    straight, out, again = (dataset.parent / name for name in ("s.json", "out", "a.json"))
    evaluate(world, dataset, params, "--json", straight)
    with pytest.raises(StoppedError):
        evaluate(world, dataset, params, "--out", out, stop_after=2)
    log = out / LOG_FILE
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:  # killed while it wrote
        file.write('{"name": "000001_000002", "pos')
    assert not (out / "evaluation.json").exists()
    evaluate(world, dataset, params, "--out", out, "--json", again)
    assert len(world.calls) == IMAGES - 2
    first, second = (json.loads(path.read_text()) for path in (straight, again))
    for document in (first, second):
        document.pop("median_times_s")
    assert first == second
    assert len(list((out / "overlays").iterdir())) == IMAGES
    rows = list(csv.DictReader((out / "heatnet-ros_parts-test.csv").open()))
    assert len(rows) == 2 * IMAGES
    # an image that was replaced is run again
    cv2.imwrite(
        str(dataset / "test" / "000001" / "rgb" / "000001.png"), np.full((480, 640, 3), 7, np.uint8)
    )
    evaluate(world, dataset, params, "--out", out)
    assert len(world.calls) == 1


def test_results_of_another_run_are_not_mixed_in(world: World, dataset: Path, params: Path):
    out = dataset.parent / "out"
    evaluate(world, dataset, params, "--out", out, "--limit", 1)
    params.write_text(params.read_text() + "    detector: {score_threshold: 0.5}\n")
    with pytest.raises(ConfigError, match="results of another run"):
        evaluate(world, dataset, params, "--out", out)
    log = out / LOG_FILE
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], lines[1][:50], ""]))
    params.write_text(params.read_text().replace("    detector: {score_threshold: 0.5}\n", ""))
    with pytest.raises(DataError, match="line 2 is damaged"):
        evaluate(world, dataset, params, "--out", out)


def test_incomplete_data_sets_are_refused(world: World, dataset: Path, params: Path):
    with pytest.raises(ConfigError, match="--limit: expected 1 or more"):
        evaluate(world, dataset, params, "--limit", 0)
    with pytest.raises(DataError, match="no split 'val'"):
        evaluate(world, dataset, params, "--split", "val")
    image = dataset / "test" / "000001" / "rgb" / "000003.png"
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(DataError, match=r"1 of 4 images .* missing.*000003\.png"):
        evaluate(world, dataset, params)
    image.write_bytes(content)
    targets = dataset / "test_targets_bop19.json"
    targets.write_text('[{"scene_id": 1, "im_id": 77, "obj_id": 1, "inst_count": 1}]')
    with pytest.raises(DataError, match="the first is scene 1, image 77"):
        evaluate(world, dataset, params)
    targets.unlink()
    (dataset / "test" / "000001" / "scene_gt.json").unlink()
    with pytest.raises(DataError, match="ground truth"):
        evaluate(world, dataset, params)
