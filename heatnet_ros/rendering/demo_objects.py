"""Five CAD objects of the kind robots grasp, built from solids, for the demo data set.

Run ``python -m heatnet_ros.rendering.demo_objects --out config/objects/demo``. Each object stands
on its table side with z up; the origin is the centre of its bounding box. Solids are modelled in
millimetres below and leave this file in metres. ``connector`` maps onto itself under 180 degrees
about z and ``pulley`` under every rotation about z, colours included; the others have no symmetry.
"""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import EngineError
from heatnet_ros.mesh import Mesh, diameter, write_ply
from heatnet_ros.types import FloatArray

if TYPE_CHECKING:
    import trimesh

Color = tuple[int, int, int]
# position Nx3 in mm, faces Mx3, colour of each face Mx3: N positions are distinct
Surface = tuple[FloatArray, NDArray[np.int32], NDArray[np.uint8]]

CREASE_RAD = np.deg2rad(30.0)
PULLEY_SEGMENTS = 96

_AXIS_ROTATION_DEG = {"x": (0.0, 90.0, 0.0), "y": (-90.0, 0.0, 0.0), "z": (0.0, 0.0, 0.0)}
_LOG = logging.getLogger(__name__)


def build_demo_meshes() -> dict[str, trimesh.Trimesh]:
    """Build the meshes by name: metres, unit vertex normals, RGBA vertex colours.

    Vertices are doubled at colour borders and at creases, so both stay sharp when shaded.
    Raises EngineError when trimesh or manifold3d is not installed.
    """
    tm = _import("trimesh")
    builders: dict[str, Callable[[], Surface]] = {
        "bracket": _bracket,
        "valve": _valve,
        "mug": _mug,
        "connector": _connector,
        "pulley": _pulley,
    }
    meshes = {}
    for name, build in builders.items():
        vertices_m, faces, normals, colors = _split_vertices(build())
        rgba = np.column_stack([colors, np.full(len(colors), 255, np.uint8)])
        meshes[name] = tm.Trimesh(
            vertices_m, faces, vertex_normals=normals, vertex_colors=rgba, process=False
        )
    return meshes


def to_mesh(mesh: trimesh.Trimesh) -> Mesh:
    """Convert to the mesh type of the run time."""
    return Mesh(
        np.asarray(mesh.vertices, np.float64),
        np.asarray(mesh.faces, np.int32),
        np.asarray(mesh.vertex_normals, np.float64),
        np.asarray(mesh.visual.vertex_colors, np.uint8)[:, :3],
    )


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(
            f"The demo objects need the package '{module}', which is not installed. "
            'Install it with: pip install "heatnet_ros[train]"'
        ) from error


# --- solids (manifold3d.Manifold with three properties per vertex: the colour) ---


def _paint(solid: Any, color: Color) -> Any:
    rgb = [float(c) for c in color]
    return solid.set_properties(3, lambda _position, _properties: rgb)


def _box(low: Sequence[float], high: Sequence[float], color: Color) -> Any:
    size = np.subtract(high, low)
    return _paint(_import("manifold3d").Manifold.cube(size).translate(low), color)


def _cylinder(
    axis: str,
    start: Sequence[float],
    length: float,
    radius: float,
    color: Color,
    segments: int = 40,
    end_radius: float = -1.0,
) -> Any:
    """Cylinder, cone or (few segments) prism from ``start`` along the positive axis."""
    solid = _import("manifold3d").Manifold.cylinder(length, radius, end_radius, segments)
    return _paint(solid.rotate(_AXIS_ROTATION_DEG[axis]).translate(start), color)


def _ring(major: float, minor: float, color: Color, segments: int, sides: int) -> Any:
    """Torus about z."""
    section = _import("manifold3d").CrossSection.circle(minor, sides).translate((major, 0.0))
    return _paint(section.revolve(segments), color)


def _hull(points: Sequence[Sequence[float]], color: Color) -> Any:
    return _paint(_import("manifold3d").Manifold.hull_points(np.asarray(points, float)), color)


def _union(solids: Sequence[Any]) -> Any:
    manifold = _import("manifold3d")
    return manifold.Manifold.batch_boolean(list(solids), manifold.OpType.Add)


def _surface(solid: Any) -> Surface:
    """Take the outer surface of a painted solid."""
    data = solid.to_mesh64()
    properties = np.asarray(data.vert_properties, np.float64)
    target = np.arange(len(properties))
    target[np.asarray(data.merge_from_vert, int)] = np.asarray(data.merge_to_vert, int)
    corners = np.asarray(data.tri_verts, np.int64)
    colors = np.rint(properties[corners, 3:6].mean(axis=1)).astype(np.uint8)
    kept, faces = np.unique(target[corners], return_inverse=True)
    return properties[kept, :3], faces.reshape(-1, 3).astype(np.int32), colors


# --- the objects ---


def _bracket() -> Surface:
    """L bracket: two unlike holes per leg, slot, gusset off centre, orange boss, cut corner."""
    steel, dark, light, orange = (86, 118, 168), (34, 44, 70), (176, 198, 224), (255, 122, 0)
    base = _box((-50, -30, 0), (50, 30, 8), steel)
    wall = _box((-50, -30, 0), (-42, 30, 92), steel)
    gusset = _hull(
        [(x, y, z) for y in (-25, -17) for x, z in ((-44, 6), (14, 6), (-44, 66), (14, 9))], light
    )
    boss = _cylinder("x", (-43, 10, 36), 17, 12, orange)
    corner = _hull([(x, y, z) for x in (-60, -30) for y, z in ((31, 62), (31, 93), (4, 93))], steel)
    slot = _union(
        [
            _cylinder("z", (-22, 14, -5), 20, 5.5, dark),
            _cylinder("z", (6, 14, -5), 20, 5.5, dark),
            _box((-22, 8.5, -5), (6, 19.5, 15), dark),
        ]
    )
    cuts = [
        corner,
        slot,
        _cylinder("z", (32, -14, -5), 20, 9, dark),
        _cylinder("z", (36, 16, -5), 20, 5, dark),
        _cylinder("x", (-60, -12, 78), 30, 7, dark),
        _cylinder("x", (-60, 8, 66), 30, 4, dark),
        _cylinder("x", (-60, 10, 36), 60, 5, dark),
    ]
    return _surface((_union([base, wall, gusset, boss]) - _union(cuts)).refine_to_length(10.0))


def _valve() -> Surface:
    """Brass pipe valve: two unlike hex ends, foot, drain, red wheel with one white spoke."""
    brass, pale, red, white = (205, 150, 40), (238, 200, 96), (205, 20, 30), (245, 245, 245)
    ball = _import("manifold3d").Manifold.sphere(22.5, 40).translate((-6, 0, 0))
    body = [
        _paint(ball, brass),
        _cylinder("x", (-48, 0, 0), 94, 14, brass),
        _cylinder("x", (-50, 0, 0), 20, 26, brass, 6),
        _cylinder("x", (36, 0, 0), 14, 18, pale, 6),
        _box((20, -10, -22.5), (32, 10, 0), pale),
        _cylinder("y", (6, 12, 0), 18, 7, pale, 24),
        _cylinder("z", (-6, 0, 18), 14, 13, pale, 6),
        _cylinder("z", (-6, 0, 30), 26, 6, (150, 150, 155), 24),
    ]
    wheel_z = 54.0
    wheel = [
        _ring(31, 5, red, 48, 12).translate((-6, 0, wheel_z)),
        _cylinder("z", (-6, 0, wheel_z - 5), 12, 9, red, 24),
    ]
    for angle_deg, color in ((20.0, white), (140.0, red), (260.0, red)):
        half = 5.0 if color == white else 3.0
        spoke = _box((6, -half, -3), (31, half, 3), color).rotate((0, 0, angle_deg))
        wheel.append(spoke.translate((-6, 0, wheel_z)))
    solid = _union([*body, *wheel])
    bore = _cylinder("x", (-60, 0, 0), 120, 10, (60, 36, 10), 32)
    return _surface((solid - bore).refine_to_length(12.0))


def _mug() -> Surface:
    """Cream mug: violet handle along +x, violet band, cyan star patch off the handle axis."""
    cream, violet, cyan, inside = (246, 236, 208), (122, 30, 170), (0, 178, 200), (196, 120, 150)
    radius, height = 38.0, 92.0
    body = _cylinder("z", (0, 0, 0), height, radius, cream, 72)
    handle = _ring(23, 5.5, violet, 40, 12).rotate((90, 0, 0)).scale((1, 1, 1.25))
    band = _cylinder("z", (0, 0, 10), 16, radius + 0.8, violet, 72)
    radii = np.where(np.arange(10) % 2 == 0, 21.0, 9.0)
    angles = np.arange(10) * np.pi / 5 + np.pi / 2
    star = np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])
    manifold = _import("manifold3d")
    prism = manifold.Manifold.extrude(manifold.CrossSection([star]), 50.0)
    # prism axis to +x, its up to +z; then about z to the patch's place
    prism = _paint(prism.rotate((90, 0, 90)).rotate((0, 0, 115)).translate((0, 0, 58)), cyan)
    patch = prism ^ _cylinder("z", (0, 0, 0), height, radius + 0.8, cyan, 72)
    solid = _union([body, handle.translate((radius + 2, 0, 52)), band, patch])
    hollow = _cylinder("z", (0, 0, 5), height, radius - 3.5, inside, 72)
    return _surface((solid - hollow).refine_to_length(14.0))


def _connector() -> Surface:
    """Connector housing with pins; its second half is the first one turned by 180 degrees."""
    grey, dark, gold = (66, 68, 74), (26, 26, 30), (230, 180, 70)
    yellow, white = (250, 205, 0), (240, 240, 240)
    solids = [
        _box((0, -26, 0), (55, 26, 9), grey),
        _box((0, -22, 0), (42, 22, 46), grey),
        _box((42, -14, 9), (46, -2, 40), white),
        _hull([(8, y, z) for y, z in _LATCH] + [(26, y, z) for y, z in _LATCH], yellow),
        _hull([(20, -y, z) for y, z in _RIB] + [(28, -y, z) for y, z in _RIB], white),
    ]
    cuts = [
        _box((-9, -17, 22), (37, 17, 60), dark),
        _cylinder("z", (48.5, 18, -5), 30, 4, dark, 24),
    ]
    pins = [
        _cylinder("z", (6 + 12 * column, y, 20), 20, 2.5, gold, 12)
        for column in range(3)
        for y in (-8.0, 8.0)
    ]
    solid = _union([_union(solids) - _union(cuts), *pins])
    half, faces, colors = _surface(solid.refine_to_length(8.0))
    half[np.abs(half[:, 0]) < 1e-9, 0] = 0.0
    outer = np.any(half[faces, 0] > 0, axis=1)  # drops the faces where the halves meet
    faces, colors = faces[outer], colors[outer]
    vertices = np.concatenate([half, half * (-1.0, -1.0, 1.0)]) + 0.0
    faces = np.concatenate([faces, faces + len(half)])
    return _weld(vertices, faces, np.concatenate([colors, colors]))


_LATCH = ((20.0, 12.0), (20.0, 40.0), (32.0, 18.0), (32.0, 28.0))  # y, z of its section
_RIB = ((20.0, 9.0), (20.0, 44.0), (25.0, 9.0), (25.0, 44.0))


def _weld(vertices: FloatArray, faces: NDArray[np.int32], colors: NDArray[np.uint8]) -> Surface:
    """Make positions within a micrometre one vertex; drop vertices no face uses."""
    used = np.unique(faces)
    keys = np.rint(vertices[used] * 1e3).astype(np.int64)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    new_index = np.zeros(len(vertices), np.int32)
    new_index[used] = group.ravel()
    return vertices[used][first], new_index[faces], colors


def _pulley() -> Surface:
    """Two-step V-belt pulley: large step below, hub on top; colours change by ring only."""
    green, groove, lime = (20, 150, 60), (8, 62, 30), (150, 220, 60)
    silver, bore, white = (196, 200, 206), (60, 62, 70), (245, 245, 245)
    # (radius, z) and the colour of the ring that starts there; closed, outside on the right
    profile: list[tuple[float, float, Color]] = [
        (9, 0, silver), (18, 0, silver), (24, 5, green), (46, 5, green), (50, 0, green),
        (55, 0, green), (57, 3, green), (57, 7, groove), (46, 12, groove), (46, 16, groove),
        (57, 21, green), (57, 25, white), (55, 28, white), (41, 28, lime), (41, 32, groove),
        (31, 36, groove), (31, 40, groove), (41, 44, lime), (41, 48, lime), (39, 50, lime),
        (20, 46, silver), (20, 64, silver), (17, 67, silver), (9, 67, bore), (9, 34, bore),
    ]  # fmt: skip
    count, segments = len(profile), PULLEY_SEGMENTS
    angle = np.arange(segments) * (2 * np.pi / segments)
    radius, z = np.array([p[:2] for p in profile], float).T
    vertices = np.stack(
        [
            np.outer(np.cos(angle), radius),
            np.outer(np.sin(angle), radius),
            np.tile(z, (segments, 1)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    s, p = (grid.ravel() for grid in np.meshgrid(range(segments), range(count), indexing="ij"))
    s1, p1 = (s + 1) % segments, (p + 1) % count
    a, b, c, d = s * count + p, s1 * count + p, s1 * count + p1, s * count + p1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32)
    colors = np.array([q[2] for q in profile], np.uint8)[np.concatenate([p, p])]
    return vertices, faces, colors


# --- from a surface to render-ready vertices ---


def _split_vertices(
    surface: Surface,
) -> tuple[FloatArray, NDArray[np.int32], FloatArray, NDArray[np.uint8]]:
    """Centre, convert mm to m, and give each corner the normal of its smooth neighbourhood.

    Returns vertices_m Nx3, faces Mx3, normals Nx3, colors Nx3. The normal of a corner sums the
    face normals around its vertex, weighted by their angles there, over the faces of the same
    colour that are less than CREASE_RAD from its own face.
    """
    vertices, faces, colors = surface
    vertices = (vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2) * 1e-3
    normals_f, weights = _face_normals_and_angles(vertices[faces])
    owner = np.repeat(np.arange(len(faces)), 3)
    corner_vertex = faces.ravel()
    order = np.argsort(corner_vertex, kind="stable")
    starts = np.searchsorted(corner_vertex[order], np.arange(len(vertices) + 1))
    normals = np.zeros((len(corner_vertex), 3))
    for v in range(len(vertices)):
        corners = order[starts[v] : starts[v + 1]]
        n, c = normals_f[owner[corners]], colors[owner[corners]].astype(int)
        smooth = (n @ n.T > np.cos(CREASE_RAD)) & np.all(c[:, None] == c[None], axis=-1)
        normals[corners] = (smooth * weights.ravel()[corners]) @ n
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    key = np.column_stack([corner_vertex, colors[owner], np.rint(normals * 1e3).astype(np.int64)])
    _, first, index = np.unique(key, axis=0, return_index=True, return_inverse=True)
    split_faces = index.reshape(-1, 3).astype(np.int32)
    return vertices[corner_vertex[first]], split_faces, normals[first], colors[owner[first]]


def _face_normals_and_angles(corners: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Triangles Mx3x3 -> unit normals Mx3 and the angles at their corners Mx3 (rad)."""
    ahead = np.roll(corners, -1, axis=1) - corners
    back = np.roll(corners, 1, axis=1) - corners
    cross = np.cross(ahead, back)
    angles = np.arctan2(np.linalg.norm(cross, axis=2), np.sum(ahead * back, axis=2))
    normals = cross[:, 0] / np.maximum(np.linalg.norm(cross[:, 0], axis=1, keepdims=True), 1e-20)
    return normals, angles


def main(argv: Sequence[str] | None = None) -> None:
    """Write one PLY per object."""
    parser = argparse.ArgumentParser(description="Write the five demo objects as PLY files.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the PLY files")
    out: Path = parser.parse_args(argv).out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, built in build_demo_meshes().items():
        mesh = to_mesh(built)
        write_ply(out / f"{name}.ply", mesh)
        size = np.ptp(mesh.bounds_m, axis=0) * 1e3
        _LOG.info(
            "%-9s diameter %.6f m, box %.1f x %.1f x %.1f mm, %d triangles, %d vertices",
            *(name, diameter(mesh.vertices_m), *size, len(mesh.faces), len(mesh.vertices_m)),
        )


if __name__ == "__main__":
    main()
