"""How the triangles of a mesh hang together: seams, holes, bodies, sharp edges. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.types import FloatArray

CREASE_DEG = 40.0


@dataclass(frozen=True)
class Topology:
    """bodies: connected pieces. open_edges: edges that do not have exactly two faces.

    volume: signed, in the cube of the mesh's unit; negative when the faces look inwards. It means
    something only without open edges.
    """

    bodies: int
    open_edges: int
    volume: float


def merge_places(vertices: FloatArray) -> NDArray[np.int64]:
    """Number of the place of each vertex, (N,): vertices of one place (a texture seam) share it."""
    rows = np.ascontiguousarray(vertices + 0.0)  # -0.0 is the place of 0.0
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * 3))).reshape(-1)
    return np.unique(keys, return_inverse=True)[1].reshape(-1).astype(np.int64)


def describe_topology(vertices: FloatArray, faces: NDArray[np.int32]) -> Topology:
    """Count bodies and open edges of a mesh: vertices Nx3, faces Mx3."""
    corners = merge_places(vertices)[faces]
    _, counts = np.unique(_edge_keys(corners), return_counts=True)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]]])
    labels = label_connected(edges, int(corners.max()) + 1)
    a, b, c = (vertices[faces[:, i]] - vertices.mean(axis=0) for i in range(3))
    volume = float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)
    return Topology(len(np.unique(labels[corners[:, 0]])), int(np.sum(counts != 2)), volume)


def label_connected(edges: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Label (count,) of the connected part of each node: the smallest node number in it.

    edges: Ex2. Hooks each root below the smaller one it touches, then shortens the paths.
    """
    labels = np.arange(count)
    while True:
        a, b = labels[edges[:, 0]], labels[edges[:, 1]]
        apart = a != b
        if not apart.any():
            return labels
        edges, a, b = edges[apart], a[apart], b[apart]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]


def creased_normals(
    vertices: FloatArray, faces: NDArray[np.int32], crease_deg: float = CREASE_DEG
) -> tuple[NDArray[np.int64], NDArray[np.int32], FloatArray]:
    """Normals that are smooth on curved faces and break at sharp edges, as CAD parts have them.

    Vertices are doubled at edges sharper than ``crease_deg``: returns (old vertex of each new one,
    new faces, unit normals Nx3 of the new vertices), area-weighted.
    """
    places = merge_places(vertices)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    unit = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
    corners = places[faces]
    keys, of_face = _edge_keys(corners), np.tile(np.arange(len(faces)), 3)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    pairs = np.column_stack([of_face[order][:-1], of_face[order][1:]])[same]
    flat = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]]) > np.cos(
        np.radians(crease_deg)
    )
    patch = label_connected(pairs[flat], len(faces))
    # a normal belongs to a place and a smooth patch; a vertex also to its colour and uv
    shading = corners.reshape(-1) * len(faces) + np.repeat(patch, 3)
    _, group = np.unique(shading, return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, 3))
    np.add.at(sums, group, np.repeat(cross, 3, axis=0))
    vertex = faces.reshape(-1).astype(np.int64)
    _, first, inverse = np.unique(
        vertex * len(faces) + np.repeat(patch, 3), return_index=True, return_inverse=True
    )
    normals = sums[group[first]]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return vertex[first], inverse.reshape(-1, 3).astype(np.int32), normals


def _edge_keys(corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number per edge of each face, (3M,): first all edges 01, then 12, then 20."""
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    edges.sort(axis=1)
    return np.asarray(edges[:, 0] * (int(corners.max()) + 1) + edges[:, 1])
