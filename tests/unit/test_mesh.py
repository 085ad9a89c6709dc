"""Meshes: PLY round trips, real files, damaged files, closed forms of sampling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.mesh import (
    Mesh,
    diameter,
    farthest_points,
    load_ply,
    sample_surface,
    vertex_normals,
    write_ply,
)

DEMO = Path(__file__).parents[2] / "config" / "objects" / "demo"
LM = Path(__file__).parents[3] / "shared" / "data" / "lm" / "models"
ASCII = """ply
format ascii 1.0
comment a tetrahedron
element vertex 4
property float x
property float y
property float z
element face 4
property list uchar int vertex_indices
end_header
0 0 0
100 0 0
0 100 0
0 0 100
3 0 2 1
3 0 1 3
3 0 3 2
3 1 2 3
"""


def _cube(half: float = 0.05) -> Mesh:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    colors = np.arange(24, dtype=np.uint8).reshape(8, 3)
    return Mesh(corners, faces, vertex_normals(corners, faces), colors)


def test_written_file_reads_back(tmp_path: Path) -> None:
    cube = _cube()
    write_ply(tmp_path / "cube.ply", cube)
    back = load_ply(tmp_path / "cube.ply")
    np.testing.assert_allclose(back.vertices_m, cube.vertices_m, atol=1e-8)
    np.testing.assert_allclose(back.normals, cube.normals, atol=1e-6)
    np.testing.assert_array_equal(back.faces, cube.faces)
    np.testing.assert_array_equal(back.colors, cube.colors)
    assert [p.name for p in tmp_path.iterdir()] == ["cube.ply"]  # no partial file is left


def test_ascii_and_units(tmp_path: Path) -> None:
    path = tmp_path / "t.ply"
    path.write_text(ASCII)
    mesh = load_ply(path, "mm")
    np.testing.assert_allclose(mesh.bounds_m, [[0, 0, 0], [0.1, 0.1, 0.1]])
    assert diameter(mesh.vertices_m) == pytest.approx(0.1 * np.sqrt(2))
    np.testing.assert_allclose(mesh.normals[0], -np.ones(3) / np.sqrt(3))  # computed
    assert (mesh.colors == 180).all()
    np.testing.assert_allclose(load_ply(path, "m").bounds_m[1], [100, 100, 100])


@pytest.mark.parametrize("name", ["bracket", "connector", "mug", "pulley", "valve"])
def test_demo_files(name: str) -> None:
    mesh = load_ply(DEMO / f"{name}.ply")
    assert 0.05 < diameter(mesh.vertices_m) < 0.3
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)


@pytest.mark.skipif(not LM.exists(), reason=f"{LM} is absent")
def test_a_real_file_in_millimetres() -> None:
    mesh = load_ply(LM / "obj_000005.ply", "mm")
    info = json.loads((LM / "models_info.json").read_text())["5"]
    assert diameter(mesh.vertices_m) == pytest.approx(info["diameter"] / 1000, rel=0.01)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ply\n", "plx\n", "not a PLY file"),
        ("format ascii 1.0", "format binary_big_endian 1.0", "'binary_big_endian' is not supp"),
        ("end_header\n", "", "header does not end|damaged"),
        ("element face 4", "element fact 4", r"expected elements vertex and face, got \['fact'"),
        ("3 1 2 3\n", "", "damaged"),
        ("3 1 2 3\n", "4 0 1 2 3\n", "a face has 4 corners, expected 3"),
        ("3 1 2 3\n", "3 1 2 9\n", r"outside 0\.\.3"),
        ("100 0 0\n", "100 0\n", "damaged"),
        ("100 0 0\n", "100 x 0\n", "damaged"),
        ("100 0 0\n", "100 nan 0\n", "finite"),
        ("property float z", "property float w", r"t\.ply"),
        ("element vertex 4", "element vertex four", r"t\.ply"),
        ("element vertex 4\n", "", r"t\.ply"),
        ("property list uchar int vertex_indices", "property int a", r"t\.ply"),
        ("format ascii 1.0", "format", r"t\.ply"),
    ],
)
def test_damaged_ascii_files_get_a_data_error(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "t.ply"
    assert old in ASCII
    path.write_text(ASCII.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        load_ply(path)


def test_binary_files_cut_anywhere_get_a_data_error(tmp_path: Path) -> None:
    write_ply(tmp_path / "whole.ply", _cube())
    content = (tmp_path / "whole.ply").read_bytes()
    for size in (*range(0, len(content), 23), len(content) - 1):
        path = tmp_path / "cut.ply"
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.ply"):
            load_ply(path)


def test_missing_file_and_unknown_unit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.ply cannot be read: No such file"):
        load_ply(tmp_path / "none.ply")
    with pytest.raises(DataError, match="unit must be 'm' or 'mm', got 'cm'"):
        load_ply(tmp_path / "none.ply", "cm")


def test_samples_lie_on_the_surface_evenly_with_outward_normals() -> None:
    points, normals = sample_surface(_cube(), 6000, seed=1)
    np.testing.assert_allclose(np.abs(points).max(axis=1), 0.05, atol=1e-12)
    np.testing.assert_allclose(np.sum(points * normals, axis=1), 0.05, atol=1e-12)
    side = np.argmax(np.abs(normals), axis=1) * 2 + (normals.sum(axis=1) > 0)
    counts = np.bincount(side, minlength=6)  # 1000 each, sigma 29
    assert counts.min() > 860 and counts.max() < 1140
    again = sample_surface(_cube(), 6000, seed=1)[0]
    assert points.tobytes() == again.tobytes()
    assert points.tobytes() != sample_surface(_cube(), 6000, seed=2)[0].tobytes()


def test_normals_survive_inconsistent_winding() -> None:
    cube = _cube()
    faces = cube.faces.copy()
    faces[::2] = faces[::2, ::-1]
    points, normals = sample_surface(Mesh(cube.vertices_m, faces, cube.normals, cube.colors), 500)
    assert (np.sum(points * normals, axis=1) > 0).all()


def test_mesh_without_surface_is_refused() -> None:
    flat = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]], np.int32), np.eye(3), np.eye(3, dtype="u1"))
    with pytest.raises(DataError, match="no surface"):
        sample_surface(flat, 10)


def test_farthest_points_of_a_line_are_its_ends_then_its_middle() -> None:
    line = np.column_stack([np.linspace(0, 1, 101), np.zeros((101, 2))])
    line = line[np.random.default_rng(0).permutation(101)]
    chosen = farthest_points(line, 5)[:, 0]
    assert sorted(chosen[:2]) == [0, 1]
    assert chosen[2] == pytest.approx(0.5)
    assert sorted(chosen[3:]) == pytest.approx([0.25, 0.75], abs=0.011)
    with pytest.raises(DataError, match="102 points wanted, mesh has 101"):
        farthest_points(line, 102)


def test_diameter_of_a_box_is_its_diagonal() -> None:
    assert diameter(_cube(0.05).vertices_m) == pytest.approx(0.1 * np.sqrt(3))
