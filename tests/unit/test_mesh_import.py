"""Mesh intake: real files of every format, and every kind of bad file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import MESHES

from heatnet_ros import mesh_import
from heatnet_ros.errors import ConfigError, DataError
from heatnet_ros.mesh import Mesh, load_ply, write_ply
from heatnet_ros.mesh_import import choose_unit, import_mesh, normalize

SHARED = Path(__file__).parents[3] / "shared" / "data"
YCB = SHARED / "ycb_meshes"
LM = SHARED / "lm" / "models"
BRICK_SIZE_M = (0.12, 0.06, 0.04)

OBJ = """mtllib box.mtl
v 0 0 0
v 0.1 0 0
v 0.1 0.1 0
v 0 0.1 0.05
vt 0.1 0.1
vt 0.9 0.1
vt 0.9 0.9
vt 0.1 0.9
usemtl paint
f 1/1 2/2 3/3
f 1/1 3/3 4/4
"""
MTL = "newmtl paint\nKd 1 1 1\nmap_Kd paint.png\n"


@pytest.fixture
def trimesh() -> Any:
    return pytest.importorskip("trimesh", reason="OBJ, STL and GLB need the train extra")


def _write(path: Path, mesh: Mesh, scale: float = 1.0) -> Path:
    write_ply(path, Mesh(mesh.vertices_m * scale, mesh.faces, mesh.normals, mesh.colors))
    return path


def _text_ply(path: Path, vertices: list[str], faces: list[str]) -> Path:
    text = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n"
    text += "".join(f"property float {c}\n" for c in "xyz")
    text += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_text(text + "\n".join([*vertices, *faces]) + "\n")
    return path


def _textured_obj(folder: Path) -> Path:
    image = np.zeros((64, 64, 3), np.uint8)  # BGR, row 0 at the top
    image[:32, :32], image[:32, 32:] = (0, 0, 255), (0, 255, 0)
    image[32:, :32], image[32:, 32:] = (255, 0, 0), (255, 255, 255)
    cv2.imwrite(str(folder / "paint.png"), image)
    (folder / "box.mtl").write_text(MTL)
    (folder / "box.obj").write_text(OBJ)
    return folder / "box.obj"


def test_a_ply_in_millimetres_becomes_metres_and_is_used_in_place(tmp_path: Path) -> None:
    imported = import_mesh(_write(tmp_path / "brick.ply", MESHES["brick"], 1000.0))
    report = imported.report
    assert report.unit == "mm" and "only in millimetres" in report.unit_reason
    assert report.size_m == pytest.approx(BRICK_SIZE_M)
    assert report.diameter_m == pytest.approx(np.linalg.norm(BRICK_SIZE_M))
    assert report.watertight and report.bodies == 1 and not report.rewritten
    np.testing.assert_allclose(imported.mesh.bounds_m, MESHES["brick"].bounds_m, atol=1e-7)
    assert "unit mm" in report.describe() and "watertight" in report.describe()


@pytest.mark.parametrize(
    ("diameter", "unit"), [(0.005, "m"), (0.2, "m"), (2.0, "m"), (20.0, "mm"), (5000.0, "mm")]
)
def test_the_unit_is_the_one_that_makes_an_object(diameter: float, unit: str) -> None:
    assert choose_unit(diameter, "auto", Path("a.stl"))[0] == unit


@pytest.mark.parametrize(
    ("name", "diameter", "unit", "message"),
    [
        (
            "a.stl",
            3.0,
            "auto",
            r"a\.stl.*large object in metres or a small one in milli.*--unit m ",
        ),
        ("a.stl", 19.0, "auto", "Give --unit m or --unit mm"),
        ("a.stl", 0.001, "auto", "fits neither metres nor millimetres"),
        ("a.stl", 6000.0, "auto", "fits neither metres nor millimetres"),
        ("a.stl", 0.14, "mm", r"0\.00014 m, expected 0\.005 to 5\.0 m.*give --unit m\."),
        ("a.stl", 140.0, "m", r"140 m, expected .*Are these millimetres\?.*give --unit mm\."),
        ("a.stl", 6000.0, "m", r"6000 m, .*Scale the mesh"),
        ("a.glb", 140.0, "auto", "glTF is in metres.*give --unit mm"),
    ],
)
def test_units_that_do_not_fit(name: str, diameter: float, unit: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_unit(diameter, unit, Path(name))


def test_a_unit_given_goes_first_and_gltf_is_metres() -> None:
    assert choose_unit(3.0, "m", Path("a.stl")) == ("m", "as told")
    assert choose_unit(7.0, "mm", Path("a.stl")) == ("mm", "as told")
    assert choose_unit(3.0, "auto", Path("a.glb")) == ("m", "glTF is in metres")
    assert choose_unit(140.0, "mm", Path("a.glb"))[0] == "mm"
    with pytest.raises(ConfigError, match="unit must be auto, m or mm, got 'inch'"):
        import_mesh(Path("a.ply"), "inch")


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (["0 0 0", ".1 0 0", "0 .1 0"], [], r"expected Mx3 with M > 0.*point cloud"),
        (["0 0 0", ".1 nan 0", "0 .1 0"], ["3 0 1 2"], "1 of 3 vertices are not finite"),
        (["0 0 0", ".1 0 0", "0 inf 0"], ["3 0 1 2"], "1 of 3 vertices are not finite"),
        (["0 0 0", ".1 0 0", ".2 0 0"], ["3 0 1 2"], "no surface: all 1 faces have zero area"),
        (["0 0 0", ".1 0 0", "0 .1 0"], ["3 0 1 1"], "no surface: all 1 faces have zero area"),
    ],
)
def test_bad_ply_files_are_refused_by_name(
    tmp_path: Path, vertices: list[str], faces: list[str], message: str
) -> None:
    path = _text_ply(tmp_path / "bad.ply", vertices, faces)
    with pytest.raises(DataError, match=rf"bad\.ply.*{message}"):
        import_mesh(path)


def test_a_cloud_without_the_element_face(tmp_path: Path) -> None:
    (tmp_path / "c.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    )
    with pytest.raises(DataError, match=r"c\.ply.*vertex and face, got \['vertex'\].*point cloud"):
        import_mesh(tmp_path / "c.ply")


def test_files_that_are_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.obj cannot be read: No such file"):
        import_mesh(tmp_path / "gone.obj")
    (tmp_path / "empty.stl").touch()
    with pytest.raises(DataError, match=r"empty\.stl is empty \(0 bytes\)"):
        import_mesh(tmp_path / "empty.stl")
    with pytest.raises(DataError, match=r"part\.step: format '\.step' is not read.*\.obj.*Convert"):
        import_mesh(tmp_path / "part.step")


def test_zero_area_faces_and_loose_vertices_are_left_out(tmp_path: Path) -> None:
    vertices = ["0 0 0", ".1 0 0", "0 .1 0", "0 0 .1", "9 9 9"]
    faces = ["3 0 2 1", "3 0 1 3", "3 0 3 2", "3 1 2 3", "3 0 0 1"]
    imported = import_mesh(_text_ply(tmp_path / "t.ply", vertices, faces))
    assert imported.report.zero_area_removed == 1
    assert imported.report.faces_in_file == 5 and imported.report.faces == 4
    # the loose vertex would have made it 15 m wide
    assert imported.report.diameter_m == pytest.approx(0.1 * np.sqrt(2))
    assert imported.report.watertight and imported.report.rewritten
    assert "1 faces of zero area were left out" in imported.report.describe()


def test_an_open_mesh_is_a_warning_only(tmp_path: Path) -> None:
    brick = MESHES["brick"]
    path = tmp_path / "open.ply"
    write_ply(path, Mesh(brick.vertices_m, brick.faces[1:], brick.normals, brick.colors))
    report = import_mesh(path).report
    assert not report.watertight
    assert any("not watertight: 3 edges" in text for text in report.warnings)


def test_a_mesh_inside_out_is_turned_over(tmp_path: Path) -> None:
    brick = MESHES["brick"]
    path = tmp_path / "in.ply"
    write_ply(path, Mesh(brick.vertices_m, brick.faces[:, ::-1], -brick.normals, brick.colors))
    imported = import_mesh(path)
    outward = np.einsum("ij,ij->i", imported.mesh.vertices_m, imported.mesh.normals)
    assert (outward > 0).all() and imported.report.rewritten
    assert any("turned over" in text for text in imported.report.warnings)


def test_an_origin_far_away_is_told(tmp_path: Path) -> None:
    brick = MESHES["brick"]
    far = Mesh(brick.vertices_m + 1.0, brick.faces, brick.normals, brick.colors)
    write_ply(tmp_path / "far.ply", far)
    warnings = import_mesh(tmp_path / "far.ply").report.warnings
    assert any("origin is 1.732 m from its centre" in text for text in warnings)


def test_normals_are_made_with_sharp_edges_where_the_file_has_none(tmp_path: Path) -> None:
    cube = ["0 0 0", "0 0 .1", "0 .1 0", "0 .1 .1", ".1 0 0", ".1 0 .1", ".1 .1 0", ".1 .1 .1"]
    quads = ["4 0 1 3 2", "4 4 6 7 5", "4 0 4 5 1", "4 2 3 7 6", "4 0 2 6 4", "4 1 5 7 3"]
    imported = import_mesh(_text_ply(tmp_path / "cube.ply", cube, quads))
    assert imported.report.rewritten and len(imported.mesh.vertices_m) == 24
    np.testing.assert_allclose(np.abs(imported.mesh.normals).max(axis=1), 1)


def test_too_many_faces_are_reduced_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fast_simplification")
    mug = Path(__file__).parents[2] / "config" / "objects" / "demo" / "mug.ply"
    monkeypatch.setattr(mesh_import, "MAX_FACES", 2000)
    said: list[str] = []
    imported = import_mesh(mug, notify=said.append)
    assert len(imported.mesh.faces) <= 2000 and imported.report.rewritten
    assert imported.report.faces_in_file == 5896
    assert any("reducing 5896 faces to 2000, about" in text for text in said)
    assert any("reduced from 5896 to 2000" in text for text in imported.report.warnings)
    np.testing.assert_allclose(imported.mesh.bounds_m, load_ply(mug).bounds_m, atol=0.001)


def test_a_file_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_import, "MAX_FILE_BYTES", 1000)
    path = _write(tmp_path / "brick.ply", MESHES["brick"])
    path.write_bytes(path.read_bytes() + bytes(1000))
    with pytest.raises(DataError, match=r"brick\.ply has .* GB, expected at most"):
        import_mesh(path)


def test_trimesh_missing_says_what_to_install(tmp_path: Path) -> None:
    path = _textured_obj(tmp_path)
    program = (
        "import sys; sys.modules['trimesh'] = None\n"
        "from pathlib import Path\n"
        "from heatnet_ros.mesh_import import import_mesh\n"
        "import_mesh(Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'heatnet_ros[train]'" in done.stderr.splitlines()[-1]


def test_obj_with_texture_survives_to_the_run_time(tmp_path: Path, trimesh: Any) -> None:
    imported = import_mesh(_textured_obj(tmp_path))
    assert imported.report.texture_wh == (64, 64) and imported.report.colors == "texture"
    normalize(imported, tmp_path / "set" / "box.ply")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["box.ply", "box.png"]
    mesh = load_ply(tmp_path / "set" / "box.ply")
    assert mesh.texture is not None
    for corner, rgb in (((0, 0, 0), (0, 0, 255)), ((0.1, 0.1, 0), (0, 255, 0))):
        at = np.linalg.norm(mesh.vertices_m - corner, axis=1) < 1e-6
        assert at.any()
        np.testing.assert_array_equal(mesh.colors[at], [rgb] * at.sum())


def test_obj_with_files_missing(tmp_path: Path, trimesh: Any) -> None:
    path = _textured_obj(tmp_path)
    (tmp_path / "paint.png").unlink()
    with pytest.raises(DataError, match=r"box\.obj: its texture .*paint\.png is missing"):
        import_mesh(path)
    (tmp_path / "box.mtl").unlink()
    report = import_mesh(path).report
    assert any("material file box.mtl is missing" in text for text in report.warnings)
    assert report.texture_wh is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0 0\nv .1 0 0\nv 0 .1 0\n", r"bad\.obj"),
        ("v 0 0 0\nv .1 nan 0\nv 0 .1 0\nf 1 2 3\n", "1 of 3 vertices are not finite"),
        ("v 0 0 0\nv .1 0 0\nv 0 .1 0\nf 1 2 9\n", r"bad\.obj"),
        ("v 0 0 0\nv .1 0 0\nv .2 0 0\nf 1 2 3\n", "no surface"),
        ("this is no mesh\n", r"bad\.obj"),
    ],
)
def test_bad_obj_files(tmp_path: Path, trimesh: Any, text: str, message: str) -> None:
    (tmp_path / "bad.obj").write_text(text)
    with pytest.raises(DataError, match=message):
        import_mesh(tmp_path / "bad.obj")


@pytest.mark.parametrize("suffix", [".stl", ".glb", ".obj"])
@pytest.mark.parametrize(
    "content", [b"\x00" * 90, b"glTF\x02\x00\x00\x00junk", b"\xff\xfe\x00" * 99]
)
def test_junk_of_every_format(tmp_path: Path, trimesh: Any, suffix: str, content: bytes) -> None:
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"junk\."):
        import_mesh(path)


def test_stl_in_millimetres(tmp_path: Path, trimesh: Any) -> None:
    brick = MESHES["brick"]
    for binary in (True, False):
        path = tmp_path / f"brick{binary}.stl"
        mesh = trimesh.Trimesh(brick.vertices_m * 1000, brick.faces)
        mesh.export(path, file_type="stl" if binary else "stl_ascii")
        imported = import_mesh(path)
        assert imported.report.unit == "mm" and imported.report.watertight
        assert imported.report.size_m == pytest.approx(BRICK_SIZE_M)
        assert imported.report.bodies == 1 and imported.report.colors == "one colour"
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match=r"brick.*\.stl"):
            import_mesh(path)


def test_glb_with_parts_nodes_and_material_colours(tmp_path: Path, trimesh: Any) -> None:
    scene = trimesh.Scene()
    for i, color in enumerate(([255, 0, 0, 255], [0, 0, 255, 255])):
        box = trimesh.creation.box((0.1, 0.02, 0.02))
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=color)
        box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
        turn = trimesh.transformations.rotation_matrix(np.pi / 2 * i, [0, 0, 1])
        turn[2, 3] = 0.1 * i
        scene.add_geometry(box, transform=turn)
    (tmp_path / "two.glb").write_bytes(scene.export(file_type="glb"))
    imported = import_mesh(tmp_path / "two.glb")
    assert imported.report.bodies == 2 and imported.report.unit_reason == "glTF is in metres"
    np.testing.assert_allclose(
        imported.mesh.bounds_m, [[-0.05, -0.05, -0.01], [0.05, 0.05, 0.11]], atol=1e-6
    )
    high = imported.mesh.vertices_m[:, 2] > 0.05
    np.testing.assert_array_equal(np.unique(imported.mesh.colors[high], axis=0), [[0, 0, 255]])
    np.testing.assert_array_equal(np.unique(imported.mesh.colors[~high], axis=0), [[255, 0, 0]])
    # the second is turned: long in y
    assert np.ptp(imported.mesh.vertices_m[high], axis=0) == pytest.approx([0.02, 0.1, 0.02])


def test_glb_factors_are_linear_and_points_alone_no_mesh(tmp_path: Path, trimesh: Any) -> None:
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[128, 128, 128, 255])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.export(tmp_path / "grey.glb")
    colors = import_mesh(tmp_path / "grey.glb").mesh.colors
    assert set(colors.ravel()) == {188}  # 1.055 * (128 / 255) ** (1 / 2.4) - 0.055
    scene = trimesh.Scene([trimesh.PointCloud(np.random.default_rng(0).random((9, 3)))])
    (tmp_path / "points.glb").write_bytes(scene.export(file_type="glb"))
    with pytest.raises(DataError, match=r"points\.glb has no faces \(a point cloud"):
        import_mesh(tmp_path / "points.glb")


def test_colours_of_faces_and_vertices(tmp_path: Path, trimesh: Any) -> None:
    box = trimesh.creation.box((0.1, 0.1, 0.1))
    box.visual.vertex_colors = [[10 * i, 0, 0, 255] for i in range(8)]
    box.export(tmp_path / "v.glb")
    imported = import_mesh(tmp_path / "v.glb")
    assert imported.report.colors == "varied"
    assert set(imported.mesh.colors[:, 0]) == {10 * i for i in range(8)}


@pytest.mark.skipif(not YCB.exists(), reason=f"{YCB} is absent")
def test_ycb_meshes(tmp_path: Path, trimesh: Any) -> None:
    for name in ("010_potted_meat_can", "025_mug"):
        imported = import_mesh(YCB / name / "textured.obj")
        assert imported.report.unit == "m" and imported.report.texture_wh == (2048, 2048)
        assert 0.12 < imported.report.diameter_m < 0.14
        normalize(imported, tmp_path / f"{name}.ply")
        back = load_ply(tmp_path / f"{name}.ply")
        np.testing.assert_allclose(back.vertices_m, imported.mesh.vertices_m, atol=1e-7)
        np.testing.assert_array_equal(back.texture, imported.mesh.texture)
        assert np.ptp(back.colors, axis=0).min() > 100


@pytest.mark.skipif(not LM.exists(), reason=f"{LM} is absent")
def test_linemod_is_used_in_place(tmp_path: Path) -> None:
    shutil.copy(LM / "obj_000001.ply", tmp_path)
    report = import_mesh(tmp_path / "obj_000001.ply").report
    assert (report.unit, report.rewritten, report.colors) == ("mm", False, "varied")
    assert report.diameter_m == pytest.approx(0.102099, rel=1e-3)
