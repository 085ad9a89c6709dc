import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from heatnet_ros import doctor_command
from heatnet_ros.__main__ import COMMANDS, build_parser, main
from heatnet_ros.checks.finding import warning
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
    text = capsys.readouterr().out
    assert {"replay": "--loop", "record": "OUT.mcap"}.get(name, "--out") in text


@pytest.mark.parametrize("words", ["--rate 0", "--rate nan", "--fps 0", "--delay -1"])
def test_replay_refuses_what_it_cannot_keep(words, capsys):
    assert main(["replay", "sample", *words.split()]) == 1
    assert re.match(rf"error: {words.split()[0]}: expected .*, got ", capsys.readouterr().err)


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out


def test_an_error_of_ours_is_one_line_without_traceback(monkeypatch, capsys):
    def fail(args):
        raise ConfigError("Parameter file x.yaml is wrong.")

    monkeypatch.setattr("heatnet_ros.predict.run", fail)
    assert main(["predict", "image.png", "--params", "x.yaml"]) == 1
    assert capsys.readouterr().err == "error: Parameter file x.yaml is wrong.\n"


def fail_with(error: Exception, monkeypatch, *options: str) -> int:
    def fail(args):
        raise error

    monkeypatch.setattr("heatnet_ros.predict.run", fail)
    return main(["predict", "image.png", "--params", "x.yaml", *options])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        # a write to a full disk does not know its file
        (
            OSError(errno.ENOSPC, "No space left"),
            r"No space left \(writing to runs/x or .*\)\. Free",
        ),
        (OSError(errno.ENOSPC, "No space left", "a/b"), r"No space left \(a/b\)\. Free space"),
        (PermissionError(errno.EACCES, "Denied", "a/b"), r"Denied \(a/b\)\. Give yourself"),
        (OSError(errno.EIO, "I/O error", "a", None, "b"), r"I/O error \(a, b\)\. Check"),
        (OSError("4096 requested and 12 written"), r"4096 requested and 12 written"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, text, monkeypatch, capsys):
    assert fail_with(error, monkeypatch, "--out", "runs/x") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.match(f"error: {text}", said)


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    with pytest.raises(KeyError):
        fail_with(KeyError("x"), monkeypatch)


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "lm"
    assert main(["download", "lm", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(out) in said and said.startswith("error: Not a directory")


@pytest.mark.parametrize("unbuffered", [True, False])
def test_the_reader_leaves_before_the_end(unbuffered: bool):
    reader, writer = os.pipe()
    os.close(reader)
    options = ["-u"] if unbuffered else []
    command = [sys.executable, *options, "-m", "heatnet_ros", "download", "--list"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(writer)
    if unbuffered:  # noticed while the command runs
        assert done.returncode == 1
        assert (
            done.stderr.startswith("error: Nobody reads the output")
            and done.stderr.count("\n") == 1
        )
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_output_into_a_full_file():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "heatnet_ros", "download", "--list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--seconds", "0"], "--seconds must be above 0"), (["--crash"], "KeyError")],
)
def test_a_doctor_that_fails_is_not_a_doctor_that_warns(words, said, monkeypatch, capsys):
    """1 and 2 are what it found; a script must not take a failure for a warning."""

    def crash(args):
        raise KeyError("its own fault")

    if words == ["--crash"]:
        words = []
        monkeypatch.setattr(doctor_command, "examine", crash)
    assert main(["doctor", *words]) == 3
    assert said in capsys.readouterr().err


def test_findings_that_cannot_be_written_are_a_failure_of_the_doctor(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_command, "examine", lambda args: iter([warning("a", "b", "c")]))
    (tmp_path / "file").touch()
    assert main(["doctor", "--json", str(tmp_path / "file" / "x.json")]) == 3
    assert main(["doctor", "--json", str(tmp_path / "x.json")]) == 1
