"""PLY tables: byte orders, polygons, colours per face, texture coordinates per corner."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from heatnet_ros.errors import DataError
from heatnet_ros.mesh import load_ply
from heatnet_ros.ply import read_ply, read_vertex_properties

SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 2, 0)]


def _binary(path: Path, order: str, faces: list[tuple[int, ...]]) -> Path:
    name = {"<": "little", ">": "big"}[order]
    header = f"ply\nformat binary_{name}_endian 1.0\nelement vertex {len(SQUARE)}\n"
    header += "".join(f"property double {c}\n" for c in "xyz")
    header += f"element face {len(faces)}\nproperty list uchar int vertex_index\nend_header\n"
    body = b"".join(struct.pack(order + "3d", *p) for p in SQUARE)
    body += b"".join(struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in faces)
    path.write_bytes(header.encode() + body)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("faces", "triangles"),
    [
        ([(0, 1, 2), (0, 2, 3)], [(0, 1, 2), (0, 2, 3)]),
        ([(0, 1, 2, 3)], [(0, 1, 2), (0, 2, 3)]),
        ([(0, 1, 2, 3), (3, 2, 4)], [(0, 1, 2), (0, 2, 3), (3, 2, 4)]),
        ([(3, 2, 4), (0, 1, 2, 4, 3)], [(3, 2, 4), (0, 1, 2), (0, 2, 4), (0, 4, 3)]),
    ],
)
def test_polygons_become_fans_in_every_byte_order(
    tmp_path: Path, order: str, faces: list[tuple[int, ...]], triangles: list[tuple[int, ...]]
) -> None:
    path = _binary(tmp_path / "b.ply", order, faces)
    tables = read_ply(path)
    np.testing.assert_array_equal(tables.faces, triangles)
    np.testing.assert_array_equal(np.stack([tables.vertex[c] for c in "xyz"], axis=1), SQUARE)
    text = "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\n"
    text += f"property float z\nelement face {len(faces)}\n"
    text += "property list uchar int vertex_indices\nend_header\n"
    text += "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    text += "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces)
    (tmp_path / "a.ply").write_text(text)
    np.testing.assert_array_equal(read_ply(tmp_path / "a.ply").faces, triangles)


@pytest.mark.parametrize("order", ["<", ">"])
def test_mixed_polygons_cut_short_get_a_data_error(tmp_path: Path, order: str) -> None:
    path = _binary(tmp_path / "b.ply", order, [(0, 1, 2, 3), (3, 2, 4)])
    content = path.read_bytes()
    for missing in range(1, 150):
        path.write_bytes(content[:-missing])
        with pytest.raises(DataError, match=r"b\.ply"):
            load_ply(path)


def test_a_face_of_two_corners_is_damage(tmp_path: Path) -> None:
    path = _binary(tmp_path / "b.ply", "<", [(0, 1)])
    with pytest.raises(DataError, match=r"b\.ply.*a face has 2 corners, expected 3 or more"):
        load_ply(path)


def test_colours_of_faces_become_colours_of_their_own_vertices(tmp_path: Path) -> None:
    text = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    text += "property float z\nelement face 2\nproperty list uchar int vertex_indices\n"
    text += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    text += "0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 250 0 0\n3 0 2 3 0 0 240\n"
    (tmp_path / "f.ply").write_text(text)
    mesh = load_ply(tmp_path / "f.ply")
    assert len(mesh.vertices_m) == 6  # the shared edge is doubled
    np.testing.assert_array_equal(mesh.colors[mesh.faces[0]], [[250, 0, 0]] * 3)
    np.testing.assert_array_equal(mesh.colors[mesh.faces[1]], [[0, 0, 240]] * 3)
    np.testing.assert_array_equal(mesh.vertices_m[mesh.faces[1]][2], [0, 1, 0])


def test_header_alone_names_the_columns(tmp_path: Path) -> None:
    path = _binary(tmp_path / "b.ply", ">", [(0, 1, 2)])
    assert read_vertex_properties(path) == ["x", "y", "z"]
