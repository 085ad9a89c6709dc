"""Files that appear whole or not at all: failures in the middle, full disks, missing folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.files import make_folder, write_json, write_whole, writing_whole


def test_a_file_is_written_with_its_folder(tmp_path: Path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_whole(path, "Grüße")
    assert path.read_bytes() == "Grüße".encode()
    write_whole(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_until_the_end_the_old_file_stands(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    with writing_whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stopped"), writing_whole(path) as file:
        file.write(b"half")
        raise RuntimeError("stopped")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_is_refused_that_no_other_reader_takes(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, None]})
    assert json.loads(path.read_text()) == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1.5, None]}


def test_what_is_in_the_way_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file/x cannot be written: .*\. Give another --out"):
        write_whole(tmp_path / "file" / "x", b"", "Give another --out.")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder cannot be written: Is a directory"):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(DataError, match=r"file/x cannot be made: Not a directory\. Make room"):
        make_folder(tmp_path / "file" / "x")


_TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
from heatnet_ros.errors import DataError
from heatnet_ros.files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), bytes(5000))
except DataError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    command = [sys.executable, "-c", _TOO_LARGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "cannot be written: File too large. Make room" in done.stdout
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
