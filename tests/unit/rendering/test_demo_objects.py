"""The demo objects: what is committed is what the code builds, and their symmetries hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="trimesh is not installed (training extra)")
pytest.importorskip("manifold3d", reason="manifold3d is not installed (training extra)")

from heatnet_ros.mesh import Mesh, diameter, load_ply, write_ply
from heatnet_ros.rendering.demo_objects import (
    PULLEY_SEGMENTS,
    build_demo_meshes,
    main,
    to_mesh,
)

COMMITTED = Path(__file__).parents[3] / "config" / "objects" / "demo"
NAMES = ("bracket", "valve", "mug", "connector", "pulley")
SYMMETRY_DEG = {"connector": 180.0, "pulley": 360.0 / PULLEY_SEGMENTS}


@pytest.fixture(scope="module")
def built() -> dict[str, Mesh]:
    return {name: to_mesh(mesh) for name, mesh in build_demo_meshes().items()}


def _directed_distance_m(a: Mesh, b: Mesh, turn_deg: float = 0.0) -> float:
    """Largest distance from a vertex of ``a``, turned about z, to one of its colour in ``b``."""
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    turned = a.vertices_m @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
    worst = 0.0
    for color in np.unique(a.colors, axis=0):
        same = b.vertices_m[np.all(b.colors == color, axis=1)]
        if len(same) == 0:
            return np.inf
        for point in np.array_split(turned[np.all(a.colors == color, axis=1)], 20):
            if len(point):
                nearest = np.linalg.norm(point[:, None] - same[None], axis=-1).min(axis=1)
                worst = max(worst, float(nearest.max()))
    return worst


def _area_m2(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_names(built: dict[str, Mesh]) -> None:
    assert tuple(built) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_files_equal_the_code(built: dict[str, Mesh], name: str) -> None:
    # by shape and colour, not by bytes: another manifold3d may number its triangles otherwise
    stored = load_ply(COMMITTED / f"{name}.ply")
    np.testing.assert_allclose(stored.bounds_m, built[name].bounds_m, atol=1e-7)
    assert _directed_distance_m(stored, built[name]) < 1e-6
    assert _directed_distance_m(built[name], stored) < 1e-6
    assert _area_m2(stored) == pytest.approx(_area_m2(built[name]), rel=1e-5)


def test_two_runs_write_the_same_bytes(built: dict[str, Mesh], tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "second")])
    for name, mesh in built.items():
        write_ply(tmp_path / f"{name}.ply", mesh)
        first = (tmp_path / f"{name}.ply").read_bytes()
        assert first == (tmp_path / "second" / f"{name}.ply").read_bytes()


@pytest.mark.parametrize("name", SYMMETRY_DEG)
def test_symmetric_objects_map_onto_themselves(built: dict[str, Mesh], name: str) -> None:
    mesh, turn = built[name], SYMMETRY_DEG[name]
    assert _directed_distance_m(mesh, mesh, turn) < 1e-5
    assert _directed_distance_m(mesh, mesh, -turn) < 1e-5


@pytest.mark.parametrize(
    ("name", "turn_deg"),
    [(n, a) for n in ("bracket", "valve", "mug") for a in (90, 120, 180)] + [("connector", 90)],
)
def test_other_turns_are_visible(built: dict[str, Mesh], name: str, turn_deg: float) -> None:
    assert _directed_distance_m(built[name], built[name], turn_deg) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_size_and_shape(built: dict[str, Mesh], name: str) -> None:
    mesh = built[name]
    assert 0.08 < diameter(mesh.vertices_m) < 0.2
    assert 1500 <= len(mesh.faces) <= 6000
    np.testing.assert_allclose(mesh.bounds_m.sum(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_closed_surface_facing_outward(built: dict[str, Mesh], name: str) -> None:
    mesh = built[name]
    keys = np.rint(mesh.vertices_m * 1e7).astype(np.int64)
    faces = np.unique(keys, axis=0, return_inverse=True)[1].ravel()[mesh.faces]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert {*map(tuple, edges)} == {*map(tuple, edges[:, ::-1])}
    assert len(np.unique(edges, axis=0)) == len(edges)
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    assert np.sum(a * np.cross(b, c)) / 6 > 5e-5  # m^3
