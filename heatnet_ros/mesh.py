"""Triangle meshes and their PLY files, numpy only; textures are read through OpenCV.

The run time needs meshes for RViz, outlines and the unit check, and must not need trimesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError
from heatnet_ros.files import write_whole
from heatnet_ros.ply import PlyTables, read_ply, write_ply_tables
from heatnet_ros.types import FloatArray, ImageU8

UNITS_M = {"m": 1.0, "mm": 1e-3}
_GREY = 180


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices_m Nx3 float64, faces Mx3 int32, normals Nx3 (unit), colors Nx3 uint8 (sRGB).

    uv: Nx2 texture coordinates, u right, v up, or None. texture: HxWx3 RGB, row 0 at the top, or
    None. Where there is a texture ``colors`` are sampled from it. Raises DataError when the parts
    do not fit.
    """

    vertices_m: FloatArray
    faces: NDArray[np.int32]
    normals: FloatArray
    colors: NDArray[np.uint8]
    uv: FloatArray | None = None
    texture: ImageU8 | None = None

    def __post_init__(self) -> None:
        n = len(self.vertices_m)
        if self.vertices_m.shape != (n, 3) or n == 0:
            raise DataError(f"Mesh vertices: expected finite Nx3, got {self.vertices_m.shape}.")
        _check_finite(self.vertices_m)
        if self.faces.ndim != 2 or self.faces.shape[1] != 3 or len(self.faces) == 0:
            raise DataError(
                f"Mesh faces: expected Mx3 with M > 0, got {self.faces.shape}. A point cloud is "
                "not enough: export a surface (triangles)."
            )
        if self.faces.min() < 0 or self.faces.max() >= n:
            raise DataError(f"Mesh faces name vertices outside 0..{n - 1}. The file is damaged.")
        if self.normals.shape != (n, 3) or self.colors.shape != (n, 3):
            raise DataError("Mesh normals and colours must have one row per vertex.")
        if self.uv is not None and (self.uv.shape != (n, 2) or not np.all(np.isfinite(self.uv))):
            raise DataError(f"Mesh uv: expected finite {n}x2, got {self.uv.shape}.")
        if self.texture is not None and (
            self.uv is None or self.texture.ndim != 3 or self.texture.shape[2] != 3
        ):
            raise DataError(
                f"Mesh texture: expected HxWx3 with uv, got {self.texture.shape} "
                f"{'without' if self.uv is None else 'with'} uv."
            )

    @property
    def bounds_m(self) -> FloatArray:
        """2x3: smallest and largest corner of the axis-aligned box."""
        return np.stack([self.vertices_m.min(axis=0), self.vertices_m.max(axis=0)])


def _check_finite(vertices: FloatArray) -> None:
    if not np.all(np.isfinite(vertices)):
        count = int(np.sum(~np.isfinite(vertices).all(axis=1)))
        raise DataError(
            f"{count} of {len(vertices)} vertices are not finite numbers (NaN). "
            "Export the mesh again."
        )


def load_ply(path: Path, unit: str = "m", *, with_texture: bool = True) -> Mesh:
    """Read a PLY file; ``unit`` is ``m`` or ``mm``. Missing normals are computed, colours grey.

    Polygons are cut into triangles. A texture (``comment TextureFile``, with texture_u/texture_v,
    s/t or u/v per vertex, or texcoord per corner) is read from beside the file unless
    ``with_texture`` is False. Raises DataError with the file's name when the mesh or its texture
    is missing or damaged, or is no surface.
    """
    scale = UNITS_M.get(unit)
    if scale is None:
        raise DataError(f"Mesh {path}: unit must be 'm' or 'mm', got '{unit}'.")
    try:
        return _build_mesh(read_ply(path), scale, path.parent if with_texture else None)
    except OSError as error:
        raise DataError(f"Mesh {path} cannot be read: {error.strerror}. Check its path.") from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: PLY data is damaged: {error}.") from error
    except DataError as error:
        raise DataError(f"Mesh {path}: {error}") from error


def _build_mesh(tables: PlyTables, scale: float, texture_folder: Path | None) -> Mesh:
    vertex, faces = tables.vertex, tables.faces
    vertices = np.stack([vertex[c] for c in "xyz"], axis=1).astype(np.float64) * scale
    # Mesh checks both too, but normals and seams are made of them first
    _check_finite(vertices)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise DataError(f"faces name vertices outside 0..{len(vertices) - 1}.")
    columns, uv, face_colors = np.arange(len(vertices)), _vertex_uv(tables), None
    if tables.corner_uv is not None:
        columns, faces, uv = split_at_seams(faces, tables.corner_uv)
    elif tables.face_rgb is not None and "red" not in vertex and tables.texture_file is None:
        corner_colors = np.repeat(tables.face_rgb[:, None], 3, axis=1).astype(np.float64)
        columns, faces, face_colors = split_at_seams(faces, corner_colors)
    vertices, triangles = vertices[columns], faces.astype(np.int32)
    if "nx" in vertex:
        normals = np.stack([vertex[c] for c in ("nx", "ny", "nz")], axis=1).astype(np.float64)
        normals = normals[columns]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    else:
        normals = vertex_normals(vertices, triangles)
    texture = None
    if uv is not None and tables.texture_file and texture_folder is not None:
        texture = load_texture(texture_folder / tables.texture_file)
    if "red" in vertex:
        colors = np.stack([vertex[c] for c in ("red", "green", "blue")], axis=1).astype(np.uint8)
        colors = colors[columns]
    elif face_colors is not None:
        colors = face_colors.astype(np.uint8)
    elif texture is not None and uv is not None:
        colors = sample_texture(texture, uv)
    else:
        colors = np.full(vertices.shape, _GREY, np.uint8)
    return Mesh(vertices, triangles, normals, colors, uv if texture is not None else None, texture)


def _vertex_uv(tables: PlyTables) -> FloatArray | None:
    for names in (("texture_u", "texture_v"), ("s", "t"), ("u", "v")):
        if names[0] in tables.vertex and names[1] in tables.vertex:
            return np.stack([tables.vertex[c] for c in names], axis=1).astype(np.float64)
    return None


def split_at_seams(
    faces: NDArray[np.int64], corner_values: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """One vertex per place and value: (old vertex of each new one, new faces, values per vertex).

    faces: Mx3; corner_values: Mx3xC, what the corners carry (texture coordinates, colours).
    """
    values = corner_values.reshape(len(faces) * 3, -1)
    keys = np.column_stack([faces.reshape(-1).astype(np.float64), values])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return faces.reshape(-1)[first], inverse.reshape(-1, 3).astype(np.int64), values[first]


def load_texture(path: Path) -> ImageU8:
    """Read an image as HxWx3 RGB. Raises DataError naming the file."""
    if not path.is_file():
        raise DataError(
            f"its texture {path} is missing. Put the image beside the mesh, or export the mesh "
            "without a texture."
        )
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"its texture {path} is not an image that OpenCV reads. Save it as PNG.")
    return np.ascontiguousarray(image[:, :, ::-1]).astype(np.uint8, copy=False)


def sample_texture(texture: ImageU8, uv: FloatArray) -> NDArray[np.uint8]:
    """Colours Nx3 of the texels at uv (Nx2, v up); coordinates outside 0..1 repeat."""
    height, width = texture.shape[:2]
    # only whole turns repeat: 1.0 itself is the far edge, not the near one
    wrapped = np.where((uv < 0) | (uv > 1), uv - np.floor(uv), uv)
    column = np.clip((wrapped[:, 0] * width).astype(np.int64), 0, width - 1)
    row = np.clip(((1 - wrapped[:, 1]) * height).astype(np.int64), 0, height - 1)
    return np.asarray(texture[row, column])


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a binary PLY in metres; the file appears whole or not at all.

    A texture is written first, as PNG of the same name beside it.
    """
    floats = ["x", "y", "z", "nx", "ny", "nz"]
    textured = mesh.uv is not None and mesh.texture is not None
    floats += ["texture_u", "texture_v"] if textured else []
    fields = [(c, "<f4") for c in floats] + [(c, "u1") for c in ("red", "green", "blue")]
    vertex = np.zeros(len(mesh.vertices_m), fields)
    for i, c in enumerate("xyz"):
        vertex[c], vertex["n" + c] = mesh.vertices_m[:, i], mesh.normals[:, i]
    for i, c in enumerate(("red", "green", "blue")):
        vertex[c] = mesh.colors[:, i]
    texture_file = None
    if mesh.uv is not None and mesh.texture is not None:
        vertex["texture_u"], vertex["texture_v"] = mesh.uv[:, 0], mesh.uv[:, 1]
        texture_file = path.with_suffix(".png").name
        _write_png(path.with_suffix(".png"), mesh.texture)
    write_ply_tables(path, vertex, mesh.faces, texture_file)


def _write_png(path: Path, image: ImageU8) -> None:
    encoded = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))[1]
    write_whole(path, encoded.tobytes())


def vertex_normals(vertices: FloatArray, faces: NDArray[np.int32]) -> FloatArray:
    """Area-weighted unit normals, Nx3."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(normals, faces[:, i], face_normals)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True, eq=False)
class SurfaceDraw:
    """N points of a mesh's surface: the corners (Nx3 vertex numbers) of the face of each, the
    weights (Nx3) of those corners, and the unit normal (Nx3).
    """

    corners: NDArray[np.int32]
    weights: FloatArray
    normals: FloatArray

    def interpolate(self, values: FloatArray) -> FloatArray:
        """Values of the vertices (VxC) at the points (NxC)."""
        a, b, c = (self.weights[:, i, None] * values[self.corners[:, i]] for i in range(3))
        return np.asarray(a + b + c)


def draw_surface(mesh: Mesh, count: int, seed: int = 0) -> SurfaceDraw:
    """Draw points uniformly by area. Raises DataError for a mesh without area."""
    a, b, c = (mesh.vertices_m[mesh.faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    if area.sum() <= 0:
        raise DataError("Mesh has no surface: all faces have zero area.")
    rng = np.random.default_rng(seed)
    pick = rng.choice(len(area), size=count, p=area / area.sum())
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    corners = mesh.faces[pick]
    normals = cross[pick] / area[pick, None]
    # face winding may be inconsistent in CAD exports: side with the vertex normals
    hint = mesh.normals[corners].sum(axis=1)
    normals *= np.where(np.sum(normals * hint, axis=1, keepdims=True) < 0, -1.0, 1.0)
    return SurfaceDraw(corners, np.column_stack([1 - u, u * (1 - v), u * v]), normals)


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Draw points uniformly by area: (points_m count x 3, unit normals count x 3).

    Raises DataError for a mesh without area.
    """
    draw = draw_surface(mesh, count, seed)
    return draw.interpolate(mesh.vertices_m), draw.normals


def diameter(points_m: FloatArray) -> float:
    """Largest distance between two points of the convex hull (approximated by 2000 extremes)."""
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    # in blocks: all products at once are 0.4 GB for a mesh of 23 000 vertices
    farthest = [np.argmax(d @ points_m.T, axis=1) for d in np.array_split(directions, 100)]
    extremes = points_m[np.unique(np.concatenate(farthest))]
    deltas = extremes[:, None] - extremes[None]
    return float(np.sqrt((deltas**2).sum(axis=-1).max()))
