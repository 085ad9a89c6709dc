import argparse
import hashlib
from pathlib import Path

import pytest

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.onboard.options import (
    Places,
    add_arguments,
    parse_budget,
    places_of,
    read_options,
)


@pytest.fixture
def mesh(tmp_path):
    path = tmp_path / "part.ply"
    path.write_bytes(b"a mesh")
    return path


def parse(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def options_of(mesh, *words):
    return read_options(parse(mesh, "--name", "parts", *words))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("2h", 7200), ("90", 5400), ("600s", 600), ("1.5h", 5400), (" 45 MIN ", 2700)],
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0m", "5d", "nan"])
def test_budgets_that_are_none(text):
    with pytest.raises(ConfigError, match="expected a time such as 30m"):
        parse_budget(text)


def test_meshes_and_weights_are_known_by_their_content(mesh, tmp_path):
    weights = tmp_path / "final.pt"
    weights.write_bytes(b"weights")
    options = options_of(mesh, "--init", weights)
    assert options.meshes == {str(mesh): hashlib.sha256(b"a mesh").hexdigest()}
    assert options.init == {str(weights): hashlib.sha256(b"weights").hexdigest()}
    assert options_of(mesh).init == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--accept-symmetries", "--no-symmetries"), "contradict"),
        (("--ignore-colors",), "add it"),
        (("--camera", "600,600,320,240,640,480", "--like", "lmo:test"), "give one"),
        (("--camera", "600,600,320,240"), r"expected fx,fy,cx,cy,width,height"),
        (("--camera", "600,-1,320,240,640,480"), r"expected fx,fy,cx,cy,width,height"),
        (("--distance", "2,1"), "NEAR < FAR"),
        (("--distance", "near"), r"such as 0\.4,1\.2"),
        (("--images", "50"), "expected 120 or more, got 50"),
        (("--samples", "0"), "--samples: expected 1 or more, got 0"),
        (("--test-images", "0"), "--test-images: expected 1 or more, got 0"),
        (("--keypoints", "3"), "at least 4"),
        (("--seed", "-1"), "from 0, got -1"),
        (("--workers", "0"), "--workers: expected 1 or more"),
        (("--budget", "5m"), "expected at least 8m"),
    ],
)
def test_wrong_options_are_told(mesh, words, message):
    with pytest.raises(ConfigError, match=message):
        options_of(mesh, *words)


def test_a_small_budget_is_no_matter_when_nothing_is_left_to_plan(mesh):
    options = options_of(mesh, "--budget", "1m", "--images", "120", "--samples", "640")
    assert not options.needs_measuring


@pytest.mark.parametrize("name", ["../parts", "my parts", "", "-x", "teile/neu"])
def test_names_that_make_no_file_name(mesh, name):
    with pytest.raises(ConfigError, match="becomes a part of file names"):
        read_options(parse(mesh, f"--name={name}"))


def test_a_mesh_that_is_not_there_or_given_twice(mesh, tmp_path):
    with pytest.raises(DataError, match=r"Mesh .*none\.ply cannot be read: No such file"):
        read_options(parse(tmp_path / "none.ply", "--name", "parts"))
    with pytest.raises(DataError, match=r"Mesh .* cannot be read: Is a directory"):
        read_options(parse(tmp_path, "--name", "parts"))
    with pytest.raises(ConfigError, match="given twice"):
        read_options(parse(mesh, mesh, "--name", "parts"))


def test_paths_are_relative_to_the_current_folder_unless_it_is_another(mesh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = places_of(parse(mesh, "--name", "parts"))
    assert here == places_of(parse(mesh, "--name", "parts", "--out-root", tmp_path))
    assert here.library == Path("config/objects/parts.yaml")
    elsewhere = places_of(parse(mesh, "--name", "parts", "--out-root", "sub"))
    assert elsewhere.model("yolo") == tmp_path / "sub" / "models" / "parts_yolo"
    assert elsewhere == Places(tmp_path / "sub", "parts")
