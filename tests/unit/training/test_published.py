"""The training files of the paper's tables: as generated, and as the paper has them."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from fakes import MESHES

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.datasets.bop import LINEMOD_NAMES  # noqa: E402
from heatnet_ros.datasets.shards import load_shards  # noqa: E402
from heatnet_ros.mesh import Mesh, write_ply  # noqa: E402
from heatnet_ros.objects import load_objects  # noqa: E402
from heatnet_ros.resources import find_resource  # noqa: E402
from heatnet_ros.train_command import choose_trainer  # noqa: E402
from heatnet_ros.training import published  # noqa: E402
from heatnet_ros.training.heatnet import PRESETS, HeatNetConfig  # noqa: E402
from heatnet_ros.training.prepare import prepare_data  # noqa: E402
from heatnet_ros.training.ranks import Place  # noqa: E402
from heatnet_ros.training.run_config import add_run_arguments, read_config  # noqa: E402
from heatnet_ros.training.train_heatnet import TrainConfig, build_network  # noqa: E402
from heatnet_ros.training.train_yolo import YoloTrainConfig  # noqa: E402

pytestmark = pytest.mark.train
FOLDER = find_resource(published.FOLDER, "Published training files")
FILES = sorted(FOLDER.glob("*.yaml"))
ROOT = Path(__file__).parents[3]
LM = ROOT.parent / "shared" / "data" / "lm" / "models"
# LINEMOD without bowl and cup, as the paper has it
NUMBERS = (1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15)


def read(path, kind):
    import argparse

    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return read_config(parser.parse_args(["--config", str(path), "--out", "x"]), kind)


def test_committed_files_are_the_generated_ones(tmp_path):
    published.main(["--out", str(tmp_path)])
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert generated == {path.name: path.read_text() for path in FOLDER.iterdir()}


def test_there_is_one_file_for_every_cell():
    # Table 2: detector, CPS, FPS; Table 3: three schedules by three activations; Table 4: two
    assert [sum(f"table{n}_" in path.name for path in FILES) for n in (2, 3, 4)] == [3, 9, 2]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_by_its_trainer_and_names_itself(path):
    values = yaml.safe_load(path.read_text())
    trainer = choose_trainer(values, path)
    kind = YoloTrainConfig if values["network"] == "yolo" else TrainConfig
    assert trainer.config == kind.__name__
    config = read(path, kind)
    assert f"published/{path.name}" in path.read_text()
    assert config.batch == 16
    if kind is TrainConfig:
        assert (config.optimizer, config.epochs, config.preset) == ("adam", 30, "full")
        assert not any(vars(config.augment).values())
        peak = 5e-4 if config.schedule == "onecycle" else 1e-4
        assert config.learning_rate == peak
    else:
        assert config.size == "m"


def test_the_full_preset_has_the_papers_numbers():
    config = HeatNetConfig(objects=13, keypoints=50, **PRESETS["full"])
    assert (config.crop_px, config.heatmap_px, config.sigma) == (256, 64, 2.0)
    assert (config.loss, config.width) == ("focal", 64)


def test_a_cell_builds_the_network_it_names(tmp_path):
    values = published.heatnet_file(True, "fps", "onecycle", "mish")
    demo = find_resource("config/objects/demo.yaml", "Object library")
    path = tmp_path / "cell.yaml"
    path.write_text(yaml.safe_dump(values | {"objects_file": str(demo)}))
    net = build_network(read(path, TrainConfig))
    assert net.config.rgbd and net.config.activation == "mish" and net.config.width == 64


def keypoints_command(path):
    """The command that makes the object library, as it stands in the file's head."""
    head = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    start = next(i for i, line in enumerate(head) if "-m heatnet_ros keypoints" in line)
    end = next(i for i in range(start, len(head)) if not head[i].endswith("\\"))
    return "\n".join(head[start : end + 1])


def type_in(command, folder):
    """Run a command of a file's head with this interpreter, as in the shell."""
    command = re.sub(r"^ *python ", f"'{sys.executable}' ", command)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_models(folder):
    """A brick of 120x60x40 mm for each of LINEMOD's objects."""
    folder.mkdir(parents=True)
    brick = MESHES["brick"]
    mesh = Mesh(brick.vertices_m * 1000.0, brick.faces, brick.normals, brick.colors)
    for number in NUMBERS:
        write_ply(folder / f"obj_{number:06d}.ply", mesh)
    info = {str(number): {"diameter": 140.0} for number in NUMBERS}
    (folder / "models_info.json").write_text(json.dumps(info))


def write_linemod(folder, number, count=10):
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


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    write_models(tmp_path / "data" / "lm" / "models")
    for number in (1, 10):
        write_linemod(tmp_path / "data" / "Linemod_preprocessed" / "data" / f"{number:02d}", number)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("sampling", ["fps", "cps"])
def test_the_heads_command_makes_the_library_that_training_finds(sampling, workspace):
    """The library's names are those of the data set's objects, so that there are crops of them."""
    paths = [
        p for p in FILES if f"linemod_{sampling}" in yaml.safe_load(p.read_text())["objects_file"]
    ]
    commands = {keypoints_command(path) for path in paths}
    assert len(commands) == 1
    type_in(commands.pop(), workspace)
    values = yaml.safe_load(paths[0].read_text())
    library = load_objects(workspace / values["objects_file"])
    assert list(library.objects) == [LINEMOD_NAMES[number] for number in NUMBERS]
    assert {m.keypoint_method for m in library.objects.values()} == {sampling}
    # the detector is trained by another cell: crops around the true boxes here
    config = dataclasses.replace(read(paths[0], TrainConfig), detector="")
    crops = load_shards(
        Path(prepare_data(config, Place(torch.device("cpu"))).data), ("object", "keypoints")
    )
    names = [list(library.objects)[index] for index in crops["object"]]
    assert sorted(names) == ["ape"] * 7 + ["eggbox"] * 7


@pytest.mark.skipif(not LM.exists(), reason=f"{LM} is absent")
def test_the_heads_command_reads_bops_models(tmp_path):
    models = tmp_path / "data" / "lm" / "models"
    models.mkdir(parents=True)
    for name in ("obj_000001.ply", "obj_000010.ply", "models_info.json"):
        shutil.copy(LM / name, models)
    command = keypoints_command(FOLDER / "table2_rgb_fps.yaml")
    type_in(command.replace(published.NUMBERS, "01,10"), tmp_path)
    library = load_objects(tmp_path / "config" / "objects" / "linemod_fps.yaml")
    assert list(library.objects) == ["ape", "eggbox"]
    assert library["ape"].diameter_m == pytest.approx(0.102, abs=1e-3)
    assert len(library["eggbox"].symmetries.discrete) == 2
