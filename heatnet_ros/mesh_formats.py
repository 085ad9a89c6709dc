"""OBJ, STL and GLB through trimesh (offline): one mesh out of all the parts of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heatnet_ros.errors import DataError, EngineError
from heatnet_ros.mesh import Mesh, sample_texture, split_at_seams, vertex_normals
from heatnet_ros.types import FloatArray, ImageU8

MESH_SUFFIXES = (".ply", ".obj", ".stl", ".glb", ".gltf")
_GREY = 180


@dataclass(frozen=True, eq=False)
class _Part:
    """One geometry of a file: vertices Nx3, faces Mx3, colours Nx3, uv and texture or None."""

    vertices: FloatArray
    faces: NDArray[np.int64]
    colors: NDArray[np.uint8]
    uv: FloatArray | None
    texture: ImageU8 | None


def read_foreign_mesh(path: Path) -> tuple[Mesh, list[str]]:
    """Read a mesh in the file's own unit, all parts placed by their nodes: (mesh, warnings).

    Colours come from a texture, vertices, faces or the material's base colour. Raises DataError
    for a file without faces or with numbers that are none, EngineError without trimesh; what
    trimesh raises for damaged files passes through.
    """
    try:
        import trimesh
    except ImportError as error:
        raise EngineError(
            f"Reading {path.name} needs {error.name}: pip install 'heatnet_ros[train]' (in a "
            "checkout: .venv/bin/pip install -e '.[render,train]'). A mesh in PLY needs neither."
        ) from error
    warnings = _check_materials(path) if path.suffix.lower() == ".obj" else []
    # unprocessed: processing would drop vertices that are not numbers without a word
    scene = trimesh.load_scene(path, process=False)
    geometries = [g for g in scene.dump() if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    if not geometries:
        raise DataError(
            f"Mesh {path} has no faces (a point cloud or lines). A surface is needed: export "
            "triangles."
        )
    parts = []
    for geometry in geometries:
        if not np.all(np.isfinite(geometry.vertices)):
            count = int(np.sum(~np.isfinite(geometry.vertices).all(axis=1)))
            raise DataError(
                f"Mesh {path}: {count} of {len(geometry.vertices)} vertices are not finite "
                "numbers. Export it again."
            )
        faces = np.asarray(geometry.faces)
        if not 0 <= faces.min() <= faces.max() < len(geometry.vertices):
            raise DataError(
                f"Mesh {path}: faces name vertices outside 0..{len(geometry.vertices) - 1}. "
                "The file is damaged."
            )
        geometry.merge_vertices()
        parts.append(_read_part(geometry, is_gltf=path.suffix.lower() in (".glb", ".gltf")))
    return _join(parts, warnings), warnings


def _check_materials(path: Path) -> list[str]:
    """Look for the files that an OBJ names: trimesh goes on in grey when one is missing."""
    warnings = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for name in _values(text, "mtllib"):
        material = path.parent / name
        if not material.is_file():
            warnings.append(f"its material file {name} is missing: no colours from it")
            continue
        for value in _values(material.read_text(encoding="utf-8", errors="replace"), "map_Kd"):
            # options such as -s 1 1 1 may come before the name
            image = value if (material.parent / value).is_file() else value.split()[-1]
            if not (material.parent / image).is_file():
                raise DataError(
                    f"Mesh {path}: its texture {material.parent / image} is missing. Put the image "
                    f"beside the mesh, or delete the map_Kd line from {name}."
                )
    return warnings


def _values(text: str, key: str) -> list[str]:
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.lstrip().startswith(key))
    return [words[1].strip() for words in lines if len(words) == 2 and words[0] == key]


def _read_part(geometry: Any, is_gltf: bool) -> _Part:
    vertices = np.asarray(geometry.vertices, np.float64)
    faces, visual = np.asarray(geometry.faces, np.int64), geometry.visual
    grey: NDArray[np.uint8] = np.full(vertices.shape, _GREY, np.uint8)
    if visual.kind == "face":
        corner = np.repeat(np.asarray(visual.face_colors)[:, None, :3], 3, axis=1)
        columns, faces, painted = split_at_seams(faces, corner.astype(np.float64))
        return _Part(vertices[columns], faces, painted.astype(np.uint8), None, None)
    if visual.kind == "vertex":
        rgb = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
        return _Part(vertices, faces, rgb, None, None)
    material = getattr(visual, "material", None)
    if material is None:
        return _Part(vertices, faces, grey, None, None)
    tint = _base_color(material, is_gltf)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uv = None if visual.uv is None else np.asarray(visual.uv, np.float64)
    if image is None or uv is None or uv.shape != (len(vertices), 2):
        return _Part(vertices, faces, np.tile(tint, (len(vertices), 1)), None, None)
    texture = np.asarray(image.convert("RGB"), np.uint8)
    if is_gltf and np.any(tint != 255):
        texture = cv2.multiply(texture, np.append(tint / 255.0, 1.0), dtype=cv2.CV_8U)
    colors = sample_texture(texture, uv)
    if not np.ptp(texture, axis=(0, 1)).any():
        # trimesh stands in a plain image where the material is missing
        return _Part(vertices, faces, colors, None, None)
    return _Part(vertices, faces, colors, uv, texture)


def _base_color(material: Any, is_gltf: bool) -> NDArray[np.uint8]:
    """Colour (3,) of a material in sRGB; glTF's factor is linear, white where it is not given."""
    if not is_gltf:
        return np.asarray(material.main_color, np.float64)[:3].astype(np.uint8)
    factor = getattr(material, "baseColorFactor", None)
    if factor is None:
        return np.full(3, 255, np.uint8)
    linear = np.asarray(factor, np.float64)[:3]
    linear = linear / 255.0 if np.asarray(factor).dtype == np.uint8 else linear
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(np.round(255 * srgb), 0, 255).astype(np.uint8))


def _join(parts: list[_Part], warnings: list[str]) -> Mesh:
    """One mesh; a texture survives only where all parts share it."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([p.faces + s for p, s in zip(parts, starts, strict=False)])
    colors = np.concatenate([part.colors for part in parts])
    uv, texture = None, parts[0].texture
    uvs = [part.uv for part in parts if part.uv is not None]
    shared = texture is not None and all(
        part.texture is not None and np.array_equal(part.texture, texture) for part in parts
    )
    if shared and len(uvs) == len(parts):
        uv = np.concatenate(uvs)
    else:
        if any(part.texture is not None for part in parts):
            warnings.append(
                "its parts have different textures or none: they became vertex colours; bake them "
                "into one texture to keep them sharp"
            )
        texture = None
    triangles = faces.astype(np.int32)
    return Mesh(vertices, triangles, vertex_normals(vertices, triangles), colors, uv, texture)
