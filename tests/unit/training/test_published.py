"""The training files of the paper's tables: as generated, and as the paper has them."""

import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.resources import find_resource  # noqa: E402
from heatnet_ros.train_command import choose_trainer  # noqa: E402
from heatnet_ros.training import published  # noqa: E402
from heatnet_ros.training.heatnet import PRESETS, HeatNetConfig  # noqa: E402
from heatnet_ros.training.run_config import add_run_arguments, read_config  # noqa: E402
from heatnet_ros.training.train_heatnet import TrainConfig, build_network  # noqa: E402
from heatnet_ros.training.train_yolo import YoloTrainConfig  # noqa: E402

pytestmark = pytest.mark.train
FOLDER = find_resource(published.FOLDER, "Published training files")
FILES = sorted(FOLDER.glob("*.yaml"))


def read(path, kind):
    import argparse

    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return read_config(parser.parse_args(["--config", str(path), "--out", "x"]), kind)


def test_committed_files_are_the_generated_ones(tmp_path):
    published.main(["--out", str(tmp_path)])
    generated = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.yaml")
    }
    config = FOLDER.parents[1]
    committed = [*FOLDER.iterdir(), *config.glob("pose_published_*")]
    assert generated == {str(path.relative_to(config)): path.read_text() for path in committed}
    assert len(generated) == 17


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
        assert config.clip == 0
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
