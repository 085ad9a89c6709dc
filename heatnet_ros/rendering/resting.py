"""How a rigid part can lie on a table: the facets of its convex hull that it rests on."""

from __future__ import annotations

import numpy as np

from heatnet_ros.errors import EngineError
from heatnet_ros.mesh import Mesh
from heatnet_ros.types import FloatArray

# facets whose normals differ by less are one face to stand on
SAME_FACE_COS = np.cos(np.radians(8.0))
LEAST_SHARE = 0.02


def resting_rotations(mesh: Mesh) -> tuple[FloatArray, FloatArray]:
    """Rotations Sx3x3 that lay the part on its stable faces, and their probabilities (S,).

    A face is stable when the centre of mass stands over it; a part dropped in a random attitude
    comes to rest on it about as often as the face fills the view from the centre of mass. The
    centre is that of the convex hull. Raises EngineError without SciPy.
    """
    try:
        from scipy.spatial import ConvexHull
    except ImportError as error:
        raise EngineError(
            "Resting poses need SciPy: pip install 'heatnet_ros[train]', or use poses: upright."
        ) from error
    hull = ConvexHull(mesh.vertices_m)
    corners = hull.points[hull.simplices]
    center = _center_of_mass(corners)
    normals = hull.equations[:, :3]
    angles = _solid_angles(corners - center)
    faces: list[tuple[FloatArray, float]] = []
    left = np.argsort(-angles)
    while len(left):
        normal = normals[left[0]]
        same = normals[left] @ normal > SAME_FACE_COS
        members = left[same]
        if _stands_over(center, normal, corners[members].reshape(-1, 3)):
            faces.append((normal, float(angles[members].sum())))
        left = left[~same]
    if not faces:  # a ball: any side will do
        faces = [(np.array([0.0, 0.0, -1.0]), 1.0)]
    shares = np.array([share for _, share in faces])
    keep = shares >= LEAST_SHARE * shares.sum()
    rotations = np.stack([_turn_down(normal) for normal, _ in faces])[keep]
    return rotations, shares[keep] / shares[keep].sum()


def _center_of_mass(corners: FloatArray) -> FloatArray:
    """Of the solid hull with triangles Mx3x3, by tetrahedra to its middle."""
    middle = corners.mean(axis=(0, 1))
    a, b, c = (corners[:, i] - middle for i in range(3))
    volumes = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    return np.asarray(middle + (volumes[:, None] * (a + b + c) / 4).sum(axis=0) / volumes.sum())


def _solid_angles(corners: FloatArray) -> FloatArray:
    """Of triangles Mx3x3 seen from the origin (van Oosterom and Strackee 1983)."""
    a, b, c = (corners[:, i] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    dots = [np.einsum("ij,ij->i", u, v) for u, v in ((a, b), (a, c), (b, c))]
    volume = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    return np.asarray(
        2 * np.arctan2(volume, la * lb * lc + dots[0] * lc + dots[1] * lb + dots[2] * la)
    )


def _stands_over(center: FloatArray, normal: FloatArray, points: FloatArray) -> bool:
    """Whether the centre, along the normal, falls into the face: no corner direction is missing."""
    x = np.cross(normal, [1.0, 0, 0] if abs(normal[0]) < 0.9 else [0, 1.0, 0])
    x /= np.linalg.norm(x)
    y = np.cross(normal, x)
    around = points - center
    angles = np.sort(np.arctan2(around @ y, around @ x))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    return bool(gaps.max() < np.pi)


def _turn_down(normal: FloatArray) -> FloatArray:
    """A rotation that takes ``normal`` to -z."""
    z = -normal
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])
