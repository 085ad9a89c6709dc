"""Bodies, holes and sharp edges, on shapes whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from heatnet_ros.mesh_topology import creased_normals, describe_topology, label_connected

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
FACES = np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))], np.int32)


def test_a_cube_is_closed_whatever_its_seams() -> None:
    whole = describe_topology(CORNERS, FACES)
    assert (whole.bodies, whole.open_edges) == (1, 0)
    assert whole.volume == pytest.approx(1.0)
    # as an STL stores it: three vertices of its own for each face
    soup = describe_topology(
        CORNERS[FACES].reshape(-1, 3), np.arange(36, dtype="i4").reshape(-1, 3)
    )
    assert soup == whole
    assert describe_topology(CORNERS, FACES[:, ::-1]).volume == pytest.approx(-1.0)


def test_a_missing_face_leaves_its_three_edges_open() -> None:
    assert describe_topology(CORNERS, FACES[1:]).open_edges == 3


def test_two_cubes_are_two_bodies() -> None:
    vertices = np.concatenate([CORNERS, CORNERS + 2.0])
    faces = np.concatenate([FACES, FACES + 8]).astype(np.int32)
    assert describe_topology(vertices, faces).bodies == 2
    touching = np.concatenate([CORNERS, CORNERS + np.eye(3)[0]])  # they share four corners
    assert describe_topology(touching, faces).bodies == 1


def test_labels_are_the_smallest_node_of_long_chains() -> None:
    order = np.random.default_rng(0).permutation(1000)
    chain = np.column_stack([order[:-1], order[1:]])
    chain = np.delete(chain, 499, axis=0)  # two chains of 500
    labels = label_connected(chain, 1000)
    assert set(labels[order[:500]]) == {order[:500].min()}
    assert set(labels[order[500:]]) == {order[500:].min()}


def test_a_cube_gets_flat_faces_and_a_ball_stays_smooth() -> None:
    columns, faces, normals = creased_normals(CORNERS, FACES)
    assert len(columns) == 24
    for triangle in faces:
        a, b, c = CORNERS[columns[triangle]]
        expected = np.cross(b - a, c - a)
        np.testing.assert_allclose(normals[triangle], np.tile(expected, (3, 1)), atol=1e-12)
    points, ball = _ball(24)
    columns, faces, normals = creased_normals(points, ball)
    assert len(columns) == len(points)
    np.testing.assert_array_equal(columns[faces], ball)
    assert np.einsum("ij,ij->i", normals, points[columns]).min() > 0.99


def test_a_seam_of_the_texture_is_no_crease() -> None:
    points, ball = _ball(24)
    soup = points[ball].reshape(-1, 3)
    own = np.arange(len(soup), dtype=np.int32).reshape(-1, 3)
    columns, faces, normals = creased_normals(soup, own)
    assert len(columns) == len(soup)  # each keeps its own texture coordinate
    np.testing.assert_array_equal(columns[faces], own)
    assert np.einsum("ij,ij->i", normals, soup[columns]).min() > 0.99


def _ball(n: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A unit ball without its poles' caps: n rings of n points."""
    v, u = np.meshgrid(np.linspace(0.2, np.pi - 0.2, n), np.arange(n) * 2 * np.pi / n)
    points = np.stack([np.sin(v) * np.cos(u), np.sin(v) * np.sin(u), np.cos(v)], -1).reshape(-1, 3)
    faces = []
    for i in range(n):
        for j in range(n - 1):
            a, b = i * n + j, (i + 1) % n * n + j
            faces += [(a, a + 1, b), (a + 1, b + 1, b)]
    return points, np.array(faces, np.int32)
