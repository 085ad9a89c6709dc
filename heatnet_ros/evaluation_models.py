"""The meshes, diameters and symmetries that an evaluation measures on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from heatnet_ros.datasets.bop import ModelInfo, load_models_info
from heatnet_ros.errors import DataError
from heatnet_ros.evaluate import EvaluationModel
from heatnet_ros.geometry.symmetry import Symmetries
from heatnet_ros.mesh import Mesh, load_ply
from heatnet_ros.objects import ObjectLibrary

_FOLDERS = ("models_eval", "models")
_LARGEST_DIFFERENCE = 0.1


class EvaluationModels:
    """Loads what an object is measured on: the data set's own models where it has them.

    folder: of the data set, None without one. obj_ids: library name -> id in the data set. BOP's
    ``models_eval`` come first, then ``models``, then the library's mesh. Diameter and symmetries
    are those of the data set's models_info.json, which is what its benchmark uses. ``notes``: what
    a reader of the scores should know.
    """

    def __init__(
        self,
        library: ObjectLibrary,
        folder: Path | None = None,
        obj_ids: Mapping[str, int] | None = None,
    ) -> None:
        self._library, self._folder, self._obj_ids = library, folder, dict(obj_ids or {})
        self._infos: dict[Path, dict[int, ModelInfo]] = {}
        self.notes: list[str] = []

    def load(self, name: str) -> EvaluationModel:
        """The model of an object of the library.

        Raises DataError when a file of the data set is damaged or shows another object.
        """
        known = self._library[name]
        if self._folder is not None and name in self._obj_ids:
            for kind in _FOLDERS:
                mesh = _load_dataset_mesh(self._folder / kind, self._obj_ids[name])
                if mesh is None:
                    continue
                info = self._info(self._folder / kind, self._obj_ids[name])
                diameter = known.diameter_m if info is None else info.diameter_m
                if abs(diameter / known.diameter_m - 1) > _LARGEST_DIFFERENCE:
                    raise DataError(
                        f"Object '{name}' has a diameter of {diameter:g} m in {self._folder / kind}"
                        f" and {known.diameter_m:g} m in {self._library.path}; expected the same "
                        "object. Use the object library of this data set."
                    )
                turns = known.symmetries if info is None else _build_symmetries(info)
                if turns.any != known.symmetries.any:
                    self.notes.append(
                        f"{name} is {'' if turns.any else 'not '}symmetric in {kind}/"
                        "models_info.json, unlike in the object library: it is measured as the "
                        "data set says."
                    )
                return EvaluationModel(mesh.vertices_m, diameter, turns, mesh, kind)
        mesh = known.load_mesh()
        if mesh is None:
            samples = known.surface[:, :3]
            return EvaluationModel(samples, known.diameter_m, known.symmetries, None, "surface")
        return EvaluationModel(mesh.vertices_m, known.diameter_m, known.symmetries, mesh, "mesh")

    def _info(self, folder: Path, obj_id: int) -> ModelInfo | None:
        path = folder / "models_info.json"
        if path not in self._infos:
            self._infos[path] = load_models_info(path) if path.exists() else {}
        return self._infos[path].get(obj_id)


def _load_dataset_mesh(folder: Path, obj_id: int) -> Mesh | None:
    """BOP's name, then that of Linemod_preprocessed; both are in millimetres."""
    for name in (f"obj_{obj_id:06d}.ply", f"obj_{obj_id:02d}.ply"):
        if (folder / name).exists():
            return load_ply(folder / name, "mm")
    return None


def _build_symmetries(info: ModelInfo) -> Symmetries:
    turns = [np.reshape(s["matrix"], (4, 4)) for s in info.symmetries if "matrix" in s]
    discrete = np.stack([np.eye(4), *turns])
    for symmetry in info.symmetries:
        if symmetry.get("continuous"):
            axis = np.array(symmetry["axis"], np.float64)
            return Symmetries(
                discrete, axis / np.linalg.norm(axis), np.array(symmetry["point_m"], np.float64)
            )
    return Symmetries(discrete)
