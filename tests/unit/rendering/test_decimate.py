"""Decimation keeps the shape and the colours."""

import numpy as np
import pytest

from heatnet_ros.mesh import Mesh, load_ply
from heatnet_ros.mesh_topology import creased_normals, describe_topology
from heatnet_ros.rendering.decimate import decimate
from heatnet_ros.resources import find_resource

pytest.importorskip("fast_simplification", reason="fast-simplification is in the train extra")
pytest.importorskip("scipy", reason="SciPy is in the train extra")


def test_fewer_faces_same_shape_and_colors():
    mesh = load_ply(find_resource("config/objects/demo/mug.ply", "Mesh"))
    small = decimate(mesh, 2000)
    assert 1000 < len(small.faces) <= 2000
    np.testing.assert_allclose(small.bounds_m, mesh.bounds_m, atol=0.002)
    known = {tuple(c) for c in mesh.colors.tolist()}
    assert {tuple(c) for c in small.colors.tolist()} <= known
    assert decimate(mesh, 0) is mesh


def test_sharp_edges_stay_closed_and_the_number_of_faces_is_kept():
    """A cylinder whose caps have vertices of their own: borders, if they were not joined."""
    around, up = 400, 20
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    rings = [np.column_stack([np.cos(angle), np.sin(angle), np.full(around, z)])
             for z in np.linspace(0, 2, up)]  # fmt: skip
    vertices = np.concatenate([*rings, [[0, 0, 0], [0, 0, 2]]])
    faces = []
    for i in range(around):
        j = (i + 1) % around
        for k in range(0, around * (up - 1), around):
            faces += [[k + i, k + j, k + around + j], [k + i, k + around + j, k + around + i]]
        top = around * (up - 1)
        faces += [[j, i, len(vertices) - 2], [top + i, top + j, len(vertices) - 1]]
    columns, faces, normals = creased_normals(vertices, np.array(faces, np.int32))
    mesh = Mesh(vertices[columns], faces, normals, np.full((len(columns), 3), 90, np.uint8))
    assert len(columns) > len(vertices)  # doubled at the rims
    small = decimate(mesh, 3000)
    assert 2000 < len(small.faces) <= 3000
    topology = describe_topology(small.vertices_m, small.faces)
    assert topology.open_edges == 0
    assert topology.volume == pytest.approx(2 * np.pi, rel=0.01)
    up_most = small.normals[:, 2].max()
    assert up_most > 0.999  # the caps are flat still
