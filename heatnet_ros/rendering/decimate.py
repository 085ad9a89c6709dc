"""Fewer triangles for faster pictures: scanned meshes have far more than a pixel can show."""

from __future__ import annotations

import numpy as np

from heatnet_ros.errors import EngineError
from heatnet_ros.mesh import Mesh, vertex_normals


def decimate(mesh: Mesh, max_faces: int) -> Mesh:
    """A mesh of at most ``max_faces`` triangles (0: unchanged), colours from the nearest vertex.

    Quadric edge collapse. Raises EngineError when fast_simplification or SciPy is missing.
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
    vertices, faces = fast_simplification.simplify(
        mesh.vertices_m.astype(np.float32), mesh.faces, target_count=max_faces
    )
    vertices, faces = vertices.astype(np.float64), faces.astype(np.int32)
    nearest = cKDTree(mesh.vertices_m).query(vertices)[1]
    return Mesh(vertices, faces, vertex_normals(vertices, faces), mesh.colors[nearest])
