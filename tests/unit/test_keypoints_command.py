import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import MESHES

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.keypoints_command import add_arguments, run
from heatnet_ros.mesh import Mesh, write_ply
from heatnet_ros.objects import load_objects

BRICK_SIZE_M = (0.12, 0.06, 0.04)


def keypoints(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def write_mesh(path: Path, name: str = "brick", scale: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = MESHES[name]
    write_ply(path, Mesh(mesh.vertices_m * scale, mesh.faces, mesh.normals, mesh.colors))
    return path


def test_library_with_relative_meshes_and_symmetries(tmp_path: Path, monkeypatch):
    brick = write_mesh(tmp_path / "meshes" / "brick.ply")
    disc = write_mesh(tmp_path / "meshes" / "disc.ply", "disc")
    out = tmp_path / "config" / "objects" / "set.yaml"
    symmetries = ["--symmetry", "brick:axis=0,0,1:fold=2:point_m=0,0,0.01"]
    symmetries += ["--symmetry", "disc:axis=0,0,2:continuous"]
    # as typed in a terminal: meshes given relative to the current folder
    monkeypatch.chdir(tmp_path)
    relative = [path.relative_to(tmp_path) for path in (brick, disc)]
    assert keypoints("--name", "set", "--out", out, "--count", 20, *symmetries, *relative) == 0
    assert "mesh: ../../meshes/brick.ply" in out.read_text()
    library = load_objects(out)
    assert (library.name, list(library.objects)) == ("set", ["brick", "disc"])
    model = library["brick"]
    assert model.keypoints_m.shape == (20, 3)
    assert model.diameter_m == pytest.approx(np.linalg.norm(BRICK_SIZE_M), abs=1e-5)
    assert len(model.symmetries.discrete) == 2
    assert library["disc"].symmetries.axis == pytest.approx([0, 0, 1])
    assert model.load_mesh() is not None
    assert sorted(p.name for p in out.parent.iterdir()) == ["set.yaml"]


def test_the_same_meshes_give_the_same_library(tmp_path: Path):
    mesh = write_mesh(tmp_path / "brick.ply")
    for name in ("a", "b"):
        keypoints("--name", "set", "--out", tmp_path / f"{name}.yaml", mesh)
    assert (tmp_path / "a.yaml").read_text() == (tmp_path / "b.yaml").read_text()


def test_existing_library_is_kept_unless_forced(tmp_path: Path):
    mesh, out = write_mesh(tmp_path / "brick.ply"), tmp_path / "set.yaml"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"set\.yaml exists.*trained.*--force"):
        keypoints("--name", "set", "--out", out, mesh)
    assert out.read_text() == "precious"
    assert keypoints("--name", "set", "--out", out, "--force", mesh) == 0
    assert list(load_objects(out).objects) == ["brick"]


def test_millimetres_read_as_metres_leave_no_file(tmp_path: Path):
    mesh, out = write_mesh(tmp_path / "brick.ply", scale=1000.0), tmp_path / "set.yaml"
    with pytest.raises(ConfigError, match=r"140 m, expected.*Are these millimetres.*--unit mm"):
        keypoints("--name", "set", "--out", out, "--unit", "m", mesh)
    assert [path.name for path in tmp_path.iterdir()] == ["brick.ply"]
    assert keypoints("--name", "set", "--out", out, "--unit", "mm", mesh) == 0
    assert load_objects(out)["brick"].diameter_m == pytest.approx(0.14, abs=1e-5)


def test_metres_read_as_millimetres_get_the_right_advice(tmp_path: Path):
    mesh, out = write_mesh(tmp_path / "brick.ply"), tmp_path / "set.yaml"
    with pytest.raises(ConfigError, match=r"0\.00014 m.*Read as m it is 0\.14 m: give --unit m\."):
        keypoints("--name", "set", "--out", out, "--unit", "mm", mesh)
    assert not out.exists()


def test_the_unit_is_found_and_said(tmp_path: Path, capsys):
    mesh, out = write_mesh(tmp_path / "brick.ply", scale=1000.0), tmp_path / "set.yaml"
    assert keypoints("--name", "set", "--out", out, mesh) == 0
    said = capsys.readouterr().out
    assert "unit mm (its diameter of 140 is an object's size only in millimetres)" in said
    assert load_objects(out)["brick"].mesh_unit == "mm"


def test_symmetries_are_proposed_and_taken_only_when_told(tmp_path: Path, capsys):
    mesh = write_mesh(tmp_path / "disc.ply", "disc")
    common = ("--name", "set", "--force", "--out", tmp_path / "set.yaml", mesh)
    keypoints(*common)
    said = capsys.readouterr().out
    assert not load_objects(tmp_path / "set.yaml")["disc"].symmetries.any
    flags = [line.split("to take it: ")[1] for line in said.splitlines() if "to take it" in line]
    assert flags and all(flag.startswith("--symmetry disc:axis=") for flag in flags)
    keypoints(*common, *(word for flag in flags for word in flag.split()))
    typed = load_objects(tmp_path / "set.yaml")["disc"].symmetries
    assert typed.axis == pytest.approx([0, 0, 1])
    keypoints(*common, "--accept-symmetries", "--ignore-colors")
    accepted = load_objects(tmp_path / "set.yaml")["disc"].symmetries
    np.testing.assert_allclose(accepted.discrete, typed.discrete, atol=1e-6)
    np.testing.assert_allclose(accepted.axis, typed.axis)


def test_method_seed_and_count_are_stored(tmp_path: Path):
    mesh = write_mesh(tmp_path / "brick.ply")
    for name, options in {"a": (), "b": ("--method", "cps"), "c": ("--seed", 3)}.items():
        keypoints("--name", "set", "--out", tmp_path / f"{name}.yaml", *options, mesh)
    a, b, c = (load_objects(tmp_path / f"{name}.yaml") for name in "abc")
    assert [x["brick"].keypoint_method for x in (a, b, c)] == ["fps", "cps", "fps"]
    assert [x["brick"].keypoint_seed for x in (a, b, c)] == [0, 0, 3]
    assert all(x["brick"].keypoints_m.shape == (50, 3) for x in (a, b, c))
    assert len({x.keypoints_hash(["brick"]) for x in (a, b, c)}) == 3


def test_a_mesh_named_like_any_other_is_called_after_its_folder(tmp_path: Path):
    mesh = write_mesh(tmp_path / "025_mug" / "textured.ply")
    keypoints("--name", "set", "--out", tmp_path / "s.yaml", mesh)
    assert list(load_objects(tmp_path / "s.yaml").objects) == ["025_mug"]


def write_models(folder: Path, diameter_mm: float = 140.0) -> tuple[Path, Path]:
    mesh = write_mesh(folder / "models" / "obj_000005.ply", scale=1000.0)
    turn = {"axis": [0, 0, 1], "offset": [0, 0, 5.0]}
    info = {"5": {"diameter": diameter_mm, "symmetries_continuous": [turn]}}
    path = folder / "models" / "models_info.json"
    path.write_text(json.dumps(info))
    return mesh, path


def test_bop_names_and_symmetries(tmp_path: Path):
    mesh, info = write_models(tmp_path / "lm")
    common = ("--name", "lm", "--unit", "mm", "--bop-models-info", info, mesh)
    keypoints("--out", tmp_path / "a.yaml", *common)
    model = load_objects(tmp_path / "a.yaml")["can"]
    assert model.symmetries.point_m == pytest.approx([0, 0, 0.005])
    # what the command line says goes first
    keypoints(
        *("--out", tmp_path / "b.yaml", "--rename", "obj_000005=tin"),
        *("--symmetry", "tin:axis=0,0,1:fold=3", *common),
    )
    other = load_objects(tmp_path / "b.yaml")["tin"].symmetries
    assert other.axis is None
    assert len(other.discrete) == 3


def test_names_that_models_info_gives(tmp_path: Path):
    mesh, info = write_models(tmp_path / "parts")
    entries = json.loads(info.read_text())
    entries["5"]["name"] = "bracket"  # as synthesize writes it
    info.write_text(json.dumps(entries))
    options = ("--name", "p", "--unit", "mm", "--bop-models-info", info, mesh)
    keypoints("--out", tmp_path / "a.yaml", *options)
    assert list(load_objects(tmp_path / "a.yaml").objects) == ["bracket"]


def test_names_outside_linemod_are_the_files(tmp_path: Path):
    mesh, info = write_models(tmp_path / "ycbv")
    options = ("--name", "y", "--unit", "mm", "--bop-models-info", info)
    keypoints("--out", tmp_path / "a.yaml", *options, mesh)
    assert list(load_objects(tmp_path / "a.yaml").objects) == ["obj_000005"]
    stranger = write_mesh(tmp_path / "ycbv" / "models" / "obj_000006.ply", scale=1000.0)
    with pytest.raises(ConfigError, match=r"knows nothing about obj_000006\.ply"):
        keypoints("--out", tmp_path / "b.yaml", *options, stranger)


def test_the_other_unit_is_advised_where_it_fits_the_data_set(tmp_path: Path):
    mesh, info = write_models(tmp_path / "lm", diameter_mm=140000.0)
    options = ("--name", "lm", "--unit", "mm", "--bop-models-info", info)
    with pytest.raises(ConfigError, match=r"says 140 m\. Give --unit m\."):
        keypoints("--out", tmp_path / "a.yaml", *options, mesh)


def test_diameter_must_be_that_of_the_data_set(tmp_path: Path):
    mesh, info = write_models(tmp_path / "lm", diameter_mm=250.0)
    options = ("--name", "lm", "--unit", "mm", "--bop-models-info", info)
    with pytest.raises(ConfigError, match=r"0\.14 m.*says 0\.25 m\. The mesh is not"):
        keypoints("--out", tmp_path / "a.yaml", *options, mesh)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brik:axis=0,0,1:fold=2", "no object is called 'brik'. Did you mean 'brick'"),
        ("brick:axis=0,0,1", "not understood; expected OBJECT:axis=0,0,1:fold=2"),
        ("brick:axis=0,0,1:fold=2:continuous", "not understood"),
        ("brick:axis=0,1:fold=2", "not understood"),
        ("brick:axis=0,0,0:fold=2", "not understood"),
        ("brick:axis=0,0,1:fold=1", "not understood"),
        ("brick:axis=0,0,1:fold=two", "not understood"),
        ("brick:axis=0,0,1:fold=2:center=0,0,0", "not understood"),
    ],
)
def test_wrong_symmetries(tmp_path: Path, text: str, message: str):
    mesh = write_mesh(tmp_path / "brick.ply")
    with pytest.raises(ConfigError, match=message):
        keypoints("--name", "s", "--out", tmp_path / "s.yaml", "--symmetry", text, mesh)


def test_wrong_arguments(tmp_path: Path):
    mesh, out = write_mesh(tmp_path / "brick.ply"), tmp_path / "s.yaml"
    with pytest.raises(ConfigError, match="at least 4 keypoints"):
        keypoints("--name", "s", "--out", out, "--count", 3, mesh)
    with pytest.raises(ConfigError, match="expected FILE=NAME"):
        keypoints("--name", "s", "--out", out, "--rename", "brick", mesh)
    with pytest.raises(ConfigError, match="--rename names can, which is none of the meshes brick"):
        keypoints("--name", "s", "--out", out, "--rename", "can=tin", mesh)
    with pytest.raises(DataError, match=r"gone\.ply cannot be read"):
        keypoints("--name", "s", "--out", out, tmp_path / "gone.ply")
    twin = write_mesh(tmp_path / "other" / "brick.ply")
    with pytest.raises(ConfigError, match="defines 'brick' twice"):
        keypoints("--name", "s", "--out", out, mesh, twin)
    assert not out.exists()
