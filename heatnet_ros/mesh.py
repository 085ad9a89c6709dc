"""Triangle meshes and the PLY format (ASCII and binary little endian), numpy only.

The run time needs meshes for RViz, outlines and the unit check, and must not need trimesh.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.types import FloatArray

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices_m Nx3 float64, faces Mx3 int32, normals Nx3 (unit), colors Nx3 uint8 (sRGB)."""

    vertices_m: FloatArray
    faces: NDArray[np.int32]
    normals: FloatArray
    colors: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.vertices_m)
        if self.vertices_m.shape != (n, 3) or n == 0 or not np.all(np.isfinite(self.vertices_m)):
            raise DataError(f"Mesh vertices: expected finite Nx3, got {self.vertices_m.shape}.")
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or len(self.faces) == 0:
            raise DataError(f"Mesh faces: expected Mx3 with M > 0, got {self.faces.shape}.")
        if self.faces.min() < 0 or self.faces.max() >= n:
            raise DataError(f"Mesh faces name vertices outside 0..{n - 1}. The file is damaged.")
        if self.normals.shape != (n, 3) or self.colors.shape != (n, 3):
            raise DataError("Mesh normals and colours must have one row per vertex.")

    @property
    def bounds_m(self) -> FloatArray:
        """2x3: smallest and largest corner of the axis-aligned box."""
        return np.stack([self.vertices_m.min(axis=0), self.vertices_m.max(axis=0)])


def load_ply(path: Path, unit: str = "m") -> Mesh:
    """Read a PLY file; ``unit`` is ``m`` or ``mm``. Missing normals are computed, colours grey.

    Raises DataError with the file's name when it is missing, damaged or not a triangle mesh.
    """
    scale = {"m": 1.0, "mm": 1e-3}.get(unit)
    if scale is None:
        raise DataError(f"Mesh {path}: unit must be 'm' or 'mm', got '{unit}'.")
    try:
        with path.open("rb") as file:
            tables = _read_tables(file)
        return _build_mesh(tables["vertex"], tables["face"]["faces"], scale)
    except OSError as error:
        raise DataError(f"Mesh {path} cannot be read: {error.strerror}. Check its path.") from error
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{path}: PLY data is damaged or has polygons: {error}.") from error
    except DataError as error:
        raise DataError(f"Mesh {path}: {error}") from error


def _build_mesh(vertex: dict[str, NDArray[Any]], faces: NDArray[np.int32], scale: float) -> Mesh:
    vertices = np.stack([vertex[c] for c in "xyz"], axis=1).astype(np.float64) * scale
    colors = np.full(vertices.shape, 180, np.uint8)
    if "red" in vertex:
        colors = np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1).astype(np.uint8)
    if "nx" in vertex:
        normals = np.stack([vertex[c] for c in ("nx", "ny", "nz")], axis=1).astype(np.float64)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    else:
        # Mesh checks the faces too, but the normals are needed first
        if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
            raise DataError(f"faces name vertices outside 0..{len(vertices) - 1}.")
        normals = vertex_normals(vertices, faces)
    return Mesh(vertices, faces, normals, colors)


def _read_tables(file: BinaryIO) -> dict[str, dict[str, NDArray[Any]]]:
    if file.readline().strip() != b"ply":
        raise DataError("not a PLY file (first line is not 'ply').")
    binary = False
    elements: list[tuple[str, int, list[tuple[str, ...]]]] = []
    while (line := file.readline().decode("ascii", "replace").split()) != ["end_header"]:
        if not line and file.peek(1) == b"":  # type: ignore[attr-defined]
            raise DataError("PLY header does not end. The file is truncated.")
        if line[:1] == ["format"]:
            if line[1] not in ("ascii", "binary_little_endian"):
                raise DataError(f"PLY format '{line[1]}' is not supported.")
            binary = line[1] != "ascii"
        elif line[:1] == ["element"]:
            elements.append((line[1], int(line[2]), []))
        elif line[:1] == ["property"]:
            elements[-1][2].append(tuple(line[1:]))
    names = {name for name, _, _ in elements}
    if not {"vertex", "face"} <= names:
        raise DataError(f"expected elements vertex and face, got {sorted(names)}.")
    read = _read_binary if binary else _read_ascii
    return {name: read(file, count, properties) for name, count, properties in elements}


def _read_binary(
    file: BinaryIO, count: int, properties: list[tuple[str, ...]]
) -> dict[str, NDArray[Any]]:
    fields: list[tuple[str, str] | tuple[str, str, int]] = []
    for prop in properties:
        if prop[0] == "list":  # triangles only: the count is a constant 3
            fields += [("n", "<" + _PLY_TYPES[prop[1]]), ("faces", "<" + _PLY_TYPES[prop[2]], 3)]
        else:
            fields.append((prop[1], "<" + _PLY_TYPES[prop[0]]))
    dtype = np.dtype(fields)
    data = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype, count=count)
    return _split_columns(data)


def _read_ascii(
    file: BinaryIO, count: int, properties: list[tuple[str, ...]]
) -> dict[str, NDArray[Any]]:
    rows = [file.readline() for _ in range(count)]
    if properties and properties[0][0] == "list":
        odd = next((row for row in rows if row.split(maxsplit=1)[0] != b"3"), None)
        if odd is not None:
            raise ValueError(f"a face has {odd.split(maxsplit=1)[0].decode()} corners, expected 3")
        return {"faces": _parse_table(rows, 4)[:, 1:].astype(np.int32)}
    table = _parse_table(rows, len(properties))
    return {prop[1]: table[:, i] for i, prop in enumerate(properties)}


def _parse_table(rows: list[bytes], columns: int) -> FloatArray:
    # one conversion for the whole block: row by row takes seconds for a scanned mesh
    tokens = b"".join(rows).split()
    if len(tokens) != len(rows) * columns:
        raise ValueError(f"expected {len(rows)} rows of {columns} numbers, got {len(tokens)}")
    return np.array(tokens, dtype="S").astype(np.float64).reshape(len(rows), columns)


def _split_columns(data: NDArray[Any]) -> dict[str, NDArray[Any]]:
    columns = {name: data[name] for name in data.dtype.names or ()}
    if "n" in columns:
        if np.any(columns.pop("n") != 3):
            raise ValueError("a face does not have 3 corners")
        columns["faces"] = columns["faces"].astype(np.int32)
    return columns


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a binary PLY in metres; the file appears whole or not at all."""
    vertex = np.zeros(
        len(mesh.vertices_m),
        [(c, "<f4") for c in ("x", "y", "z", "nx", "ny", "nz")]
        + [(c, "u1") for c in ("red", "green", "blue")],
    )
    for i, c in enumerate("xyz"):
        vertex[c], vertex["n" + c] = mesh.vertices_m[:, i], mesh.normals[:, i]
    for i, c in enumerate(("red", "green", "blue")):
        vertex[c] = mesh.colors[:, i]
    face = np.zeros(len(mesh.faces), [("n", "u1"), ("v", "<i4", 3)])
    face["n"], face["v"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    header += [f"property float {c}" for c in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {c}" for c in ("red", "green", "blue")]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    part = path.with_suffix(".part")
    part.write_bytes(("\n".join(header) + "\n").encode() + vertex.tobytes() + face.tobytes())
    os.replace(part, path)


def vertex_normals(vertices: FloatArray, faces: NDArray[np.int32]) -> FloatArray:
    """Area-weighted unit normals, Nx3."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], face_normals)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Draw points uniformly by area: (points_m count x 3, unit normals count x 3)."""
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    if area.sum() <= 0:
        raise DataError("Mesh has no surface: all faces have zero area.")
    rng = np.random.default_rng(seed)
    pick = rng.choice(len(area), size=count, p=area / area.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - u) * a[pick] + u * (1 - v) * b[pick] + u * v * c[pick]
    normals = cross[pick] / area[pick, None]
    # face winding may be inconsistent in CAD exports: side with the vertex normals
    hint = sum(mesh.normals[mesh.faces[pick, i]] for i in range(3))
    normals *= np.where(np.sum(normals * hint, axis=1, keepdims=True) < 0, -1.0, 1.0)
    return points, normals


def farthest_points(points_m: FloatArray, count: int) -> FloatArray:
    """Farthest point sampling (paper section 3.4), starting with the point farthest from the mean.

    points_m: Nx3 -> count x 3, deterministic. Raises DataError when N < count.
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


def diameter(points_m: FloatArray) -> float:
    """Largest distance between two points of the convex hull (approximated by 2000 extremes)."""
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    # in blocks: all products at once are 0.4 GB for a mesh of 23 000 vertices
    farthest = [np.argmax(d @ points_m.T, axis=1) for d in np.array_split(directions, 100)]
    extremes = points_m[np.unique(np.concatenate(farthest))]
    deltas = extremes[:, None] - extremes[None]
    return float(np.sqrt((deltas**2).sum(axis=-1).max()))
