"""Simple solids as meshes: distractors that are none of the known objects."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.mesh import Mesh, vertex_normals
from heatnet_ros.types import FloatArray


def random_primitive(rng: np.random.Generator) -> Mesh:
    """A box, cylinder, cone or ball of 2 to 14 cm with one to three colours, centred at 0."""
    size = rng.uniform(0.02, 0.14, 3)
    if rng.random() < 0.4:
        mesh = _box(size)
    else:
        profile = [_tube, _cone, _ball][int(rng.integers(3))]()
        mesh = _lathe(profile * [size[0] / 2, size[2]])
    colors = rng.integers(20, 256, (3, 3)).astype(np.uint8)
    band = np.clip((mesh.vertices_m[:, 2] / size[2] + 0.5) * 3, 0, 2).astype(int)
    if rng.random() < 0.5:
        band[:] = 0
    return Mesh(mesh.vertices_m, mesh.faces, mesh.normals, colors[band])


def _box(size: FloatArray) -> Mesh:
    vertices: list[FloatArray] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float) / 2
            quad = np.insert(corner, axis, sign / 2, axis=1) * size
            faces += [[len(vertices) + i for i in t] for t in ((0, 1, 2), (0, 2, 3))]
            vertices += list(quad)
    normals = np.repeat([[s if i == a else 0.0 for i in range(3)] for a in range(3)
                         for s in (-1.0, 1.0)], 4, axis=0)  # fmt: skip
    return Mesh(np.array(vertices), np.array(faces, np.int32), normals, _grey(len(vertices)))


def _lathe(profile: FloatArray, segments: int = 24) -> Mesh:
    """Turn (radius, z) points about z; each band keeps its own vertices, so edges stay crisp."""
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices, faces, offset = [], [], 0
    for (r0, z0), (r1, z1) in pairwise(profile):
        for r, z in ((r0, z0), (r1, z1)):
            vertices.append(np.column_stack([circle * r, np.full(segments + 1, z)]))
        a = offset + np.arange(segments)
        b = a + segments + 1
        faces += [np.stack([a, a + 1, b], axis=1), np.stack([a + 1, b + 1, b], axis=1)]
        offset += 2 * (segments + 1)
    v, f = np.concatenate(vertices), np.concatenate(faces).astype(np.int32)
    return Mesh(v, f, vertex_normals(v, f), _grey(len(v)))


def _tube() -> FloatArray:
    return np.array([[0, -0.5], [1, -0.5], [1, 0.5], [0, 0.5]], float)


def _cone() -> FloatArray:
    return np.array([[0, -0.5], [1, -0.5], [0.3, 0.5], [0, 0.5]], float)


def _ball() -> FloatArray:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 12)
    return np.column_stack([np.cos(angle), np.sin(angle) / 2])


def _grey(count: int) -> NDArray[np.uint8]:
    return np.full((count, 3), 128, np.uint8)
