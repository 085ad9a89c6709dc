"""The object library: the demo set as it is, and every way to get an entry wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.geometry.symmetry import equivalent_transforms
from heatnet_ros.mesh import load_ply
from heatnet_ros.objects import ObjectLibrary, describe_object, load_objects, save_objects

DEMO = Path(__file__).parents[2] / "config" / "objects" / "demo.yaml"
MUG = DEMO.parent / "demo" / "mug.ply"


@pytest.fixture(scope="module")
def described() -> list[dict[str, Any]]:
    """Library entries of two demo objects, meshes given absolutely."""
    half_turn = [{"axis": [0, 0, 1], "fold": 2}]
    return [
        describe_object("mug", MUG, "m", [], 12),
        describe_object("connector", MUG.with_name("connector.ply"), "m", half_turn, 12),
    ]


@pytest.fixture
def entries(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy to damage, with few surface samples: reading YAML takes its time."""
    short = copy.deepcopy(described)
    for entry in short:
        entry["surface"] = entry["surface"][:40]
    return short


@pytest.fixture(scope="module")
def demo() -> ObjectLibrary:
    return load_objects(DEMO)


def _write(folder: Path, entries: Any) -> Path:
    path = folder / "set.yaml"
    path.write_text(yaml.safe_dump({"name": "set", "objects": entries}))
    return path


def test_the_demo_library_is_whole(demo: ObjectLibrary) -> None:
    assert demo.name == "demo" and len(demo.objects) >= 5
    assert any(m.symmetries.axis is not None for m in demo.objects.values())
    assert any(len(m.symmetries.discrete) > 1 for m in demo.objects.values())
    for model in demo.objects.values():
        mesh = model.load_mesh()
        assert mesh is not None
        np.testing.assert_allclose(model.bounds_m, mesh.bounds_m, atol=1e-5)
        normals = np.linalg.norm(model.surface[:, 3:], axis=1)
        np.testing.assert_allclose(normals, 1, atol=1e-4)
        lower, upper = model.bounds_m
        assert (model.keypoints_m >= lower - 1e-5).all()
        assert (model.keypoints_m <= upper + 1e-5).all()


@pytest.mark.parametrize("name", ["connector", "pulley"])
def test_the_demo_symmetries_map_the_mesh_onto_itself(demo: ObjectLibrary, name: str) -> None:
    model = demo[name]
    assert model.symmetries.any
    mesh = model.load_mesh()
    assert mesh is not None
    points = mesh.vertices_m[:: max(1, len(mesh.vertices_m) // 300)]
    for S in equivalent_transforms(model.symmetries, 16):
        moved = points @ S[:3, :3].T + S[:3, 3]
        distance = np.linalg.norm(moved[:, None] - mesh.vertices_m[None], axis=2).min(axis=1)
        assert distance.max() < 0.002


def test_described_entries_survive_the_file(
    tmp_path: Path, described: list[dict[str, Any]]
) -> None:
    save_objects(tmp_path / "set.yaml", "two", described)
    assert [p.name for p in tmp_path.iterdir()] == ["set.yaml"]
    library = load_objects(tmp_path / "set.yaml")
    assert (library.name, list(library.objects)) == ("two", ["mug", "connector"])
    mug = library["mug"]
    np.testing.assert_array_equal(mug.keypoints_m, described[0]["keypoints_m"])
    np.testing.assert_array_equal(mug.surface, described[0]["surface"])
    assert mug.surface.shape == (512, 6) and mug.keypoints_m.shape == (12, 3)
    assert not mug.symmetries.any and len(library["connector"].symmetries.discrete) == 2


def test_description_is_repeatable(described: list[dict[str, Any]]) -> None:
    assert describe_object("mug", MUG, "m", [], 12) == described[0]
    other = describe_object("mug", MUG, "m", [], 12, seed=1)
    assert other["keypoints_m"] != described[0]["keypoints_m"]


def test_libraries_without_a_sampling_note_still_load(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    assert (entries[0]["keypoint_method"], entries[0]["keypoint_seed"]) == ("fps", 0)
    for entry in entries:
        del entry["keypoint_method"], entry["keypoint_seed"]
    mug = load_objects(_write(tmp_path, entries))["mug"]
    assert mug.keypoint_method is None and mug.keypoint_seed is None


# what the networks in models/ were trained for
DEMO_HASH = "a697e4456d316871303bf4aec677ce4b926f1bf6809301136f298819ac1825dd"


def test_the_hash_of_the_demo_library_never_changes(demo: ObjectLibrary) -> None:
    assert demo.keypoints_hash(list(demo.objects)) == DEMO_HASH


def test_unknown_object_names_the_known_ones(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    library = load_objects(_write(tmp_path, entries))
    with pytest.raises(ConfigError, match=r"'cup' is not in .*set\.yaml.*mug, connector"):
        library["cup"]


def test_a_mesh_that_is_not_there_is_no_error(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    entries[0]["mesh"] = "nowhere.ply"
    assert load_objects(_write(tmp_path, entries))["mug"].load_mesh() is None


def test_a_damaged_mesh_is_named(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    (tmp_path / "cut.ply").write_bytes(MUG.read_bytes()[:5000])
    entries[0]["mesh"] = "cut.ply"
    with pytest.raises(DataError, match=r"cut\.ply"):
        load_objects(_write(tmp_path, entries))


def test_duplicate_names(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    entries[1]["name"] = "mug"
    with pytest.raises(ConfigError, match=r"set\.yaml defines 'mug' twice\. Rename or delete"):
        load_objects(_write(tmp_path, entries))


def test_keypoint_counts_that_differ(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    entries[0]["keypoints_m"].pop()
    with pytest.raises(ConfigError, match="differ in keypoint count"):
        load_objects(_write(tmp_path, entries))


def test_a_library_in_millimetres_given_as_metres(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    mug = entries[0]
    mug["diameter_m"] *= 1000
    for key in ("keypoints_m", "bounds_m"):
        mug[key] = (np.array(mug[key]) * 1000).tolist()
    with pytest.raises(ConfigError, match=r"'mug'.*expected 0\.005 to 5\.0 m.*millimetres\?.*unit"):
        load_objects(_write(tmp_path, entries))


def test_only_the_keypoints_in_millimetres(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    entries[0]["keypoints_m"] = (np.array(entries[0]["keypoints_m"]) * 1000).tolist()
    with pytest.raises(ConfigError, match=r"keypoints_m gives a size of .* m.*millimetres"):
        load_objects(_write(tmp_path, entries))


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_a_mesh_with_the_wrong_unit(
    tmp_path: Path, entries: list[dict[str, Any]], unit: str
) -> None:
    text = ["ply", "format ascii 1.0", "element vertex 0", "end_header"]
    mesh = load_ply(MUG)
    scale = 1000.0 if unit == "m" else 1.0  # the file's numbers do not fit the stated unit
    text[2:3] = [f"element vertex {len(mesh.vertices_m)}"]
    text[3:3] = [f"property float {c}" for c in "xyz"]
    text[6:6] = [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
    text += [" ".join(f"{c:.6f}" for c in v * scale) for v in mesh.vertices_m]
    text += [f"3 {a} {b} {c}" for a, b, c in mesh.faces]
    (tmp_path / "mug.ply").write_text("\n".join(text) + "\n")
    entries[0] |= {"mesh": "mug.ply", "unit": unit}
    with pytest.raises(ConfigError, match=rf"mug\.ply read as '{unit}'.*Correct 'unit'"):
        load_objects(_write(tmp_path, entries))
    entries[0]["unit"] = "m" if unit == "mm" else "mm"
    assert load_objects(_write(tmp_path, entries))["mug"].load_mesh() is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diametre_m": 0.1}, r"'mug': unknown keys \['diametre_m'\]"),
        ({"surface": None}, "'surface'"),
        ({"keypoints_m": [[0, 0], [1, 1]]}, r"'keypoints_m' must be finite Nx3, got \(2, 2\)"),
        ({"keypoints_m": [[0, 0, float("nan")]] * 12}, "'keypoints_m' must be finite"),
        ({"keypoints_m": [["a", 0, 0]] * 12}, "'keypoints_m' is not a table of numbers"),
        ({"bounds_m": [[0, 0, 0]] * 3}, "'bounds_m'"),
        ({"diameter_m": "wide"}, "'mug'.*diameter_m"),
        ({"keypoint_method": "random"}, "keypoint_method must be fps or cps, got 'random'"),
        ({"keypoint_seed": -1}, "keypoint_seed must be a whole number from 0, got -1"),
        ({"keypoint_seed": "one"}, "keypoint_seed must be a whole number"),
        ({"symmetries": [{"axis": [0, 0, 1]}]}, r"symmetry \{'axis': \[0, 0, 1\]\} is not under"),
        ({"symmetries": [{"axis": [0, 0], "fold": 2}]}, "is not understood"),
        ({"symmetries": [5]}, "is not understood"),
        ({"symmetries": [{"matrix": [1, 2, 3]}]}, "is not understood"),
        ({"symmetries": [{"axis": [0, 0, 0], "fold": 2}]}, "symmetry"),
        ({"symmetries": [{"axis": [0, 0, 1], "fold": 0}]}, "symmetry"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_entries(
    tmp_path: Path, entries: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    entries[0] |= changes
    with pytest.raises(ConfigError, match=message):
        load_objects(_write(tmp_path, entries))


def test_fewer_than_four_keypoints(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        entry["keypoints_m"] = entry["keypoints_m"][:3]
    with pytest.raises(ConfigError, match="at least 4 keypoints are needed, got 3"):
        load_objects(_write(tmp_path, entries))


@pytest.mark.parametrize("objects", [None, [], {}, "mug", ["mug"]])
def test_no_list_of_objects(tmp_path: Path, objects: Any) -> None:
    with pytest.raises(ConfigError, match=r"set\.yaml.*expected a (list|mapping)"):
        load_objects(_write(tmp_path, objects))


def test_symmetries_of_a_cylinder_that_turns_over(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    entries[0]["symmetries"] = [
        {"axis": [0, 0, 2], "continuous": True, "point_m": [0.01, 0, 0]},
        {"axis": [1, 0, 0], "fold": 2},
    ]
    symmetries = load_objects(_write(tmp_path, entries))["mug"].symmetries
    assert symmetries.axis is not None and symmetries.point_m is not None
    np.testing.assert_allclose(symmetries.axis, [0, 0, 1])
    np.testing.assert_allclose(symmetries.point_m, [0.01, 0, 0])
    np.testing.assert_allclose(symmetries.discrete[1][:3, :3], np.diag([1, -1, -1]), atol=1e-12)


def test_two_folds_multiply(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    entries[0]["symmetries"] = [{"axis": [0, 0, 1], "fold": 4}, {"axis": [1, 0, 0], "fold": 2}]
    discrete = load_objects(_write(tmp_path, entries))["mug"].symmetries.discrete
    assert len(discrete) == len(np.unique(np.round(discrete.reshape(-1, 16), 6), axis=0)) == 8


def test_the_hash_is_that_of_names_keypoints_and_symmetries(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    names = ["mug", "connector"]
    original = load_objects(_write(tmp_path, entries)).keypoints_hash(names)

    def changed(**changes: Any) -> str:
        return load_objects(_write(tmp_path, [entries[0] | changes, entries[1]])).keypoints_hash(
            names
        )

    keypoints = entries[0]["keypoints_m"]
    moved = copy.deepcopy(keypoints)
    moved[3][1] += 1e-6
    assert changed() == original
    assert changed(keypoint_method="cps", keypoint_seed=7) == original
    assert changed(surface=entries[0]["surface"][:20]) == original
    assert changed(diameter_m=entries[0]["diameter_m"] * 1.01) == original
    assert changed(keypoints_m=moved) != original
    assert changed(keypoints_m=[keypoints[1], keypoints[0], *keypoints[2:]]) != original
    assert changed(symmetries=[{"axis": [0, 0, 1], "fold": 2}]) != original
    assert changed(symmetries=[{"axis": [0, 0, 1], "continuous": True}]) != original
    turned = [{"axis": [0, 0, 1], "continuous": True}]
    along = [turned[0] | {"point_m": [0.0, 0.0, 0.02]}]
    beside = [turned[0] | {"point_m": [0.001, 0.0, 0.02]}]
    assert changed(symmetries=along) == changed(symmetries=turned)  # the same axis
    assert changed(symmetries=beside) != changed(symmetries=turned)
    library = load_objects(_write(tmp_path, entries))
    assert library.keypoints_hash(names[::-1]) != original


def test_of_several_meshes_the_first_that_is_there(
    tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    entries[0]["mesh"] = ["nowhere/mug.ply", str(MUG)]
    assert load_objects(_write(tmp_path, entries))["mug"].mesh_path == MUG
    entries[0]["mesh"] = ["nowhere/mug.ply", "neither/mug.ply"]
    assert load_objects(_write(tmp_path, entries))["mug"].mesh_path == tmp_path / "nowhere/mug.ply"
