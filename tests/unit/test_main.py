import subprocess
import sys

import pytest

from heatnet_ros.__main__ import COMMANDS, build_parser, main
from heatnet_ros.errors import ConfigError


def test_help_names_every_command_and_gives_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"python -m heatnet_ros {name}" in text


def test_help_is_quick_because_it_loads_no_command():
    code = (
        "import sys; from heatnet_ros.__main__ import build_parser; build_parser(None); "
        "print([m for m in sys.modules if m in ('cv2', 'numpy', 'rclpy', 'openvino')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit):
        build_parser(name).parse_args([name, "--help"])
    assert "--out" in capsys.readouterr().out


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out


def test_an_error_of_ours_is_one_line_without_traceback(monkeypatch, capsys):
    def fail(args):
        raise ConfigError("Parameter file x.yaml is wrong.")

    monkeypatch.setattr("heatnet_ros.predict.run", fail)
    assert main(["predict", "image.png", "--params", "x.yaml"]) == 1
    assert capsys.readouterr().err == "error: Parameter file x.yaml is wrong.\n"
