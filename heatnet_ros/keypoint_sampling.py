"""Where an object's keypoints lie: the two samplings of the paper (section 3.4).

Both choose among points spread evenly over the surface; the choice is stored with the object,
with its method and seed, and never recomputed.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.types import FloatArray

METHODS = ("fps", "cps")
KEYPOINT_COUNT = 50
NEIGHBOURS = 30
EPSILON = 1e-12
_KDTREE_SINGLE = 4  # FLANN's name for its exact tree


def sample_keypoints(points_m: FloatArray, count: int, method: str = "fps") -> FloatArray:
    """Choose keypoints among surface points: Nx3 -> count x 3, deterministic.

    method: ``fps`` (farthest points) or ``cps`` (curvature). Raises ConfigError for another
    method, DataError when N < count.
    """
    if method == "fps":
        return farthest_points(points_m, count)
    if method == "cps":
        return curvature_points(points_m, count)
    raise ConfigError(f"Keypoint method '{method}' is unknown; expected {' or '.join(METHODS)}.")


def farthest_points(points_m: FloatArray, count: int) -> FloatArray:
    """Farthest point sampling (paper section 3.4), starting with the point farthest from the mean.

    points_m: Nx3 -> count x 3. The paper starts with a random point; this start makes the result
    depend on the points alone. Raises DataError when N < count.
    """
    if len(points_m) < count:
        raise DataError(f"Farthest point sampling: {count} points wanted, mesh has {len(points_m)}")
    distance = np.linalg.norm(points_m - points_m.mean(axis=0), axis=1)
    chosen = [int(np.argmax(distance))]
    distance = np.linalg.norm(points_m - points_m[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points_m - points_m[chosen[-1]], axis=1))
    return points_m[chosen]


def curvature_points(points_m: FloatArray, count: int, neighbours: int = NEIGHBOURS) -> FloatArray:
    """Curvature point sampling as published (paper section 3.4): the highest scores.

    The score is the curvature times the distance from the centre, score(p) = k(p) |p - mean|.
    Nothing keeps the chosen points apart, so they cluster on the sharpest edges far from the
    centre (paper, figure 5); the paper finds farthest points better on most objects. It does not
    state the number of neighbours. points_m: Nx3 -> count x 3. Raises DataError when N < count.
    """
    if len(points_m) < count:
        raise DataError(f"Curvature sampling: {count} points wanted, mesh has {len(points_m)}")
    distance = np.linalg.norm(points_m - points_m.mean(axis=0), axis=1)
    scores = curvatures(points_m, neighbours) * distance
    return points_m[np.argsort(-scores, kind="stable")[:count]]


def curvatures(points_m: FloatArray, neighbours: int = NEIGHBOURS) -> FloatArray:
    """Surface variation at each point, (N,): l0 / (l0 + l1 + l2 + epsilon), 0 on a plane.

    l0 <= l1 <= l2 are the eigenvalues of the covariance of the k nearest neighbours, the point
    itself among them (paper section 3.4). points_m: Nx3. Raises DataError when N < neighbours.
    """
    if len(points_m) < neighbours:
        raise DataError(f"Curvature needs {neighbours} points or more, got {len(points_m)}.")
    # in units of the size, so that epsilon means the same for a screw and a car
    centred = points_m - points_m.mean(axis=0)
    scaled = centred / max(float(np.abs(centred).max()), 1e-12)
    near = scaled[PointIndex(scaled).nearest(scaled, neighbours)[0]]
    near = near - near.mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", near, near) / neighbours
    eigenvalues = np.linalg.eigvalsh(covariance)
    return np.asarray(eigenvalues[:, 0] / (eigenvalues.sum(axis=1) + EPSILON))


class PointIndex:
    """Points (Nx3) prepared for many questions about the nearest of them; exact, float32."""

    def __init__(self, points: FloatArray) -> None:
        # FLANN keeps only the address
        self._points = np.ascontiguousarray(points, np.float32)
        self._index = cv2.flann.Index(
            self._points, {"algorithm": _KDTREE_SINGLE, "leaf_max_size": 10}
        )

    def nearest(self, queries: FloatArray, count: int = 1) -> tuple[NDArray[np.intp], FloatArray]:
        """Indices (Q, count) of the points nearest to each query (Qx3), and their distances.

        Nearest first.
        """
        found, squared = self._index.knnSearch(
            np.ascontiguousarray(queries, np.float32), count, params={"checks": -1}
        )
        return found.astype(np.intp), np.sqrt(squared.astype(np.float64))
