"""Keypoint sampling against closed forms: a line, a plane, a box, a ball."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import MESHES

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.keypoint_sampling import (
    PointIndex,
    curvature_points,
    curvatures,
    farthest_points,
    sample_keypoints,
)
from heatnet_ros.mesh import sample_surface


def test_farthest_points_of_a_line_are_its_ends_then_its_middle() -> None:
    line = np.column_stack([np.linspace(0, 1, 101), np.zeros((101, 2))])
    line = line[np.random.default_rng(0).permutation(101)]
    chosen = farthest_points(line, 5)[:, 0]
    assert sorted(chosen[:2]) == [0, 1]
    assert chosen[2] == pytest.approx(0.5)
    assert sorted(chosen[3:]) == pytest.approx([0.25, 0.75], abs=0.011)
    with pytest.raises(DataError, match="102 points wanted, mesh has 101"):
        farthest_points(line, 102)


def test_curvature_is_zero_on_a_plane_and_a_third_in_a_cloud() -> None:
    plane = np.column_stack([np.random.default_rng(0).random((3000, 2)), np.zeros(3000)])
    assert curvatures(plane).max() < 1e-9
    # the six corners of an octahedron spread alike in all directions
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    np.testing.assert_allclose(curvatures(octahedron, neighbours=6), 1 / 3)


def test_curvature_is_that_of_the_equation() -> None:
    points = np.random.default_rng(1).normal(size=(40, 3)) * [3.0, 2.0, 1.0]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    values = curvatures(points, neighbours=8)
    for i in range(40):
        near = points[np.argsort(distance[i])[:8]]
        eigenvalues = np.linalg.eigvalsh(np.cov(near.T))
        assert values[i] == pytest.approx(eigenvalues[0] / eigenvalues.sum(), rel=1e-4)
    # size does not matter: metres or millimetres
    np.testing.assert_allclose(curvatures(points * 1e-3, neighbours=8), values, rtol=1e-4)


def test_curvature_points_lie_on_the_edges_far_from_the_centre() -> None:
    points, _ = sample_surface(MESHES["brick"], 20000)
    half = np.array([0.06, 0.03, 0.02])
    chosen = curvature_points(points, 50)
    faces_touched = (half - np.abs(chosen) < 0.003).sum(axis=1)
    assert (faces_touched >= 2).all()  # on an edge, never inside a face
    spread = farthest_points(points, 50)
    assert np.linalg.norm(chosen, axis=1).min() > 0.8 * np.linalg.norm(half)
    assert np.linalg.norm(spread, axis=1).min() < 0.5 * np.linalg.norm(half)
    assert ((half - np.abs(spread) < 0.003).sum(axis=1) == 1).any()


def test_scores_come_in_falling_order() -> None:
    points, _ = sample_surface(MESHES["wedge"], 4000)
    chosen = curvature_points(points, 60)
    np.testing.assert_array_equal(curvature_points(points, 20), chosen[:20])


def test_methods_differ_repeat_and_have_names() -> None:
    points, _ = sample_surface(MESHES["wedge"], 4000)
    fps, cps = (sample_keypoints(points, 50, m) for m in ("fps", "cps"))
    assert fps.shape == cps.shape == (50, 3)
    assert fps.tobytes() == sample_keypoints(points, 50, "fps").tobytes()
    assert cps.tobytes() == sample_keypoints(points, 50, "cps").tobytes()
    assert not np.array_equal(fps, cps)
    with pytest.raises(ConfigError, match="'random' is unknown; expected fps or cps"):
        sample_keypoints(points, 50, "random")
    with pytest.raises(DataError, match="50 points wanted, mesh has 40"):
        sample_keypoints(points[:40], 50, "cps")


def test_nearest_points_are_those_of_all_distances() -> None:
    rng = np.random.default_rng(3)
    points, queries = rng.normal(size=(500, 3)), rng.normal(size=(40, 3))
    distance = np.linalg.norm(queries[:, None] - points[None], axis=2)
    found, far = PointIndex(points).nearest(queries, 5)
    np.testing.assert_array_equal(found, np.argsort(distance, axis=1)[:, :5])
    np.testing.assert_allclose(far, np.sort(distance, axis=1)[:, :5], rtol=1e-5)
