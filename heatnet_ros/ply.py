"""The PLY format as tables of numbers: ASCII and both binary byte orders, numpy only.

What the tables mean (units, colours, texture) is ``mesh.py``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.files import writing_whole

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_RGB = ("red", "green", "blue")
_HEADER_BYTES = 65536
_INDEX_NAMES = ("vertex_indices", "vertex_index")


@dataclass(frozen=True, eq=False)
class PlyTables:
    """What a PLY file holds.

    vertex: columns by name, one row per vertex. faces: Mx3 int64, polygons cut into fans.
    corner_uv: Mx3x2 where the file gives texture coordinates per corner (MeshLab), or None.
    face_rgb: Mx3 uint8 where the file colours its faces, or None.
    texture_file: the name in ``comment TextureFile``, or None.
    """

    vertex: Mapping[str, NDArray[Any]]
    faces: NDArray[np.int64]
    corner_uv: NDArray[np.float64] | None
    face_rgb: NDArray[np.uint8] | None
    texture_file: str | None


@dataclass(frozen=True, eq=False)
class _Lists:
    """A list property: counts (N,) and all values one after the other."""

    counts: NDArray[np.int64]
    values: NDArray[Any]


@dataclass(frozen=True)
class _Property:
    name: str
    value: str  # numpy type
    count: str | None  # numpy type of a list's length, None for a scalar


_Element = tuple[str, int, list[_Property]]
_Column = NDArray[Any] | _Lists


def read_ply(path: Path) -> PlyTables:
    """Read vertices and faces. Raises DataError (without the file's name) when it is damaged.

    OSError passes through; ValueError, IndexError and KeyError say that the data is damaged.
    """
    content = path.read_bytes()
    order, elements, texture_file, start = _read_header(content)
    names = {name for name, _, _ in elements}
    if not {"vertex", "face"} <= names:
        raise DataError(
            f"expected elements vertex and face, got {sorted(names)}. "
            "A point cloud is not enough: export a surface (triangles)."
        )
    tables: dict[str, dict[str, _Column]] = {}
    tokens = content[start:].split() if not order else []
    at = start if order else 0
    for name, count, properties in elements:
        if order:
            tables[name], at = _read_binary(content, at, count, properties, order)
        else:
            tables[name], at = _read_ascii(tokens, at, count, properties)
    vertex = {k: v for k, v in tables["vertex"].items() if not isinstance(v, _Lists)}
    return PlyTables(vertex, *_triangulate(tables["face"]), texture_file)


def read_vertex_properties(path: Path) -> list[str]:
    """Names of the vertex columns of a PLY file, from its header alone.

    Raises what ``read_ply`` raises for a damaged header.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    elements = _read_header(head)[1]
    return [p.name for name, _, properties in elements if name == "vertex" for p in properties]


def _read_header(content: bytes) -> tuple[str, list[_Element], str | None, int]:
    """(byte order, '' for ASCII; elements; texture file; where the data starts)."""
    if content[:4].split() != [b"ply"]:
        raise DataError("not a PLY file (first line is not 'ply').")
    order, texture_file, at = "", None, content.index(b"\n") + 1
    elements: list[_Element] = []
    while True:
        end = content.find(b"\n", at)
        if end < 0:
            raise DataError("PLY header does not end. The file is truncated.")
        text = content[at:end].decode("utf-8", "replace").strip()
        line, at = text.split(), end + 1
        if line == ["end_header"]:
            return order, elements, texture_file, at
        if line[:1] == ["format"]:
            if line[1] not in _ORDERS:
                raise DataError(f"PLY format '{line[1]}' is not one of {', '.join(_ORDERS)}.")
            order = _ORDERS[line[1]]
        elif line[:2] == ["comment", "TextureFile"]:
            texture_file = text.split("TextureFile", 1)[1].strip()
        elif line[:1] == ["element"]:
            elements.append((line[1], int(line[2]), []))
        elif line[:1] == ["property"]:
            is_list = line[1] == "list"
            count = _TYPES[line[2]] if is_list else None
            prop = _Property(line[-1], _TYPES[line[-2]], count)
            elements[-1][2].append(prop)


def _read_binary(
    content: bytes, at: int, count: int, properties: Sequence[_Property], order: str
) -> tuple[dict[str, _Column], int]:
    """Columns of one element and where the next begins; lists of one length are read at once."""
    lengths = _first_lengths(content, at, properties, order) if count else {}
    fields: list[tuple[str, str] | tuple[str, str, int]] = []
    for i, prop in enumerate(properties):
        if prop.count is None:
            fields.append((f"v{i}", order + prop.value))
        else:
            fields += [(f"n{i}", order + prop.count), (f"v{i}", order + prop.value, lengths[i])]
    dtype = np.dtype(fields) if count else np.dtype([])
    if not dtype.itemsize:
        return {prop.name: _column(prop, [], []) for prop in properties}, at
    complete = len(content) - at >= count * dtype.itemsize
    if complete:
        data = np.frombuffer(content, dtype, count, at)
        if all(np.all(data[f"n{i}"] == n) for i, n in lengths.items()):
            columns: dict[str, _Column] = {}
            for i, prop in enumerate(properties):
                values = data[f"v{i}"]
                if prop.count is not None:
                    columns[prop.name] = _Lists(np.full(count, lengths[i]), values.reshape(-1))
                else:
                    columns[prop.name] = values
            return columns, at + count * dtype.itemsize
    if not lengths:
        raise ValueError(f"expected {count * dtype.itemsize} bytes, got {len(content) - at}")
    return _read_ragged(content, at, count, properties, order)


def _first_lengths(
    content: bytes, at: int, properties: Sequence[_Property], order: str
) -> dict[int, int]:
    """Index of a list property -> its length in the first row."""
    lengths: dict[int, int] = {}
    for i, prop in enumerate(properties):
        if prop.count is not None:
            kind = np.dtype(order + prop.count)
            lengths[i] = _length(np.frombuffer(content, kind, 1, at)[0])
            at += kind.itemsize + lengths[i] * np.dtype(prop.value).itemsize
        else:
            at += np.dtype(prop.value).itemsize
    return lengths


def _read_ragged(
    content: bytes, at: int, count: int, properties: Sequence[_Property], order: str
) -> tuple[dict[str, _Column], int]:
    """Row by row, for lists of different lengths (triangles mixed with polygons)."""
    kinds = [(np.dtype(order + p.count) if p.count else None) for p in properties]
    values: list[list[Any]] = [[] for _ in properties]
    counts: list[list[int]] = [[] for _ in properties]
    types = [np.dtype(order + p.value) for p in properties]
    for _ in range(count):
        for i, kind in enumerate(kinds):
            n = 1
            if kind is not None:
                n = _length(np.frombuffer(content, kind, 1, at)[0])
                at += kind.itemsize
                counts[i].append(n)
            values[i].append(np.frombuffer(content, types[i], n, at))
            at += n * types[i].itemsize
    joined = [np.concatenate(v) if v else np.zeros(0) for v in values]
    return {p.name: _column(p, counts[i], joined[i]) for i, p in enumerate(properties)}, at


def _read_ascii(
    tokens: Sequence[bytes], at: int, count: int, properties: Sequence[_Property]
) -> tuple[dict[str, _Column], int]:
    """As ``_read_binary``. One conversion for all rows: row by row takes seconds for a scan."""
    starts: list[int] = []  # column of each property, if all rows are like the first
    lengths: dict[int, int] = {}
    width = 0
    for i, prop in enumerate(properties):
        starts.append(width)
        if prop.count is not None and count:
            lengths[i] = _length(tokens[at + width])
        width += 1 + lengths[i] if i in lengths else 1
    end = at + count * width
    if end <= len(tokens):
        table = _numbers(tokens[at:end], end - at).reshape(count, width)
        if all(np.all(table[:, starts[i]] == n) for i, n in lengths.items()):
            columns: dict[str, _Column] = {}
            for i, (prop, c) in enumerate(zip(properties, starts, strict=True)):
                n = lengths.get(i, 0)
                values = table[:, c + 1 : c + 1 + n].reshape(-1) if prop.count else table[:, c]
                columns[prop.name] = _column(prop, [n] * count, values)
            return columns, end
    if not lengths:
        raise ValueError(f"expected {count} rows of {width} numbers, got {len(tokens) - at}")
    return _read_ragged_ascii(tokens, at, count, properties)


def _read_ragged_ascii(
    tokens: Sequence[bytes], at: int, count: int, properties: Sequence[_Property]
) -> tuple[dict[str, _Column], int]:
    values: list[list[bytes]] = [[] for _ in properties]
    counts: list[list[int]] = [[] for _ in properties]
    for _ in range(count):
        for i, prop in enumerate(properties):
            n = 1
            if prop.count is not None:
                n, at = _length(tokens[at]), at + 1
                counts[i].append(n)
            values[i] += tokens[at : at + n]
            at += n
    columns: dict[str, _Column] = {}
    for i, prop in enumerate(properties):
        expected = sum(counts[i]) if prop.count is not None else count
        columns[prop.name] = _column(prop, counts[i], _numbers(values[i], expected))
    return columns, at


def _numbers(tokens: Sequence[bytes], expected: int) -> NDArray[np.float64]:
    if len(tokens) != expected:
        raise ValueError(f"expected {expected} numbers, got {len(tokens)}")
    return np.array(tokens, dtype="S").astype(np.float64)


def _column(prop: _Property, counts: Sequence[int], values: Any) -> _Column:
    if prop.count is None:
        return np.asarray(values)
    return _Lists(np.array(counts, np.int64), np.asarray(values))


def _length(value: Any) -> int:
    length = int(value)
    if length < 0:
        raise ValueError(f"a list has {length} values")
    return length


def _triangulate(
    face: Mapping[str, _Column],
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, NDArray[np.uint8] | None]:
    """Cut polygons into fans: faces Mx3, uv of the corners Mx3x2 or None, colours Mx3 or None."""
    name = next((n for n in _INDEX_NAMES if n in face), None)
    corners = face.get(name) if name is not None else None
    if not isinstance(corners, _Lists):
        raise ValueError(f"a face has no list {_INDEX_NAMES[0]}, got {sorted(face)}")
    counts = corners.counts
    if len(counts) and counts.min() < 3:
        raise ValueError(f"a face has {counts.min()} corners, expected 3 or more")
    triangles = counts - 2
    of_face = np.repeat(np.arange(len(counts)), triangles)
    nth = np.arange(len(of_face)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    first = (np.cumsum(counts) - counts)[of_face]
    at = np.stack([first, first + nth + 1, first + nth + 2], axis=1)
    faces = corners.values.astype(np.int64)[at]
    rgb = [values for c in _RGB if isinstance(values := face.get(c), np.ndarray)]
    face_rgb = np.stack(rgb, axis=1).astype(np.uint8)[of_face] if len(rgb) == 3 else None
    uv, corner_uv = face.get("texcoord"), None
    # a face without texture has an empty list: then the file's texture is not usable as a whole
    if isinstance(uv, _Lists) and np.array_equal(uv.counts, 2 * counts):
        corner_uv = uv.values.astype(np.float64).reshape(-1, 2)[at]
    return faces, corner_uv, face_rgb


def write_ply_tables(
    path: Path, vertex: NDArray[Any], faces: NDArray[np.int32], texture_file: str | None = None
) -> None:
    """Write a binary little-endian PLY; the file appears whole or not at all.

    vertex: a structured array whose fields are little-endian ``f4`` or ``u1``. faces: Mx3.
    """
    kinds = {np.dtype("<f4"): "float", np.dtype("u1"): "uchar"}
    face = np.zeros(len(faces), [("n", "u1"), ("v", "<i4", 3)])
    face["n"], face["v"] = 3, faces
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment TextureFile {texture_file}"] if texture_file else []
    header.append(f"element vertex {len(vertex)}")
    header += [f"property {kinds[vertex.dtype[name]]} {name}" for name in vertex.dtype.names or ()]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    with writing_whole(path) as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(vertex.tobytes())
        file.write(face.tobytes())
