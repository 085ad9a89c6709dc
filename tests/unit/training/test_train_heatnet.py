"""A whole HeatNet training on closed-form crops, its options, and the comparison of options."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from sphere_crops import make_crops, sphere_model  # noqa: E402

from heatnet_ros.config import build_config  # noqa: E402
from heatnet_ros.datasets.shards import write_shard  # noqa: E402
from heatnet_ros.errors import ConfigError  # noqa: E402
from heatnet_ros.objects import ObjectLibrary, load_objects  # noqa: E402
from heatnet_ros.training import ablate  # noqa: E402
from heatnet_ros.training.auxiliary import LossWeights  # noqa: E402
from heatnet_ros.training.crops import load_crops  # noqa: E402
from heatnet_ros.training.evaluate_heatnet import (  # noqa: E402
    evaluate_crops,
    list_numbers,
    mean_scores,
)
from heatnet_ros.training.heatnet import HeatNet  # noqa: E402
from heatnet_ros.training.train_heatnet import (  # noqa: E402
    TrainConfig,
    build_network,
    network_config,
    train,
)

pytestmark = pytest.mark.train
TINY = {"width": 8, "decoder": 16, "crop_px": 64, "batch": 8, "validation_shards": 1,
        "workers": 0, "tensorboard": False, "score_s": 0.0, "device": "cpu"}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """An object library and a folder of shards: what a training file names."""
    data = tmp_path / "crops"
    data.mkdir()
    for i in range(2):
        write_shard(data / f"shard_{i:05d}.npz", make_crops(8, seed=i))
    model = sphere_model()
    entry = {
        "name": model.name, "diameter_m": model.diameter_m, "bounds_m": model.bounds_m.tolist(),
        "keypoints_m": model.keypoints_m.tolist(), "surface": model.surface.tolist(),
    }  # fmt: skip
    library = tmp_path / "library.yaml"
    library.write_text(yaml.safe_dump({"name": "balls", "objects": [entry]}))
    return {"objects_file": str(library), "data": str(data)}


def everything(files, **changes) -> TrainConfig:
    return TrainConfig(
        **{**TINY, **files, "samples": 32, "stem": "light", "lateral_place": "inside",
           "condition": "all", "decoder_fine": 8, "curriculum": 0.5,
           "weights": LossWeights(mask=1, coordinates=2, deep=0.5, position=0.1, confidence=1),
           **changes}
    )  # fmt: skip


def test_a_training_with_everything_writes_a_network_that_loads(files, tmp_path):
    config = everything(files)
    train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "final.pt", weights_only=True)
    library = load_objects(tmp_path / "library.yaml")
    net = HeatNet(type(network_config(config, library))(**state["network"]))
    net.load_state_dict(state["net"])
    again = build_config(TrainConfig, state["config"], "checkpoint")
    assert again == config and again.weights.coordinates == 2
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    held_out = log[-1]["held_out"]
    assert {"mean_px", "mean_recall", "ball_px", "ball_recall"} == set(held_out)


def test_a_training_file_says_more_than_the_preset(files):
    library = load_objects(Path(files["objects_file"]))
    lite = network_config(TrainConfig(**files), library)
    assert (lite.width, lite.crop_px, lite.loss, lite.stem) == (32, 128, "softmax", "resnet")
    assert not (lite.dense_head or lite.deep_head or lite.confidence)
    full = network_config(TrainConfig(**files, preset="full", activation="mish"), library)
    assert (full.width, full.loss, full.sigma, full.activation) == (64, "focal", 2.0, "mish")
    changed = network_config(everything(files, sigma=1.5, loss="focal"), library)
    assert (changed.sigma, changed.loss, changed.condition) == (1.5, "focal", "all")
    assert changed.dense_head and changed.deep_head and changed.confidence
    with pytest.raises(ConfigError, match="expected one of head, decoder, all"):
        build_config(TrainConfig, {"condition": "film"}, "file")


def test_first_weights_depend_on_the_seed_alone(files):
    a, b = (build_network(everything(files)) for _ in range(2))
    c = build_network(everything(files, seed=1))
    for key, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[key])
    assert not torch.equal(a.rgb.conv1.weight, c.rgb.conv1.weight)


def test_evaluation_of_a_network_that_answers_with_the_truth(files):
    """Heatmaps of the true keypoints give the true pose; shifted ones do not."""
    crops = load_crops(Path(files["data"]), 0, 1)
    library = load_objects(Path(files["objects_file"]))
    assert isinstance(library, ObjectLibrary)
    net = build_network(everything(files, weights=LossWeights()))
    scores = evaluate_crops(net, crops, library, 1.3)
    assert scores["ball"]["crops"] == 8 and scores["ball"]["recall_add_01d"] < 0.5
    means = mean_scores(
        {
            "a": {"crops": 1, "keypoint_px": 2.0, "recall_add_01d": 1.0},
            "b": {"crops": 900, "keypoint_px": 4.0, "recall_add_01d": 0.0},
            "c": {"crops": 0, "keypoint_px": np.nan, "recall_add_01d": np.nan},
        }
    )
    assert means == {"keypoint_px": 3.0, "recall_add_01d": 0.5}
    assert list_numbers(scores)["mean_px"] == list_numbers(scores)["ball_px"]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_scores_leave_the_arithmetic_to_the_caller(precision, files):
    """Export measures in float32, a training in its own precision."""
    crops = load_crops(Path(files["data"]), 0, 1)
    library = load_objects(Path(files["objects_file"]))
    net = build_network(everything(files))
    computed = set()
    net.rgb.conv1.register_forward_hook(lambda *call: computed.add(call[2].dtype))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        evaluate_crops(net, crops, library, 1.3, 2)
    assert computed == {precision or torch.float32}


def test_arms_change_one_thing_and_a_finished_arm_is_not_trained_again(files, tmp_path, capsys):
    base, arms = tmp_path / "base.yaml", tmp_path / "arms.yaml"
    base.write_text(yaml.safe_dump({"network": "heatnet", **TINY, **files,
                                    "augment": {"hue": 0.1, "cutout": 0.3}}))  # fmt: skip
    arms.write_text(yaml.safe_dump({"base": {}, "deep": {"weights": {"deep": 0.5}},
                                    "no hue": {"augment": {"hue": 0.0}}}))  # fmt: skip
    built = ablate.build_arms(base, arms, 16)
    assert built["base"].augment.hue == 0.1 and built["deep"].augment == built["base"].augment
    assert built["no hue"].augment == dataclasses.replace(built["base"].augment, hue=0.0)
    command = ["--config", str(base), "--arms", str(arms), "--out", str(tmp_path / "out"),
               "--samples", "16"]  # fmt: skip
    assert ablate.main(command) == 0
    table = capsys.readouterr().out.split("| arm |")[1].splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == ["base", "deep", "no hue"]
    results = json.loads((tmp_path / "out" / "arms.json").read_text())
    assert results["deep"]["crops"] == 16 and results["deep"]["held_out"]["ball_px"] > 0
    written = (tmp_path / "out" / "base" / "final.pt").stat().st_mtime_ns
    assert ablate.main(command) == 0
    assert (tmp_path / "out" / "base" / "final.pt").stat().st_mtime_ns == written
    assert "==" not in capsys.readouterr().out


def test_crops_to_target_is_read_from_the_way(tmp_path):
    lines = [
        {"seen": 100, "held_out": {"mean_recall": 0.2, "mean_px": 9.0}},
        {"seen": 200, "seconds": 4.0, "loss": 5.0, "learning_rate": 1e-3},
        {"seen": 200, "held_out": {"mean_recall": 0.6, "mean_px": 4.0}},
        {"seen": 300, "seconds": 6.0, "loss": 4.0, "learning_rate": 0.0},
        {"seen": 300, "held_out": {"mean_recall": 0.7, "mean_px": 3.0}},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = ablate.read_result(tmp_path, 0.5)
    assert result["crops_to_target"] == 200 and result["crops_per_s"] == 50.0
    assert result["recall"] == 0.7
    assert ablate.read_result(tmp_path, 0.9)["crops_to_target"] is None
    table = ablate.format_table({"a": result, "b": {**result, "recall": 0.9}}, 0.5)
    assert "| b | 300 | 50 | 3.00 | 0.900 | +20.0 | 200 |" in table


def test_an_arm_that_is_no_mapping_is_named(tmp_path):
    base, arms = tmp_path / "base.yaml", tmp_path / "arms.yaml"
    base.write_text("width: 8\n")
    arms.write_text("wide: 16\n")
    with pytest.raises(ConfigError, match=r"'wide' must be a mapping of changed keys, got 16"):
        ablate.build_arms(base, arms, None)
