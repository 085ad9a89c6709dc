"""How a surface looks: the colours of points on it, and whether a turn of it shows."""

from __future__ import annotations

import numpy as np

from heatnet_ros.geometry import se3
from heatnet_ros.keypoint_sampling import PointIndex
from heatnet_ros.mesh import Mesh, SurfaceDraw, draw_surface, sample_texture
from heatnet_ros.types import FloatArray

POINTS, PROBES = 30000, 4000
# a colour is compared with those this near (in samples): scans fit their colours no better
_NEIGHBOURS = 8
# a turned probe that differs more than this (of 255, in one channel) from all of them stands out
STANDS_OUT = 60.0
# neighbours on the back of a thin part do not count
_SAME_SIDE = 0.5


class SurfaceColors:
    """Points all over a mesh with the colours its texture, or else its vertices, give them.

    points_m: Nx3, normals: Nx3 (unit), colors: Nx3 float64, 0..255. Deterministic from the seed.
    """

    def __init__(self, mesh: Mesh, seed: int = 0) -> None:
        draw = draw_surface(mesh, POINTS, seed)
        self.points_m, self.normals = draw.interpolate(mesh.vertices_m), draw.normals
        self.colors = _color(mesh, draw)
        self._index = PointIndex(self.points_m)

    def compare(self, T: FloatArray) -> tuple[float, float]:
        """How much the surface, moved by T (4x4), differs in colour from what lies there.

        The mean absolute difference (0..255), and the share of the surface (0..1) that stands out:
        a label on 3 of 100 parts of it stands out on up to 6, where it was and where it comes to.
        """
        normals = self.normals[:PROBES] @ T[:3, :3].T
        near = self._index.nearest(se3.transform(T, self.points_m[:PROBES]), _NEIGHBOURS)[0]
        same_side = np.einsum("pki,pi->pk", self.normals[near], normals) > _SAME_SIDE
        # a surface wound every way has no sides
        same_side[~same_side.any(axis=1)] = True
        difference = np.abs(self.colors[near] - self.colors[:PROBES, None])
        least = np.where(same_side[:, :, None], difference, np.inf).min(axis=1)
        strongest = np.where(same_side, difference.max(axis=2), np.inf).min(axis=1)
        return float(least.mean()), float(np.mean(strongest > STANDS_OUT))


def _color(mesh: Mesh, draw: SurfaceDraw) -> FloatArray:
    if mesh.texture is not None and mesh.uv is not None:
        # between the vertices too: a box of twelve triangles carries its label there
        return sample_texture(mesh.texture, draw.interpolate(mesh.uv)).astype(np.float64)
    return np.rint(draw.interpolate(mesh.colors.astype(np.float64)))
