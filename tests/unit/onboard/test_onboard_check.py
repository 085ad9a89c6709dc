import argparse
from dataclasses import replace

import pytest
from fakes import MESHES

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.mesh import Mesh, load_ply, write_ply
from heatnet_ros.onboard.check import (
    ONE_COLOR,
    CheckedObject,
    check_meshes,
    decide,
    explain_choice,
    write_meshes,
)
from heatnet_ros.onboard.options import Places, add_arguments, read_options
from heatnet_ros.symmetry_proposal import propose_symmetries


def write_mesh(path, name="brick", scale=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = MESHES[name]
    write_ply(path, Mesh(mesh.vertices_m * scale, mesh.faces, mesh.normals, mesh.colors))
    return path


def options_of(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args([*(str(word) for word in words), "--name", "set"]))


@pytest.fixture
def brick(tmp_path):
    return write_mesh(tmp_path / "brick.ply")


@pytest.fixture(scope="module")
def proposals():
    return propose_symmetries(MESHES["brick"])


def test_a_brick_has_symmetries_and_the_user_decides(brick):
    said = []
    check = check_meshes(options_of(brick), said.append)
    (item,) = check.objects
    assert (item.name, item.colors, item.symmetries) == ("brick", ONE_COLOR, ())
    assert len(check.open_flags) == 2
    assert any("TO DECIDE: 2-fold about (1, 0, 0)" in text for text in said)
    words = explain_choice(options_of(brick), check.open_flags)
    assert all(f"--symmetry {flag}" in words for flag in check.open_flags)


def test_the_flags_of_the_explanation_are_understood(brick):
    flags = check_meshes(options_of(brick), str).open_flags
    words = [word for flag in flags for word in ("--symmetry", flag)]
    check = check_meshes(options_of(brick, *words), str)
    assert check.open_flags == ()
    assert check.objects[0].symmetries == flags


def test_accepted_and_refused_symmetries(brick):
    taken = check_meshes(options_of(brick, "--accept-symmetries"), str)
    assert (len(taken.objects[0].symmetries), taken.open_flags) == (2, ())
    none = check_meshes(options_of(brick, "--no-symmetries"), str)
    assert (none.objects[0].symmetries, none.open_flags) == ((), ())
    assert all(text.startswith("not taken, as told") for text in none.objects[0].decisions)


def test_colours_that_differ_are_no_symmetry_unless_told(brick, proposals):
    printed = [replace(proposal, color_difference=100.0) for proposal in proposals]
    for words in ((), ("--accept-symmetries",)):
        taken, sentences, asked = decide("brick", printed, options_of(brick, *words))
        assert (taken, asked) == ([], [])
        assert all("the colours tell it apart" in text for text in sentences)
    words = ("--accept-symmetries", "--ignore-colors")
    taken, _, _ = decide("brick", printed, options_of(brick, *words))
    assert len(taken) == len(printed)


def test_meshes_are_written_in_metres_under_their_names(tmp_path):
    mesh = write_mesh(tmp_path / "cad" / "part_7.ply", scale=1000.0)
    places = Places(tmp_path / "root", "set")
    options = options_of(mesh, "--rename", "part_7=bracket", "--no-symmetries")
    check = check_meshes(options, str)
    assert not places.root.exists()
    write_meshes(check, places)
    written = load_ply(places.mesh("bracket"), "m")
    assert written.bounds_m == pytest.approx(MESHES["brick"].bounds_m, abs=1e-6)
    assert "unit mm" in check.objects[0].about


def test_what_is_no_usable_mesh(tmp_path):
    empty = tmp_path / "empty.ply"
    empty.write_text("not a mesh")
    with pytest.raises(DataError, match=r"empty\.ply"):
        check_meshes(options_of(empty), str)
    first, second = write_mesh(tmp_path / "a" / "x.ply"), write_mesh(tmp_path / "b" / "x.ply")
    with pytest.raises(ConfigError, match="defines 'x' twice"):
        check_meshes(options_of(first, second), str)
    large = write_mesh(tmp_path / "large.ply", scale=1000.0)
    with pytest.raises(ConfigError, match="Are these millimetres"):
        check_meshes(options_of(large, "--unit", "m"), str)
    with pytest.raises(ConfigError, match="no object is called 'brik'"):
        check_meshes(options_of(large, "--symmetry", "brik:axis=0,0,1:fold=2"), str)


def test_meshes_that_cannot_be_written(brick, tmp_path):
    (tmp_path / "config").write_text("in the way")
    check = check_meshes(options_of(brick, "--no-symmetries"), str)
    with pytest.raises(DataError, match="cannot be written"):
        write_meshes(check, Places(tmp_path, "set"))


def test_a_checked_object_comes_back_from_json(brick):
    (item,) = check_meshes(options_of(brick, "--accept-symmetries"), str).objects
    assert CheckedObject.from_plain(item.plain()) == item
