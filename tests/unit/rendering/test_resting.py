"""Resting poses against solids whose faces are known."""

import numpy as np
import pytest

from heatnet_ros.mesh import Mesh, vertex_normals
from heatnet_ros.rendering.resting import resting_rotations

pytest.importorskip("scipy", reason="resting poses need SciPy")


def box(size) -> Mesh:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    vertices = corners * size
    normals = vertex_normals(vertices, faces)
    return Mesh(vertices, faces, normals, np.full((8, 3), 128, np.uint8))


def test_a_box_lies_on_its_six_faces_and_most_often_on_the_largest():
    size = np.array([0.3, 0.2, 0.05])
    rotations, shares = resting_rotations(box(size))
    assert len(rotations) == 6 and shares.sum() == pytest.approx(1)
    heights = []
    for R in rotations:
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(R) == pytest.approx(1)
        heights.append(np.ptp(box(size).vertices_m @ R.T, axis=0)[2])
    np.testing.assert_allclose(sorted(heights), [0.05, 0.05, 0.2, 0.2, 0.3, 0.3], atol=1e-9)
    flat = np.isclose(heights, 0.05)
    # a face fills the view from the middle: 4 asin(ab / sqrt((a2 + h2)(b2 + h2))) of 4 pi
    a, b, h = size / 2
    expected = np.arcsin(a * b / np.sqrt((a * a + h * h) * (b * b + h * h))) / np.pi
    np.testing.assert_allclose(shares[flat], expected, rtol=1e-9)


def test_a_leaning_prism_does_not_stand_on_its_foot():
    mesh = box(np.array([0.05, 0.05, 0.3]))
    leaning = mesh.vertices_m + np.outer(mesh.vertices_m[:, 2], [1.0, 0, 0])
    rotations, _ = resting_rotations(Mesh(leaning, mesh.faces, mesh.normals, mesh.colors))
    heights = [np.ptp(leaning @ R.T, axis=0)[2] for R in rotations]
    assert not np.any(np.isclose(heights, 0.3, atol=1e-6))
