"""What a rendered split was made from, kept beside it, so that different images never mix.

``data/parts/train.made_from.json`` belongs to ``data/parts/train``. It holds every setting that
shapes an image, and what the meshes contained; not the number of images, which may grow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.datasets.entries import load_json
from heatnet_ros.datasets.open import list_splits
from heatnet_ros.errors import DataError
from heatnet_ros.files import write_json
from heatnet_ros.mesh import Mesh

SUFFIX = ".made_from.json"


def describe_sources(
    settings: Mapping[str, Any],
    meshes: Mapping[str, Mesh],
    obj_ids: Mapping[str, int],
    clutter: Sequence[Mesh],
) -> dict[str, Any]:
    """What a split is made from: settings by dotted name, and hashes of the meshes' content.

    Meshes count as they are in metres, with colours and texture; where their files lie does not.
    """
    found = _flatten(settings)
    for name, mesh in meshes.items():
        found[f"objects.{name}"] = f"{obj_ids[name]}:{hash_mesh(mesh)}"
    found["clutter"] = [hash_mesh(mesh) for mesh in clutter]
    # as JSON gives it back: tuples are lists there
    return dict(json.loads(json.dumps(found)))


def hash_mesh(mesh: Mesh) -> str:
    """Hash of what a mesh looks like (16 hex digits)."""
    digest = hashlib.sha256()
    for array in (mesh.vertices_m, mesh.faces, mesh.colors, mesh.uv, mesh.texture):
        if array is not None:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def record_sources(out: Path, split: str, sources: Mapping[str, Any]) -> None:
    """Note what a split is made from, before its first scene.

    Raises DataError when the split's scenes, or the objects of another split (they share
    ``models/``), were made from something else or nobody noted from what; and when the note cannot
    be written.
    """
    own = out / f"{split}{SUFFIX}"
    for other in list_splits(out):
        path = out / f"{other}{SUFFIX}"
        if not path.exists():
            raise DataError(
                f"{out / other} has scenes, but {path.name} beside it, which says what they were "
                f"made from, is missing. Give another --out, or delete {out / other}."
            )
        there = load_json(path, dict)
        differ = [
            key
            for key in sorted({*there, *sources})
            if there.get(key) != sources.get(key) and (other == split or key.startswith("objects."))
        ]
        if differ:
            listed = ", ".join(_difference(key, there, sources) for key in differ[:6])
            more = f" and {len(differ) - 6} more" if len(differ) > 6 else ""
            raise DataError(
                f"{out / other} was made from something else: {listed}{more}. Give another --out, "
                f"or delete {out / other} and {path.name}, or go back to what it was made from."
            )
    write_json(own, sources, "Make room, or give another --out.")


def _difference(key: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key == "clutter":
        return "clutter (other meshes)"
    if key.startswith("objects."):
        what = "another mesh, unit or number" if key in now else "not in the library now"
        return f"{key} ({what if key in there else 'new'})"
    return f"{key} ({there.get(key, 'unset')} there, {now.get(key, 'unset')} now)"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
