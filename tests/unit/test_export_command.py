import argparse
import importlib.util
from pathlib import Path

import pytest

from heatnet_ros import export_command
from heatnet_ros.errors import ConfigError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export_command.add_arguments(parser)
    return parser.parse_args([*words])


def test_defaults_are_float32_arithmetic_on_float16_weights() -> None:
    args = parse("--run", "runs/a", "--out", "models/a")
    assert (args.run, args.out) == (Path("runs/a"), Path("models/a"))
    assert (args.precision, args.weights, args.images) == ("fp32", "fp16", None)
    assert args.samples == 0


def test_samples_are_a_whole_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--run", "a", "--out", "b", "--samples", "16").samples == 16
    for wrong in ("-1", "all", "1.5"):
        with pytest.raises(SystemExit):
            parse("--run", "a", "--out", "b", f"--samples={wrong}")
        assert "whole number of 0 or more" in capsys.readouterr().err


def test_without_the_training_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    with pytest.raises(ConfigError, match=r"needs torch,.*pip install 'heatnet_ros\[train\]'"):
        export_command.run(parse("--run", "runs/a", "--out", "models/a"))


def test_input_size_is_width_by_height_in_steps_of_the_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse("--run", "a", "--out", "b", "--input-size", "416x320").input_size == (320, 416)
    for wrong, told in (("400x320", "multiples of 32"), ("0x32", "multiples"), ("416", "416x320")):
        with pytest.raises(SystemExit):
            parse("--run", "a", "--out", "b", "--input-size", wrong)
        assert told in capsys.readouterr().err
