"""The object library: what the objects are, one YAML file per set.

Keypoint order is a contract between this file and every network trained for it: keypoints are
stored, never recomputed, and ``keypoints_hash`` is in each model's manifest.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.config import load_yaml
from heatnet_ros.errors import ConfigError
from heatnet_ros.files import write_whole
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.symmetry import NO_SYMMETRY, Symmetries, rotation_about
from heatnet_ros.keypoint_sampling import METHODS, farthest_points, sample_keypoints
from heatnet_ros.mesh import Mesh, diameter, load_ply, sample_surface
from heatnet_ros.types import FloatArray

DIAMETER_RANGE_M = (0.005, 5.0)
SURFACE_POINTS = 512


@dataclass(frozen=True, eq=False)
class ObjectModel:
    """One known object, in its own frame, metres.

    keypoints_m: Kx3. surface: Nx6, points and outward unit normals spread over the surface.
    bounds_m: 2x3, lower and upper corner. mesh_path may name a file that is not there.
    keypoint_method, keypoint_seed: how the keypoints were sampled, None where nobody noted it.
    """

    name: str
    diameter_m: float
    bounds_m: FloatArray
    keypoints_m: FloatArray
    surface: FloatArray
    symmetries: Symmetries
    mesh_path: Path | None
    mesh_unit: str
    keypoint_method: str | None = None
    keypoint_seed: int | None = None

    def center_m(self, T_camera_object: FloatArray) -> FloatArray:
        """Middle of the object's box in the camera frame, (3,): symmetries leave it where it is."""
        return se3.transform(T_camera_object, self.bounds_m.mean(axis=0))

    def load_mesh(self, *, with_texture: bool = True) -> Mesh | None:
        """The mesh, or None where the library names none or the file is absent.

        Without its texture a mesh loads faster; the vertex colours are there all the same.
        """
        if self.mesh_path is None or not self.mesh_path.exists():
            return None
        return load_ply(self.mesh_path, self.mesh_unit, with_texture=with_texture)


@dataclass(frozen=True, eq=False)
class ObjectLibrary:
    """The objects of one set, by name, in the order of the file."""

    name: str
    objects: Mapping[str, ObjectModel]
    path: Path

    def __getitem__(self, object_id: str) -> ObjectModel:
        try:
            return self.objects[object_id]
        except KeyError:
            raise ConfigError(
                f"Object '{object_id}' is not in {self.path}, which defines "
                f"{', '.join(self.objects)}."
            ) from None

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ConfigError, with the nearest known name, for a name that is not in the library."""
        for name in names:
            if name not in self.objects:
                near = difflib.get_close_matches(name, self.objects, n=1)
                hint = f"Did you mean '{near[0]}'?" if near else "Correct 'objects'."
                raise ConfigError(
                    f"Object '{name}' is not in {self.path}, which defines "
                    f"{', '.join(self.objects)}. {hint}"
                )

    def keypoints_hash(self, names: list[str]) -> str:
        """sha256 over names, keypoints and symmetries, to 1e-9 m: what a network knows.

        An axis through the origin, the usual one, adds no point: older files keep their hash.
        """
        digest = hashlib.sha256()
        for name in names:
            model = self[name]
            digest.update(name.encode())
            turns = model.symmetries
            for array in (model.keypoints_m, turns.discrete, turns.axis, _axis_offset(turns)):
                if array is not None:
                    # + 0.0 turns -0.0 into 0.0
                    digest.update((np.round(array, 9) + 0.0).astype("<f8").tobytes())
        return digest.hexdigest()


def _axis_offset(symmetries: Symmetries) -> FloatArray | None:
    """Where the axis passes the origin nearest, metres; None where it passes through it."""
    axis, point_m = symmetries.axis, symmetries.point_m
    if axis is None or point_m is None:
        return None
    offset = point_m - (point_m @ axis) * axis
    return offset if np.round(offset, 9).any() else None


def load_objects(path: Path) -> ObjectLibrary:
    """Read an object library. Raises ConfigError with file, object, expected, got and remedy."""
    content = load_yaml(path, "Object library")
    entries = content.get("objects")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"Object library {path}: expected a list 'objects' with one or more.")
    objects: dict[str, ObjectModel] = {}
    for entry in entries:
        model = _parse_object(entry, path)
        if model.name in objects:
            raise ConfigError(
                f"Object library {path} defines '{model.name}' twice. Rename or delete one."
            )
        objects[model.name] = model
    counts = {len(model.keypoints_m) for model in objects.values()}
    if len(counts) > 1:
        raise ConfigError(f"Object library {path}: objects differ in keypoint count: {counts}.")
    return ObjectLibrary(str(content.get("name", path.stem)), objects, path)


_REQUIRED = ("name", "diameter_m", "bounds_m", "keypoints_m", "surface")
_KNOWN = (*_REQUIRED, "mesh", "unit", "symmetries", "keypoint_method", "keypoint_seed")


def _parse_object(entry: Any, path: Path) -> ObjectModel:
    where = f"{path}: object '{entry.get('name', '?') if isinstance(entry, dict) else entry}'"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a mapping.")
    unknown, missing = set(entry) - set(_KNOWN), [key for key in _REQUIRED if key not in entry]
    if unknown or missing:
        raise ConfigError(f"{where}: unknown keys {sorted(unknown)}, missing keys {missing}.")
    model = ObjectModel(
        name=str(entry["name"]),
        diameter_m=_number(entry, "diameter_m", where),
        bounds_m=_array(entry, "bounds_m", 3, where),
        keypoints_m=_array(entry, "keypoints_m", 3, where),
        surface=_array(entry, "surface", 6, where),
        symmetries=_parse_symmetries(entry.get("symmetries", []), where),
        mesh_path=_find_mesh(entry.get("mesh"), path.parent),
        mesh_unit=str(entry.get("unit", "m")),
        **_parse_sampling(entry, where),
    )
    if model.bounds_m.shape != (2, 3):
        raise ConfigError(f"{where}: 'bounds_m' must be 2x3, got {model.bounds_m.shape}.")
    _check_size(model, where)
    return model


def _find_mesh(named: Any, folder: Path) -> Path | None:
    """The mesh's file, or of several that are named the first that is there (else the first)."""
    names = named if isinstance(named, list) else [named] if named else []
    paths = [folder / os.path.expandvars(str(name)) for name in names]
    return next((path for path in paths if path.exists()), paths[0] if paths else None)


def _parse_sampling(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    method, seed = entry.get("keypoint_method"), entry.get("keypoint_seed")
    if method is not None and method not in METHODS:
        raise ConfigError(
            f"{where}: keypoint_method must be {' or '.join(METHODS)}, got {method!r}."
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise ConfigError(f"{where}: keypoint_seed must be a whole number from 0, got {seed!r}.")
    return {"keypoint_method": method, "keypoint_seed": seed}


def _number(entry: Mapping[str, Any], key: str, where: str) -> float:
    try:
        return float(entry[key])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: '{key}' must be a number, got {entry[key]!r}.") from error


def _array(entry: Mapping[str, Any], key: str, columns: int, where: str) -> FloatArray:
    try:
        array = np.array(entry[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: '{key}' is not a table of numbers: {error}.") from error
    if array.ndim != 2 or array.shape[1] != columns or not np.all(np.isfinite(array)):
        raise ConfigError(f"{where}: '{key}' must be finite Nx{columns}, got {array.shape}.")
    return array


def _check_size(model: ObjectModel, where: str) -> None:
    low, high = DIAMETER_RANGE_M
    extent = float(np.linalg.norm(np.ptp(model.keypoints_m, axis=0)))
    for what, size in (("diameter_m", model.diameter_m), ("keypoints_m", extent)):
        if not low <= size <= high:
            raise ConfigError(
                f"{where}: {what} gives a size of {size:g} m, expected {low} to {high} m. "
                "Are these millimetres? Set 'unit: mm' and describe the object again "
                "(python -m heatnet_ros keypoints)."
            )
    mesh = model.load_mesh(with_texture=False)
    if mesh is not None:
        measured, stored = (np.ptp(b, axis=0).max() for b in (mesh.bounds_m, model.bounds_m))
        if not 0.9 < measured / stored < 1.1:
            raise ConfigError(
                f"{where}: the mesh {model.mesh_path} read as '{model.mesh_unit}' measures "
                f"{measured:g} m, the library's bounds_m say {stored:g} m. "
                "Correct 'unit' (m or mm) or restore the mesh."
            )
    if len(model.keypoints_m) < 4:
        raise ConfigError(f"{where}: at least 4 keypoints are needed, got {len(model.keypoints_m)}")


def _parse_symmetries(entries: Any, where: str) -> Symmetries:
    """Each entry: ``{axis: [x,y,z], fold: 2}`` or ``{axis: [x,y,z], continuous: true}``, optional
    ``point_m``; or ``{matrix: [16 numbers]}`` with the translation in metres.
    """
    if not entries:
        return NO_SYMMETRY
    discrete, axis, point = [np.eye(4)], None, None
    for entry in entries:
        try:
            if "matrix" in entry:
                discrete.append(np.array(entry["matrix"], dtype=np.float64).reshape(4, 4))
                continue
            direction = np.array(entry["axis"], dtype=np.float64).reshape(3)
            if not np.linalg.norm(direction) > 0:
                raise ValueError("the axis has no direction")
            direction = direction / np.linalg.norm(direction)
            through = np.array(entry.get("point_m", [0, 0, 0]), dtype=np.float64).reshape(3)
            if entry.get("continuous"):
                axis, point = direction, through
                continue
            fold = int(entry["fold"])
            if fold < 2:
                raise ValueError("fold must be 2 or more")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{where}: symmetry {entry!r} is not understood: {error}.") from error
        turns = [rotation_about(direction, through, 2 * math.pi * i / fold) for i in range(1, fold)]
        discrete += [d @ t for d in list(discrete) for t in turns]
    return Symmetries(np.stack(discrete), axis, point)


def describe_object(
    name: str,
    mesh_path: Path,
    unit: str,
    symmetries: list[dict[str, Any]],
    keypoint_count: int,
    seed: int = 0,
    method: str = "fps",
) -> dict[str, Any]:
    """Make the library entry of a mesh: diameter, bounds, keypoints, surface samples.

    method: ``fps`` or ``cps``. Deterministic from the seed. ``mesh`` is stored as given; make it
    relative to the library. Raises DataError for a mesh that is none, ConfigError for the method.
    """
    mesh = load_ply(mesh_path, unit, with_texture=False)
    dense, _ = sample_surface(mesh, 20000, seed)
    points, normals = sample_surface(mesh, 4 * SURFACE_POINTS, seed + 1)
    keep = _spread(points, SURFACE_POINTS)
    return {
        "name": name,
        "mesh": str(mesh_path),
        "unit": unit,
        "diameter_m": round(diameter(mesh.vertices_m), 6),
        "bounds_m": np.round(mesh.bounds_m, 6).tolist(),
        "symmetries": symmetries,
        "keypoint_method": method,
        "keypoint_seed": seed,
        "keypoints_m": np.round(sample_keypoints(dense, keypoint_count, method), 6).tolist(),
        "surface": np.round(np.hstack([points, normals])[keep], 5).tolist(),
    }


def _spread(points: FloatArray, count: int) -> list[int]:
    """Indices of an even subset, by farthest point sampling."""
    chosen = farthest_points(points, count)
    index = {tuple(p): i for i, p in enumerate(points)}
    return [index[tuple(p)] for p in chosen]


_ONE_LINE = (
    *("mesh", "unit", "diameter_m", "bounds_m", "symmetries"),
    *("keypoint_method", "keypoint_seed"),
)


def save_objects(path: Path, name: str, entries: list[dict[str, Any]]) -> None:
    """Write a library: one line per keypoint and surface sample; appears whole or not at all."""
    lines = ["# Written by `python -m heatnet_ros keypoints`. Keypoint order is a contract with"]
    lines += ["# the trained networks: never edit keypoints_m.", f"name: {name}", "objects:"]
    for entry in entries:
        lines.append(f"  - name: {entry['name']}")
        for key in _ONE_LINE:
            if key in entry:
                lines.append(f"    {key}: {entry[key]}")
        for key in ("keypoints_m", "surface"):
            lines.append(f"    {key}:")
            lines += [f"      - {row}" for row in entry[key]]
    write_whole(path, "\n".join(lines) + "\n")
