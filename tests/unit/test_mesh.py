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
    load_ply,
    sample_surface,
    sample_texture,
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
        ("format ascii 1.0", "format binary_middle 1.0", "'binary_middle' is not one of"),
        ("end_header\n", "", "header does not end|damaged"),
        ("element face 4", "element fact 4", r"expected elements vertex and face, got \['fact'"),
        ("3 1 2 3\n", "", "damaged"),
        ("3 1 2 3\n", "2 1 2\n", "a face has 2 corners, expected 3"),
        ("3 1 2 3\n", "4 0 1 2\n", "damaged"),
        ("3 1 2 3\n", "3 1 2 9\n", r"outside 0\.\.3"),
        ("100 0 0\n", "100 0\n", "damaged"),
        ("100 0 0\n", "100 x 0\n", "damaged"),
        ("100 0 0\n", "100 nan 0\n", "1 of 4 vertices are not finite"),
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


def test_diameter_of_a_box_is_its_diagonal() -> None:
    assert diameter(_cube(0.05).vertices_m) == pytest.approx(0.1 * np.sqrt(3))


def _textured() -> Mesh:
    """A square of four texels: red, green over blue, white."""
    corners = np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0.1, 0], [0, 0.1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    texture = np.array(
        [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8
    )  # the first row is the top, v = 1
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    colors = sample_texture(texture, uv)
    return Mesh(corners, faces, vertex_normals(corners, faces), colors, uv, texture)


def test_texture_coordinates_go_up() -> None:
    expected = [[0, 0, 255], [255, 255, 255], [0, 255, 0], [255, 0, 0]]
    mesh = _textured()
    np.testing.assert_array_equal(mesh.colors, expected)
    assert mesh.texture is not None and mesh.uv is not None
    np.testing.assert_array_equal(sample_texture(mesh.texture, mesh.uv - 3.0), expected)
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])  # the far edge does not wrap
    np.testing.assert_array_equal(sample_texture(mesh.texture, corners), expected)


def test_a_texture_survives_the_file(tmp_path: Path) -> None:
    mesh = _textured()
    write_ply(tmp_path / "t.ply", mesh)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.ply", "t.png"]
    assert b"comment TextureFile t.png" in (tmp_path / "t.ply").read_bytes()
    back = load_ply(tmp_path / "t.ply", "mm")
    assert back.uv is not None
    np.testing.assert_allclose(back.uv, mesh.uv, atol=1e-6)
    np.testing.assert_array_equal(back.texture, mesh.texture)
    np.testing.assert_array_equal(back.colors, mesh.colors)
    plain = load_ply(tmp_path / "t.ply", with_texture=False)
    assert plain.texture is None and plain.uv is None
    np.testing.assert_array_equal(plain.colors, mesh.colors)


@pytest.mark.parametrize("names", ["texture_u texture_v", "s t", "u v"])
def test_colours_come_from_the_texture_where_the_file_has_none(tmp_path: Path, names: str) -> None:
    mesh = _textured()
    write_ply(tmp_path / "t.ply", mesh)
    assert mesh.uv is not None
    text = "ply\nformat ascii 1.0\ncomment TextureFile t.png\nelement vertex 4\n"
    text += "".join(f"property float {c}\n" for c in ("x y z " + names).split())
    text += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    rows = np.hstack([mesh.vertices_m, mesh.uv])
    text += "".join(" ".join(map(str, row)) + "\n" for row in rows) + "4 0 1 2 3\n"
    (tmp_path / "a.ply").write_text(text)
    back = load_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(back.colors, mesh.colors)
    np.testing.assert_array_equal(back.texture, mesh.texture)
    np.testing.assert_array_equal(back.faces, mesh.faces)


def test_texture_coordinates_per_corner_double_the_vertices(tmp_path: Path) -> None:
    mesh = _textured()
    write_ply(tmp_path / "t.ply", mesh)
    text = "ply\nformat ascii 1.0\ncomment TextureFile t.png\nelement vertex 3\n"
    text += "".join(f"property float {c}\n" for c in "xyz")
    text += "element face 2\nproperty list uchar int vertex_indices\n"
    text += "property list uchar float texcoord\nend_header\n0 0 0\n1 0 0\n0 1 0\n"
    text += "3 0 1 2 6 .1 .1 .1 .1 .1 .1\n3 2 1 0 6 .9 .9 .9 .9 .9 .9\n"
    (tmp_path / "c.ply").write_text(text)
    back = load_ply(tmp_path / "c.ply")
    assert len(back.vertices_m) == 6
    np.testing.assert_array_equal(back.colors[back.faces[0]], [[0, 0, 255]] * 3)
    np.testing.assert_array_equal(back.colors[back.faces[1]], [[0, 255, 0]] * 3)
    np.testing.assert_array_equal(back.vertices_m[back.faces[1]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_a_texture_that_is_missing_or_no_image_is_named(tmp_path: Path) -> None:
    write_ply(tmp_path / "t.ply", _textured())
    (tmp_path / "t.png").write_text("no image")
    with pytest.raises(DataError, match=r"t\.ply.*t\.png is not an image"):
        load_ply(tmp_path / "t.ply")
    (tmp_path / "t.png").unlink()
    with pytest.raises(DataError, match=r"t\.ply.*its texture .*t\.png is missing"):
        load_ply(tmp_path / "t.ply")


def test_parts_that_do_not_fit_are_refused() -> None:
    mesh = _textured()
    parts = (mesh.vertices_m, mesh.faces, mesh.normals, mesh.colors)
    with pytest.raises(DataError, match="uv: expected finite 4x2"):
        Mesh(*parts, np.zeros((3, 2)), mesh.texture)
    with pytest.raises(DataError, match=r"texture: expected HxWx3 with uv.*without uv"):
        Mesh(*parts, None, mesh.texture)
