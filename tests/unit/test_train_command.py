"""``train`` before torch is imported: which trainer, what is missing, what help says."""

import subprocess
import sys
from pathlib import Path

import pytest

from heatnet_ros.__main__ import main
from heatnet_ros.errors import ConfigError
from heatnet_ros.train_command import TRAINERS, choose_trainer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "config" / "train").glob("*.yaml")
    if any(word in path.name for word in ("heatnet", "yolo"))
)


def test_the_key_decides():
    path = Path("x.yaml")
    assert choose_trainer({"network": "yolo", "rgbd": True}, path) is TRAINERS["yolo"]
    assert choose_trainer({"network": "heatnet"}, path) is TRAINERS["heatnet"]
    with pytest.raises(ConfigError, match=r"x\.yaml: expected heatnet or yolo, got 'yolov8'"):
        choose_trainer({"network": "yolov8"}, path)


def test_without_the_key_the_fields_decide():
    path = Path("x.yaml")
    assert choose_trainer({"data": "d", "size": "n"}, path) is TRAINERS["yolo"]
    assert choose_trainer({"data": "d", "preset": "lite"}, path) is TRAINERS["heatnet"]
    for values in ({"data": "d"}, {"size": "n", "rgbd": False}):
        with pytest.raises(ConfigError, match="Add 'network: heatnet' or 'network: yolo'"):
            choose_trainer(values, path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_files_name_their_trainer(path):
    from heatnet_ros.config import load_yaml

    wanted = "yolo" if "yolo" in path.stem else "heatnet"
    assert choose_trainer(load_yaml(path, "Training file"), path) is TRAINERS[wanted]


@pytest.mark.parametrize(
    ("text", "packages"), [("network: heatnet", "torch"), ("network: yolo", "ultralytics")]
)
def test_a_missing_package_is_named_with_what_to_install(
    tmp_path, capsys, monkeypatch, text, packages
):
    config = tmp_path / "train.yaml"
    config.write_text(text)
    monkeypatch.setitem(sys.modules, packages, None)  # what importing it then is: an error
    assert main(["train", "--config", str(config), "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert packages in said and "pip install 'heatnet_ros[train]'" in said
    assert not (tmp_path / "run").exists()


def test_help_teaches_and_needs_no_torch():
    program = (
        "import sys\nfrom heatnet_ros.__main__ import main\n"
        "try:\n    main(['train', '--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("False")
    for word in ("--minutes", "torchrun", "network: heatnet", "log.jsonl", "export"):
        assert word in done.stdout


def test_a_training_file_that_is_not_there(tmp_path, capsys):
    missing = tmp_path / "none.yaml"
    assert main(["train", "--config", str(missing), "--out", str(tmp_path)]) == 1
    assert "none.yaml cannot be read" in capsys.readouterr().err
