"""Meshes as users have them (PLY, OBJ, STL, GLB) -> checked meshes in metres that the node loads.

Offline: everything but PLY is read by trimesh, which the run time must not need.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.mesh import UNITS_M, Mesh, diameter, load_ply, vertex_normals, write_ply
from heatnet_ros.mesh_formats import MESH_SUFFIXES, read_foreign_mesh
from heatnet_ros.mesh_topology import Topology, creased_normals, describe_topology
from heatnet_ros.ply import read_vertex_properties
from heatnet_ros.rendering.decimate import decimate
from heatnet_ros.types import FloatArray

MAX_FACES = 100_000
MAX_FILE_BYTES = 2_000_000_000
MAX_TEXTURE_PX = 2048
DIAMETER_RANGE_M = (0.005, 5.0)
# diameters that 'auto' takes for granted; between them a number could be either unit
_SURELY_METRES, _SURELY_MILLIMETRES = 2.0, 20.0
# time to reduce a mesh on one busy core
_S_PER_MILLION_FACES = 5.0

Notify = Callable[[str], None]


@dataclass(frozen=True)
class MeshReport:
    """What was found in a mesh file and what was done to it.

    unit: ``m`` or ``mm``, unit_reason: why. size_m: extents of the axis-aligned box. faces:
    after, faces_in_file: before. colors: ``texture``, ``varied`` or ``one colour``.
    texture_wh: size as written, or None. rewritten: the run time cannot use the file as it is.
    """

    path: Path
    unit: str
    unit_reason: str
    diameter_m: float
    size_m: tuple[float, float, float]
    vertices: int
    faces: int
    faces_in_file: int
    zero_area_removed: int
    watertight: bool
    bodies: int
    colors: str
    texture_wh: tuple[int, int] | None
    rewritten: bool
    warnings: tuple[str, ...]

    def describe(self) -> str:
        """The report in a few lines, as the command prints it."""
        size = " x ".join(f"{1e3 * s:.1f}" for s in self.size_m)
        colors = self.colors
        if self.texture_wh is not None:
            colors = f"texture {self.texture_wh[0]}x{self.texture_wh[1]}"
        lines = [
            f"{self.path.name}: unit {self.unit} ({self.unit_reason})",
            f"  size {size} mm, diameter {1e3 * self.diameter_m:.1f} mm, {self.faces} faces, "
            f"{self.bodies} {'body' if self.bodies == 1 else 'bodies'}, "
            f"{'watertight' if self.watertight else 'not watertight'}, {colors}",
        ]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])


@dataclass(frozen=True, eq=False)
class ImportedMesh:
    """A checked mesh in metres and what is to be said about it."""

    mesh: Mesh
    report: MeshReport


def import_mesh(path: Path, unit: str = "auto", notify: Notify | None = None) -> ImportedMesh:
    """Read a mesh file, check it, and bring it to metres, at most ``MAX_FACES`` triangles.

    unit: ``m``, ``mm`` or ``auto`` (from the size; glTF is in metres). ``notify`` is told before
    steps that take seconds. Raises DataError when the file is missing, damaged or no surface,
    ConfigError when the unit does not fit or cannot be told, EngineError without trimesh.
    """
    if unit != "auto" and unit not in UNITS_M:
        raise ConfigError(f"Mesh {path}: unit must be auto, m or mm, got '{unit}'.")
    raw, warnings, rewritten = _read(path, notify)
    faces_in_file = len(raw.faces)
    mesh, removed, unused = _drop_empty_faces(raw, path)
    if removed:
        warnings.append(f"{removed} faces of zero area were left out")
    if len(mesh.faces) > MAX_FACES:
        mesh = _reduce(mesh, warnings, notify)
    # only now: a mesh of millions of vertices takes minutes to measure
    raw_diameter = diameter(mesh.vertices_m)
    unit, reason = choose_unit(raw_diameter, unit, path)
    mesh = replace(mesh, vertices_m=mesh.vertices_m * UNITS_M[unit])
    mesh, topology, flipped = _face_outwards(mesh, warnings)
    mesh = _limit_texture(mesh, warnings)
    if path.suffix.lower() != ".ply" or "nx" not in read_vertex_properties(path):
        mesh, rewritten = _crease(mesh), True
    rewritten = rewritten or flipped or unused > 0 or len(raw.faces) > MAX_FACES
    _check_shape(mesh, topology, warnings)
    extent = np.ptp(mesh.bounds_m, axis=0)
    report = MeshReport(
        path=path,
        unit=unit,
        unit_reason=reason,
        diameter_m=raw_diameter * UNITS_M[unit],
        size_m=(float(extent[0]), float(extent[1]), float(extent[2])),
        vertices=len(mesh.vertices_m),
        faces=len(mesh.faces),
        faces_in_file=faces_in_file,
        zero_area_removed=removed,
        watertight=topology.open_edges == 0,
        bodies=topology.bodies,
        colors=_describe_colors(mesh),
        texture_wh=None if mesh.texture is None else mesh.texture.shape[1::-1],
        rewritten=rewritten,
        warnings=tuple(warnings),
    )
    return ImportedMesh(mesh, report)


def normalize(imported: ImportedMesh, path: Path) -> None:
    """Write the mesh as PLY in metres (with a PNG beside it for its texture), for the run time."""
    write_ply(path, imported.mesh)


def choose_unit(raw_diameter: float, unit: str, path: Path) -> tuple[str, str]:
    """(``m`` or ``mm``, why) for a mesh whose numbers give this diameter.

    Raises ConfigError when the object would be smaller than 5 mm or larger than 5 m, or when
    ``auto`` cannot tell.
    """
    low, high = DIAMETER_RANGE_M
    fits = [u for u, scale in UNITS_M.items() if low <= raw_diameter * scale <= high]
    if unit != "auto":
        if unit in fits:
            return unit, "as told"
        other = f" Read as {fits[0]} it is {_metres(raw_diameter, fits[0])}: " if fits else " "
        advice = f"give --unit {fits[0]}." if fits else "Scale the mesh to metres or millimetres."
        question = " Are these millimetres?" if fits == ["mm"] else ""
        raise ConfigError(
            f"Mesh {path} read as '{unit}' has a diameter of {_metres(raw_diameter, unit)}, "
            f"expected {low} to {high} m.{question}{other}{advice}"
        )
    if path.suffix.lower() in (".glb", ".gltf"):
        if "m" in fits:
            return "m", "glTF is in metres"
        raise ConfigError(
            f"Mesh {path}: glTF is in metres, but its diameter would be {raw_diameter:g} m, "
            f"expected {low} to {high} m. If the exporter wrote millimetres, give --unit mm."
        )
    if low <= raw_diameter <= _SURELY_METRES:
        return "m", f"its diameter of {raw_diameter:.3g} is an object's size only in metres"
    if _SURELY_MILLIMETRES <= raw_diameter <= high * 1e3:
        return "mm", f"its diameter of {raw_diameter:.3g} is an object's size only in millimetres"
    if fits:
        raise ConfigError(
            f"Mesh {path}: a diameter of {raw_diameter:.3g} may be a large object in metres or a "
            "small one in millimetres. Give --unit m or --unit mm."
        )
    raise ConfigError(
        f"Mesh {path}: a diameter of {raw_diameter:g} fits neither metres nor millimetres; "
        f"expected an object of {low} to {high} m. Scale the mesh to metres or millimetres."
    )


def _metres(raw: float, unit: str) -> str:
    return f"{raw * UNITS_M[unit]:.4g} m"


def _read(path: Path, notify: Notify | None) -> tuple[Mesh, list[str], bool]:
    """(mesh in the file's own unit, warnings, whether the run time cannot read the file)."""
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise DataError(
            f"Mesh {path}: format '{path.suffix}' is not read; expected one of "
            f"{', '.join(MESH_SUFFIXES)}. Convert it, for example with Blender or MeshLab."
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"Mesh {path} cannot be read: {error.strerror}. Check its path.") from error
    if size == 0:
        raise DataError(f"Mesh {path} is empty (0 bytes). Export it again.")
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"Mesh {path} has {size / 1e9:.1f} GB, expected at most {MAX_FILE_BYTES / 1e9:.0f} GB. "
            f"Reduce it to some {MAX_FACES} faces first."
        )
    if size > 50_000_000 and notify:
        notify(f"reading {path.name} ({size / 1e6:.0f} MB)")
    if suffix == ".ply":
        return load_ply(path), [], False
    try:
        mesh, warnings = read_foreign_mesh(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise DataError(
            f"Mesh {path} is damaged or not what its name says: {error}. Export it again."
        ) from error
    return mesh, warnings, True


def _drop_empty_faces(mesh: Mesh, path: Path) -> tuple[Mesh, int, int]:
    """(mesh without faces of zero area and unused vertices, faces removed, vertices removed)."""
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    extent = float(np.linalg.norm(np.ptp(mesh.bounds_m, axis=0)))
    keep = area > 1e-14 * extent**2
    if not keep.any():
        raise DataError(
            f"Mesh {path} has no surface: all {len(keep)} faces have zero area. Export it again "
            "as a solid."
        )
    faces = mesh.faces[keep]
    used = np.zeros(len(mesh.vertices_m), bool)
    used[faces] = True
    if keep.all() and used.all():
        return mesh, 0, 0
    # vertices that are left over without a face count as unused only if no face ever named them
    named = np.zeros(len(used), bool)
    named[mesh.faces] = True
    number = np.cumsum(used) - 1
    small = Mesh(
        mesh.vertices_m[used],
        number[faces].astype(np.int32),
        mesh.normals[used],
        mesh.colors[used],
        None if mesh.uv is None else mesh.uv[used],
        mesh.texture,
    )
    return small, int(np.sum(~keep)), int(np.sum(~named))


def _reduce(mesh: Mesh, warnings: list[str], notify: Notify | None) -> Mesh:
    count = len(mesh.faces)
    if notify:
        seconds = _S_PER_MILLION_FACES * count / 1e6
        notify(f"reducing {count} faces to {MAX_FACES}, about {seconds:.0f} s")
    warnings.append(f"reduced from {count} to {MAX_FACES} faces, the limit")
    if mesh.texture is not None:
        warnings.append("its texture became vertex colours by that")
    # quadrics in single precision want numbers around one
    scale = float(np.abs(mesh.vertices_m).max())
    small = decimate(replace(mesh, vertices_m=mesh.vertices_m / scale), MAX_FACES)
    return replace(small, vertices_m=small.vertices_m * scale)


def _face_outwards(mesh: Mesh, warnings: list[str]) -> tuple[Mesh, Topology, bool]:
    """Turn a closed mesh outside out: a mirrored export has all faces inwards."""
    topology = describe_topology(mesh.vertices_m, mesh.faces)
    if topology.open_edges or topology.volume >= 0:
        return mesh, topology, False
    warnings.append("its faces looked inwards and were turned over")
    faces = np.ascontiguousarray(mesh.faces[:, ::-1])
    normals = vertex_normals(mesh.vertices_m, faces)
    return replace(mesh, faces=faces, normals=normals), topology, True


def _crease(mesh: Mesh) -> Mesh:
    columns, faces, normals = creased_normals(mesh.vertices_m, mesh.faces)
    return Mesh(
        mesh.vertices_m[columns],
        faces,
        normals,
        mesh.colors[columns],
        None if mesh.uv is None else mesh.uv[columns],
        mesh.texture,
    )


def _limit_texture(mesh: Mesh, warnings: list[str]) -> Mesh:
    if mesh.texture is None or max(mesh.texture.shape[:2]) <= MAX_TEXTURE_PX:
        return mesh
    height, width = mesh.texture.shape[:2]
    scale = MAX_TEXTURE_PX / max(height, width)
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    warnings.append(f"texture reduced from {width}x{height} to {size_wh[0]}x{size_wh[1]}")
    texture = cv2.resize(mesh.texture, size_wh, interpolation=cv2.INTER_AREA)
    return replace(mesh, texture=np.asarray(texture, np.uint8))


def _check_shape(mesh: Mesh, topology: Topology, warnings: list[str]) -> None:
    if topology.open_edges:
        warnings.append(
            f"not watertight: {topology.open_edges} edges without exactly two faces (usual for "
            "scans; look at the rendered images for holes)"
        )
    centre: FloatArray = mesh.bounds_m.mean(axis=0)
    extent = float(np.linalg.norm(np.ptp(mesh.bounds_m, axis=0)))
    distance = float(np.linalg.norm(centre))
    if distance > extent:
        warnings.append(
            f"its origin is {distance:.3f} m from its centre; the poses reported are the origin's"
        )


def _describe_colors(mesh: Mesh) -> str:
    if mesh.texture is not None:
        return "texture"
    return "varied" if np.ptp(mesh.colors, axis=0).any() else "one colour"
