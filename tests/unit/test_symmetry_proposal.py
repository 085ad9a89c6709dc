"""Proposed symmetries: shapes whose group is known, and LINEMOD's objects."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heatnet_ros.geometry import se3
from heatnet_ros.mesh import Mesh, load_ply, vertex_normals
from heatnet_ros.symmetry_proposal import SymmetryProposal, propose_symmetries

DEMO = Path(__file__).parents[2] / "config" / "objects" / "demo"
LM = Path(__file__).parents[3] / "shared" / "data" / "lm" / "models"
LM_IDS = (1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15)


def _prism(sides: int, radius: float, height: float, top: float = 1.0) -> Mesh:
    """A prism along z; ``top`` scales its upper end (a cone's frustum)."""
    angle = np.arange(sides) * 2 * np.pi / sides
    ring = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    low = np.column_stack([ring, np.full(sides, -height / 2)])
    high = np.column_stack([ring * top, np.full(sides, height / 2)])
    vertices = np.concatenate([low, high, [[0, 0, -height / 2], [0, 0, height / 2]]])
    faces = []
    for i in range(sides):
        j = (i + 1) % sides
        faces += [(i, j, sides + i), (j, sides + j, sides + i)]
        faces += [(j, i, 2 * sides), (sides + i, sides + j, 2 * sides + 1)]
    return _mesh(vertices, np.array(faces, np.int32))


def _box(size: tuple[float, float, float]) -> Mesh:
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    return _mesh(corners, faces)


def _mesh(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> Mesh:
    grey = np.full(vertices.shape, 180, np.uint8)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), grey)


def _kinds(proposals: list[SymmetryProposal]) -> list[int | None]:
    return [proposal.fold for proposal in proposals]


SHAPES = {
    "brick": (_box((0.12, 0.06, 0.04)), [2, 2]),
    "square bar": (_box((0.05, 0.05, 0.1)), [4, 2]),
    "cube": (_box((0.05, 0.05, 0.05)), [4, 4, 4]),
    "cylinder": (_prism(64, 0.03, 0.1), [None, 2]),
    "frustum": (_prism(64, 0.03, 0.1, top=0.4), [None]),
    "triangle": (_prism(3, 0.03, 0.1), [3, 2]),
    "pentagon": (_prism(5, 0.03, 0.03), [5, 2]),
    "hexagon": (_prism(6, 0.03, 0.05), [6, 2]),
    "hexagonal frustum": (_prism(6, 0.03, 0.05, top=0.5), [6]),
}


@pytest.mark.parametrize("moved", [False, True], ids=["upright", "turned and shifted"])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_group_of_the_book(name: str, moved: bool) -> None:
    mesh, expected = SHAPES[name]
    T = np.eye(4)
    if moved:
        T = se3.make_transform(se3.exp_so3(np.array([0.7, -0.4, 1.1])), np.array([0.02, 0.01, 0.3]))
        mesh = _mesh(se3.transform(T, mesh.vertices_m), mesh.faces)
    found = propose_symmetries(mesh)
    assert _kinds(found) == expected
    if len(set(expected)) > 1 or len(expected) == 1:  # the main axis is z
        assert abs(float(found[0].axis @ T[:3, 2])) > np.cos(np.radians(1))
        away = found[0].point_m - T[:3, 3]
        assert np.linalg.norm(away - found[0].axis * (away @ found[0].axis)) < 0.001
    for proposal in found:
        assert proposal.max_percent < 2
        assert proposal.colors_agree


def test_a_handle_breaks_the_symmetry() -> None:
    mug = load_ply(DEMO / "mug.ply")
    assert propose_symmetries(mug) == []
    frustum = SHAPES["frustum"][0]
    knob = _box((0.012, 0.004, 0.004))
    vertices = np.concatenate([frustum.vertices_m, knob.vertices_m + np.eye(3)[0] * 0.03])
    faces = np.concatenate([frustum.faces, knob.faces + len(frustum.vertices_m)])
    both = _mesh(vertices, faces.astype(np.int32))
    assert all(p.fold is not None for p in propose_symmetries(both))


def test_a_label_is_reported_beside_the_geometry() -> None:
    plain = _prism(64, 0.03, 0.1)
    colors = plain.colors.copy()
    colors[plain.vertices_m[:, 0] > 0] = (20, 60, 220)
    labelled = Mesh(plain.vertices_m, plain.faces, plain.normals, colors)
    found = propose_symmetries(labelled)
    assert _kinds(found) == [None, 2]
    assert not found[0].colors_agree
    assert "DIFFER" in found[0].describe()
    assert propose_symmetries(plain)[0].color_difference == 0


def _textured_box(size: tuple[float, float, float], labels: dict[int, float]) -> Mesh:
    """Twelve triangles, each side a square of the texture; labels: side -> share of the side.

    The sides are -x, +x, -y, +y, -z, +z. No vertex touches a label smaller than its side.
    """
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    vertices = corners[np.array(quads).reshape(-1)]
    faces = np.array([(4 * q, 4 * q + i, 4 * q + i + 1) for q in range(6) for i in (1, 2)])
    texture = np.full((200, 1200, 3), 180, np.uint8)
    for side, share in labels.items():
        half = round(100 * np.sqrt(share))
        middle = 200 * side + 100
        texture[100 - half : 100 + half, middle - half : middle + half] = 20
    uv = [((q + u) / 6, v) for q in range(6) for u, v in ((0, 0), (1, 0), (1, 1), (0, 1))]
    plain = _mesh(vertices, faces.astype(np.int32))
    return replace(plain, uv=np.array(uv, np.float64), texture=texture)


def _agreeing(proposals: list[SymmetryProposal]) -> list[list[float]]:
    return [proposal.to_entry()["axis"] for proposal in proposals if proposal.colors_agree]


def test_a_label_in_the_texture_is_seen_between_the_vertices() -> None:
    size = (0.12, 0.06, 0.04)
    assert len(_agreeing(propose_symmetries(_textured_box(size, {})))) == 2
    found = propose_symmetries(_textured_box(size, {5: 0.7}))
    assert _kinds(found) == [2, 2]
    # the label is in the middle of the top: only the turn about the vertical keeps it
    assert _agreeing(found) == [[0, 0, 1]]
    assert "DIFFER" in next(p for p in found if not p.colors_agree).describe()


def test_the_turn_that_keeps_the_label_is_among_those_proposed() -> None:
    size = (0.12, 0.06, 0.04)
    for side, axis in ((1, [1, 0, 0]), (3, [0, 1, 0]), (5, [0, 0, 1])):
        assert _agreeing(propose_symmetries(_textured_box(size, {side: 0.9}))) == [axis]


def test_a_label_on_three_per_cent_of_the_surface_is_seen() -> None:
    # all sides of a cube are alike: a sixth of the surface each
    found = propose_symmetries(_textured_box((0.06, 0.06, 0.06), {5: 0.03 * 6}))
    assert _kinds(found) == [4, 4, 4]
    assert _agreeing(found) == [[0, 0, 1]]
    assert max(p.color_difference for p in found) < 10  # the mean alone would not tell


def test_the_sides_of_a_thin_card_are_told_apart() -> None:
    printed = propose_symmetries(_textured_box((0.085, 0.054, 0.0008), {5: 1.0}))
    assert _kinds(printed) == [2, 2]
    assert _agreeing(printed) == [[0, 0, 1]]
    both = propose_symmetries(_textured_box((0.085, 0.054, 0.0008), {4: 1.0, 5: 1.0}))
    assert len(_agreeing(both)) == 2


def test_entry_and_flag_say_the_same() -> None:
    turn = SymmetryProposal(np.array([0, 0, 1.0]), np.array([0.01, 0, 0]), 2, 0.1, 0.2, 0.3, 4.0)
    assert turn.to_entry() == {"axis": [0, 0, 1], "fold": 2, "point_m": [0.01, 0, 0]}
    assert turn.to_flag("can") == "can:axis=0,0,1:fold=2:point_m=0.01,0,0"


def test_the_same_mesh_gives_the_same_proposals() -> None:
    first, second = (propose_symmetries(SHAPES["hexagon"][0]) for _ in range(2))
    assert [p.to_entry() for p in first] == [p.to_entry() for p in second]


@pytest.mark.parametrize(("name", "kinds"), [("connector", [2]), ("pulley", [None])])
def test_demo_objects(name: str, kinds: list[int | None]) -> None:
    found = propose_symmetries(load_ply(DEMO / f"{name}.ply"))
    assert _kinds(found) == kinds
    assert found[0].to_entry()["axis"] == [0, 0, 1]


@pytest.mark.skipif(not LM.exists(), reason=f"{LM} is absent")
@pytest.mark.parametrize("obj_id", LM_IDS)
def test_linemod_as_bop_lists_it(obj_id: int) -> None:
    info = json.loads((LM / "models_info.json").read_text())[str(obj_id)]
    found = propose_symmetries(load_ply(LM / f"obj_{obj_id:06d}.ply", "mm"))
    listed = info.get("symmetries_discrete", [])
    assert _kinds(found) == [2] * len(listed)
    for proposal, matrix in zip(found, listed, strict=True):
        R = np.array(matrix).reshape(4, 4)[:3, :3]
        # BOP's turn keeps our axis, to two degrees
        assert float(proposal.axis @ R @ proposal.axis) > np.cos(np.radians(2))
        assert proposal.colors_agree
