"""Fewer triangles for faster pictures: scanned meshes have far more than a pixel can show."""

from __future__ import annotations

import numpy as np

from heatnet_ros.errors import EngineError
from heatnet_ros.mesh import Mesh
from heatnet_ros.mesh_topology import creased_normals, merge_places


def decimate(mesh: Mesh, max_faces: int) -> Mesh:
    """A mesh of at most ``max_faces`` triangles (0: unchanged), colours from the nearest vertex.

    Quadric edge collapse. Vertices doubled at texture seams and sharp edges are one again before,
    else each seam would be a border that cannot collapse and opens. A texture is lost. Raises
    EngineError when fast_simplification or SciPy is missing.
    """
    if not max_faces or len(mesh.faces) <= max_faces:
        return mesh
    try:
        import fast_simplification
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise EngineError(
            f"Decimating meshes needs {error.name}: pip install 'heatnet_ros[train]'."
        ) from error
    vertices, faces = fast_simplification.simplify(*_weld(mesh), target_count=max_faces)
    vertices, columns = vertices.astype(np.float64), faces.astype(np.int32)
    rows, faces, normals = creased_normals(vertices, columns)
    nearest = cKDTree(mesh.vertices_m).query(vertices)[1]
    return Mesh(vertices[rows], faces, normals, mesh.colors[nearest][rows])


def _weld(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (float32) and faces with one vertex for each place."""
    places = merge_places(mesh.vertices_m)
    _, first = np.unique(places, return_index=True)
    faces = places[mesh.faces]
    a, b, c = faces.T
    whole = (a != b) & (b != c) & (c != a)
    return mesh.vertices_m[first].astype(np.float32), faces[whole].astype(np.int32)
