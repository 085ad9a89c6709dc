import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import LIBRARY, MESHES

from heatnet_ros.errors import DataError
from heatnet_ros.evaluation_models import EvaluationModels
from heatnet_ros.mesh import write_ply
from heatnet_ros.objects import ObjectLibrary

IDS = {"wedge": 1, "brick": 2, "disc": 3}


def write_models(folder: Path, name: str, scale: float = 1.0, **info: object) -> Path:
    """A mesh and its models_info.json as BOP has them: millimetres."""
    folder.mkdir(parents=True, exist_ok=True)
    mesh = MESHES[name]
    path = folder / f"obj_{IDS[name]:06d}.ply"
    write_ply(path, replace(mesh, vertices_m=mesh.vertices_m * scale * 1000))
    diameter = LIBRARY[name].diameter_m * scale * 1000
    content = {str(IDS[name]): {"diameter": diameter, **info}}
    (folder / "models_info.json").write_text(json.dumps(content))
    return path


def test_the_data_sets_own_models_come_first(tmp_path: Path):
    assert EvaluationModels(LIBRARY, tmp_path, IDS).load("wedge").measured_on == "surface"
    write_models(tmp_path / "models", "wedge")
    model = EvaluationModels(LIBRARY, tmp_path, IDS).load("wedge")
    assert model.measured_on == "models"
    np.testing.assert_allclose(model.points_m, MESHES["wedge"].vertices_m, atol=1e-7)
    write_models(tmp_path / "models_eval", "wedge", scale=1.01)
    model = EvaluationModels(LIBRARY, tmp_path, IDS).load("wedge")
    assert model.measured_on == "models_eval"
    assert model.diameter_m == pytest.approx(LIBRARY["wedge"].diameter_m * 1.01)
    assert model.mesh is not None


def test_without_a_data_set_the_librarys_mesh(tmp_path: Path):
    path = tmp_path / "wedge.ply"
    write_ply(path, MESHES["wedge"])
    known = replace(LIBRARY["wedge"], mesh_path=path, mesh_unit="m")
    library = ObjectLibrary("own", {"wedge": known}, tmp_path / "own.yaml")
    model = EvaluationModels(library).load("wedge")
    assert model.measured_on == "mesh"
    np.testing.assert_allclose(model.points_m, MESHES["wedge"].vertices_m, atol=1e-7)


def test_symmetries_are_those_of_the_benchmark(tmp_path: Path):
    # a half turn about z, the axis 3 mm beside the origin
    turn = [-1, 0, 0, 6, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    write_models(tmp_path / "models", "wedge", symmetries_discrete=[turn])
    models = EvaluationModels(LIBRARY, tmp_path, IDS)
    symmetries = models.load("wedge").symmetries
    assert models.notes[0].startswith("wedge is symmetric in models/models_info.json, unlike")
    assert symmetries.discrete.shape == (2, 4, 4)
    np.testing.assert_allclose(symmetries.discrete[1, :3, 3], [0.006, 0, 0], atol=1e-12)
    axis = [{"axis": [0, 0, 2], "offset": [1, 2, 3]}]
    write_models(tmp_path / "models", "brick", symmetries_continuous=axis)
    symmetries = EvaluationModels(LIBRARY, tmp_path, IDS).load("brick").symmetries
    np.testing.assert_allclose(symmetries.axis, [0, 0, 1])
    np.testing.assert_allclose(symmetries.point_m, [0.001, 0.002, 0.003])
    assert len(symmetries.discrete) == 1
    # where the data set says nothing of an object, the library's hold
    (tmp_path / "models" / "models_info.json").unlink()
    symmetries = EvaluationModels(LIBRARY, tmp_path, IDS).load("brick").symmetries
    assert symmetries is LIBRARY["brick"].symmetries


def test_another_object_under_the_same_name_is_refused(tmp_path: Path):
    write_models(tmp_path / "models", "wedge", scale=1.5)
    with pytest.raises(DataError, match=r"'wedge' has a diameter of 0\.1\d+ m in .*models.*fake"):
        EvaluationModels(LIBRARY, tmp_path, IDS).load("wedge")


def test_a_damaged_mesh_is_no_reason_to_take_another(tmp_path: Path):
    write_models(tmp_path / "models", "wedge")
    path = write_models(tmp_path / "models_eval", "wedge")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"obj_000001\.ply"):
        EvaluationModels(LIBRARY, tmp_path, IDS).load("wedge")
