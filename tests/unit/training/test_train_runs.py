"""``train`` from its command line to a network, and data that is not as it should be."""

import json

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from sphere_crops import make_crops, sphere_model  # noqa: E402

from heatnet_ros.__main__ import main  # noqa: E402
from heatnet_ros.datasets.shards import write_shard  # noqa: E402
from heatnet_ros.training import train_heatnet, train_yolo  # noqa: E402
from heatnet_ros.training.batches import NumberedBatches, Position  # noqa: E402

pytestmark = pytest.mark.train
SMALL = {"batch": 4, "validation_shards": 1, "workers": 0, "tensorboard": False}
HEATNET = {"width": 8, "decoder": 16, "crop_px": 64}


@pytest.fixture
def files(tmp_path):
    """A library of one sphere and two shards of it, as crops and as frames."""
    data = tmp_path / "shards"
    data.mkdir()
    for i in range(2):
        crops = make_crops(6, seed=i)
        frames = np.full((6, 120, 160, 3), 90, np.uint8)
        frames[:, 40:80, 60:100] = 200
        row = [0.0, 60 / 160, 40 / 120, 100 / 160, 80 / 120, 1.0]
        boxes = np.array([[k, *row] for k in range(6)], np.float32)
        write_shard(data / f"shard_{i:05d}.npz", {**crops, "frames": frames, "boxes": boxes})
    model = sphere_model()
    entry = {
        "name": model.name, "diameter_m": model.diameter_m, "bounds_m": model.bounds_m.tolist(),
        "keypoints_m": model.keypoints_m.tolist(), "surface": model.surface.tolist(),
    }  # fmt: skip
    library = tmp_path / "library.yaml"
    library.write_text(yaml.safe_dump({"name": "balls", "objects": [entry]}))
    return {"objects_file": str(library), "data": str(data)}


def train(tmp_path, values, *options) -> int:
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    return main(["train", "--config", str(config), "--out", str(tmp_path / "run"), *options])


def test_heatnet_from_the_command_line_and_on_again(files, tmp_path, capsys):
    values = {"network": "heatnet", **files, **SMALL, **HEATNET}
    assert train(tmp_path, values, "--samples", "8", "--device", "cpu") == 0
    assert train(tmp_path, values, "--samples", "16", "--device", "cpu") == 0
    assert "continuing after 8 samples" in capsys.readouterr().out
    state = torch.load(tmp_path / "run" / "final.pt", weights_only=True)
    assert state["seen"] == 16 and state["network"]["width"] == 8
    assert state["config"]["device"] == "cpu"
    # as many keypoints in another order: the shapes fit, the labels mean other points
    library = tmp_path / "library.yaml"
    content = yaml.safe_load(library.read_text())
    content["objects"][0]["keypoints_m"].reverse()
    before = library.read_text()
    library.write_text(yaml.safe_dump(content))
    assert train(tmp_path, values, "--samples", "24", "--device", "cpu") == 1
    assert "trained for other keypoints or symmetries" in capsys.readouterr().err
    library.write_text(before)
    # another shape of network does not continue this run
    assert train(tmp_path, values | {"width": 16}, "--samples", "16") == 1
    assert "another --out" in capsys.readouterr().err


def test_the_detector_takes_its_input_size_from_the_frames(files, tmp_path, capsys):
    pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")
    values = {"network": "yolo", **files, **SMALL}
    assert train(tmp_path, values, "--samples", "4") == 0
    state = torch.load(tmp_path / "run" / "final.pt", weights_only=True)
    assert state["input_hw"] == [128, 160] and state["objects"] == ["ball"]
    # as many classes, but others
    library = tmp_path / "library.yaml"
    library.write_text(library.read_text().replace("name: ball\n", "name: cube\n"))
    assert train(tmp_path, values, "--samples", "8") == 1
    assert "trained for ball in this order" in capsys.readouterr().err


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_scores_of_the_detector_leave_the_arithmetic_to_the_caller(precision, files):
    pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")
    config = train_yolo.YoloTrainConfig(**files, **SMALL, device="cpu")
    task = train_yolo.build_task(config)
    computed = set()
    task.net.model[0].register_forward_hook(lambda *call: computed.add(call[2].dtype))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        task.score(1)
    assert computed == {precision or torch.float32}


@pytest.mark.parametrize("network", ["rgb", "rgbd", "yolo"])
def test_every_weight_takes_part_in_a_step(files, network):
    # DistributedDataParallel waits for the gradient of each one
    if network == "yolo":
        pytest.importorskip("ultralytics", reason="ultralytics is in the train extra")
        config = train_yolo.YoloTrainConfig(**files, **SMALL)
        task = train_yolo.build_task(config)
    else:
        config = train_heatnet.TrainConfig(**files, **SMALL, **HEATNET, rgbd=network == "rgbd")
        task = train_heatnet.build_task(config)
    stream = NumberedBatches(task.make_batch, task.size, config.batch, 0, Position())
    task.net.train()
    task.loss_of(next(iter(stream))).backward()
    named = [(n, p) for n, p in task.net.named_parameters() if p.requires_grad]
    assert len(named) > 50
    assert [name for name, parameter in named if parameter.grad is None] == []


def test_data_that_is_not_there(files, tmp_path, capsys):
    values = {"network": "heatnet", **files, **SMALL, **HEATNET}
    assert train(tmp_path, values | {"data": str(tmp_path / "nowhere")}) == 1
    said = capsys.readouterr().err
    assert "nowhere' is no folder" in said and "synthesize" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert train(tmp_path, values | {"data": str(empty)}) == 1
    assert "Expected BOP" in capsys.readouterr().err
    values |= {"data": str(empty), "detector": str(tmp_path / "model")}
    assert train(tmp_path, values) == 1
    assert "Train and export the detector first" in capsys.readouterr().err


def test_a_damaged_shard_is_named(files, tmp_path, capsys):
    path = tmp_path / "shards" / "shard_00001.npz"
    path.write_bytes(path.read_bytes()[:5000])
    assert train(tmp_path, {"network": "heatnet", **files, **SMALL, **HEATNET}) == 1
    assert "shard_00001.npz is damaged" in capsys.readouterr().err


def test_a_data_set_with_a_missing_image_is_named(files, tmp_path, capsys):
    scene = tmp_path / "parts" / "train" / "000000"
    models = tmp_path / "parts" / "models"
    scene.mkdir(parents=True)
    models.mkdir()
    K = [600.0, 0, 319.5, 0, 600.0, 239.5, 0, 0, 1]
    R = np.eye(3).ravel().tolist()
    truth = {"obj_id": 1, "cam_R_m2c": R, "cam_t_m2c": [0.0, 0.0, 700.0]}
    box = [280, 200, 80, 80]
    info = {"bbox_obj": box, "bbox_visib": box, "visib_fract": 1.0}
    (scene / "scene_camera.json").write_text(json.dumps({"0": {"cam_K": K, "depth_scale": 0.1}}))
    (scene / "scene_gt.json").write_text(json.dumps({"0": [truth]}))
    (scene / "scene_gt_info.json").write_text(json.dumps({"0": [info]}))
    models_info = {"1": {"diameter": 100.0, "name": "ball"}}
    (models / "models_info.json").write_text(json.dumps(models_info))
    values = {"network": "heatnet", **files, **SMALL, **HEATNET, "data": str(tmp_path / "parts")}
    assert train(tmp_path, values) == 1
    assert str(scene) in capsys.readouterr().err
    assert not list((tmp_path / "parts").rglob("*.npz"))
