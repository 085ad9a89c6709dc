import argparse
import importlib.util

import pytest

from heatnet_ros import quantize_command
from heatnet_ros.errors import ConfigError

WORDS = ("--model", "models/a", "--dataset", "data/b", "--out", "models/c")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    quantize_command.add_arguments(parser)
    return parser.parse_args([*WORDS, *words])


def test_without_nncf_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "nncf" else found(name)
    )
    with pytest.raises(ConfigError, match=r"needs nncf,.*pip install 'heatnet_ros\[quantize\]'"):
        quantize_command.run(parse())


def test_a_number_of_samples_that_is_none_is_refused() -> None:
    assert (parse().samples, parse().split, parse().force) == (300, "train", False)
    with pytest.raises(ConfigError, match="--samples: expected 1 or more, got 0"):
        quantize_command.run(parse("--samples", "0"))
