"""Decimation keeps the shape and the colours."""

import numpy as np
import pytest

from heatnet_ros.mesh import load_ply
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
