"""The training files of the paper's tables: the commands in their heads, typed in."""

import argparse
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from child_environment import child_environment
from fakes import MESHES

from heatnet_ros.__main__ import build_parser
from heatnet_ros.config import GateConfig
from heatnet_ros.datasets.bop import LINEMOD_NAMES
from heatnet_ros.datasets.crop_cache import CacheOptions, ensure_cache
from heatnet_ros.datasets.shards import load_shards
from heatnet_ros.mesh import Mesh, write_ply
from heatnet_ros.objects import load_objects
from heatnet_ros.params_file import load_params

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config" / "train" / "published").glob("*.yaml"))
PARAMS = sorted((ROOT / "config").glob("pose_published_*.yaml"))
LM = ROOT.parent / "shared" / "data" / "lm" / "models"
# LINEMOD without bowl and cup, as the paper has it
NUMBERS = (1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15)


def keypoints_command(path: Path) -> str:
    """The command that makes the object library, as it stands in the file's head."""
    head = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    start = next(i for i, line in enumerate(head) if "-m heatnet_ros keypoints" in line)
    end = next(i for i in range(start, len(head)) if not head[i].endswith("\\"))
    return "\n".join(head[start : end + 1])


def parsed_commands(path: Path) -> dict[str, argparse.Namespace]:
    """Name -> arguments of every command in the file's head, read by the command's own parser."""
    head = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    text = "\n".join(head).replace("\\\n", " ")
    lines = re.findall(r"^ +python -m heatnet_ros (.*)$", text, re.MULTILINE)
    words = [shlex.split(line) for line in lines]
    return {command: build_parser(command).parse_args([command, *rest]) for command, *rest in words}


def type_in(command: str, folder: Path) -> None:
    """Run a command of a file's head with this interpreter, as in the shell."""
    command = re.sub(r"^ *python ", f"'{sys.executable}' ", command)
    environment = child_environment(OMP_NUM_THREADS="1")
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def write_models(folder: Path) -> None:
    """A brick of 120x60x40 mm for each of LINEMOD's objects."""
    folder.mkdir(parents=True)
    brick = MESHES["brick"]
    mesh = Mesh(brick.vertices_m * 1000.0, brick.faces, brick.normals, brick.colors)
    for number in NUMBERS:
        write_ply(folder / f"obj_{number:06d}.ply", mesh)
    info = {str(number): {"diameter": 140.0} for number in NUMBERS}
    (folder / "models_info.json").write_text(json.dumps(info))


def write_linemod(folder: Path, number: int, count: int = 10) -> None:
    """Images of one object, 300 mm before the camera, in the layout of Linemod_preprocessed."""
    for kind in ("rgb", "depth", "mask"):
        (folder / kind).mkdir(parents=True)
    grey, mask = np.full((120, 160, 3), 90, np.uint8), np.zeros((120, 160, 3), np.uint8)
    mask[45:75, 60:100] = 255
    for i in range(count):
        cv2.imwrite(str(folder / "rgb" / f"{i:04d}.png"), grey)
        cv2.imwrite(str(folder / "depth" / f"{i:04d}.png"), np.full((120, 160), 300, np.uint16))
        cv2.imwrite(str(folder / "mask" / f"{i:04d}.png"), mask)
    pose = {"cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 300.0]}
    truth = [{**pose, "obj_bb": [60, 45, 40, 30], "obj_id": number}]
    (folder / "gt.yml").write_text(yaml.safe_dump(dict.fromkeys(range(count), truth)))
    camera = {"cam_K": [150, 0, 80, 0, 150, 60, 0, 0, 1], "depth_scale": 1.0}
    (folder / "info.yml").write_text(yaml.safe_dump(dict.fromkeys(range(count), camera)))


def write_bop(folder: Path, linemod: Path) -> None:
    """The same images in BOP's layout."""
    for kind, suffix in (("rgb", ""), ("depth", ""), ("mask", "_000000")):
        target = folder / ("mask_visib" if kind == "mask" else kind)
        target.mkdir(parents=True)
        for i, path in enumerate(sorted((linemod / kind).iterdir())):
            shutil.copy(path, target / f"{i:06d}{suffix}.png")
    for name, source in (("scene_gt", "gt"), ("scene_camera", "info")):
        content = yaml.safe_load((linemod / f"{source}.yml").read_text())
        (folder / f"{name}.json").write_text(json.dumps(content))
    info = {str(i): [{"visib_fract": 1.0, "bbox_visib": [60, 45, 40, 30]}] for i in range(10)}
    (folder / "scene_gt_info.json").write_text(json.dumps(info))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_models(tmp_path / "data" / "lm" / "models")
    for number in (1, 10):
        folder = tmp_path / "data" / "Linemod_preprocessed" / "data" / f"{number:02d}"
        write_linemod(folder, number)
        write_bop(tmp_path / "data" / "lm" / "test" / f"{number:06d}", folder)
    return tmp_path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_heads_commands_lead_from_the_data_to_the_cells_number(path: Path):
    values, commands = yaml.safe_load(path.read_text()), parsed_commands(path)
    assert list(commands) == ["download", "keypoints", "train", "export", "evaluate"]
    train, export, evaluate = (commands[name] for name in ("train", "export", "evaluate"))
    assert ROOT / train.config == path and train.out == export.run
    assert str(evaluate.dataset) == values["data"]
    # what was held out of train-72, or the test images: never an image that was trained on
    assert values["split"] == "train-72"
    assert evaluate.split == ("test-10" if path.stem.startswith("table4") else "val-18")
    config = load_params(ROOT / evaluate.params)
    assert config.objects_file == str(commands["keypoints"].out) == values["objects_file"]
    is_detector = values["network"] == "yolo"
    role = config.detector if is_detector else config.estimator
    assert role.model == str(export.out)
    assert values.get("detector", config.detector.model) == config.detector.model


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_the_papers_poses_are_scored_without_what_the_node_adds(path: Path):
    config = load_params(path)
    assert not config.estimator.use_depth and config.refiner.name == "none"
    assert config.estimator.decode == "argmax" and config.engine.precision == "fp32"
    ranges = {field.name: field.metadata for field in dataclasses.fields(GateConfig)}
    for name, value in vars(config.gate).items():
        end = "low" if name.startswith("min") else "high"
        assert value == ranges[name][end], name


@pytest.mark.parametrize("sampling", ["fps", "cps"])
def test_the_heads_command_makes_the_library_that_training_finds(sampling: str, workspace: Path):
    """The library's names are those of the data set's objects, so that there are crops of them."""
    contents = {path: yaml.safe_load(path.read_text()) for path in FILES}
    paths = [path for path in FILES if sampling in contents[path]["objects_file"]]
    commands = {keypoints_command(path) for path in paths}
    assert paths and len(commands) == 1
    type_in(commands.pop(), workspace)
    values = contents[paths[0]]
    library = load_objects(workspace / values["objects_file"])
    assert list(library.objects) == [LINEMOD_NAMES[number] for number in NUMBERS]
    assert {model.keypoint_method for model in library.objects.values()} == {sampling}
    # the detector of the others is trained by a cell of its own: crops around the true boxes here
    options = CacheOptions(cache_px=64, margin=values.get("cache_margin", 1.0))
    for name in (values["data"], "data/lm"):
        cache = ensure_cache(workspace / name, values["split"], library, options)
        names = [list(library.objects)[i] for i in load_shards(cache, ("object",))["object"]]
        # of ten images each: 90 % to train, of them 80 % to fit
        assert sorted(names) == ["ape"] * 7 + ["eggbox"] * 7


@pytest.mark.skipif(not LM.exists(), reason=f"{LM} is absent")
def test_the_heads_command_reads_bops_models(tmp_path: Path):
    models = tmp_path / "data" / "lm" / "models"
    models.mkdir(parents=True)
    for name in ("obj_000001.ply", "obj_000010.ply", "models_info.json"):
        shutil.copy(LM / name, models)
    path = next(path for path in FILES if path.stem == "table2_rgb_fps")
    type_in(re.sub(r"\{01,.*,15\}", "{01,10}", keypoints_command(path)), tmp_path)
    library = load_objects(tmp_path / "config" / "objects" / "linemod_fps.yaml")
    assert list(library.objects) == ["ape", "eggbox"]
    assert library["ape"].diameter_m == pytest.approx(0.102, abs=1e-3)
    assert len(library["eggbox"].symmetries.discrete) == 2
