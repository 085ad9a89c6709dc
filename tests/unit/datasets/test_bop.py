import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from heatnet_ros.datasets import bop
from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3

SHARED = Path(__file__).parents[4] / "shared" / "data"
LMO_SCENE = SHARED / "lmo" / "test" / "000002"
K = [600.0, 0, 10, 0, 610, 8, 0, 0, 1]
R = se3.exp_so3(np.array([0.3, -0.2, 1.0]))


def write_scene(folder: Path, depth_hw: tuple[int, int] = (16, 20)) -> Path:
    """Two images; the second has no depth. depth_scale 0.1: depth in tenths of a millimetre."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    image = np.zeros((16, 20, 3), np.uint8)
    image[:, :, 2] = 200  # red, in OpenCV's order
    for image_id in (10, 2):
        cv2.imwrite(str(folder / "rgb" / f"{image_id:06d}.png"), image)
    depth = np.full(depth_hw, 8000, np.uint16)
    depth[0, 0] = 0
    cv2.imwrite(str(folder / "depth" / "000002.png"), depth)
    camera = {"cam_K": K, "depth_scale": 0.1}
    pose = {"obj_id": 5, "cam_R_m2c": R.ravel().tolist(), "cam_t_m2c": [10.0, -20.0, 800.0]}
    info = {"visib_fract": 0.75, "bbox_visib": [3, 4, 5, 6]}
    hidden = {"visib_fract": 0.0, "bbox_visib": [-1, -1, -1, -1]}
    files = {
        "scene_camera.json": {"10": camera, "2": camera},
        "scene_gt.json": {"10": [pose], "2": [pose, pose]},
        "scene_gt_info.json": {"10": [info], "2": [info, hidden]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def scene_folder(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "lmo" / "test" / "000007")


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_scene_in_metres_sorted_by_image_id(scene_folder: Path):
    scene = bop.load_scene(scene_folder)
    assert (scene.scene_id, scene.dataset, scene.has_truth) == (7, "lmo", True)
    assert [image.image_id for image in scene.images] == [2, 10]
    first, hidden = scene.images[0].truths
    np.testing.assert_allclose(first.T_camera_object, se3.make_transform(R, [0.01, -0.02, 0.8]))
    assert first.visible_fraction == 0.75
    assert first.bbox_xyxy_px == (3, 4, 7, 9)  # last pixel included
    assert (hidden.visible_fraction, hidden.bbox_xyxy_px) == (0.0, None)


def test_frame_has_rgb_order_and_depth_in_metres(scene_folder: Path):
    with_depth, without = bop.load_scene(scene_folder).images
    frame = with_depth.load_frame()
    assert frame.rgb[5, 5].tolist() == [200, 0, 0]
    assert frame.depth_m is not None
    assert frame.depth_m.dtype == np.float32
    assert frame.depth_m[0, 0] == 0
    assert frame.depth_m[1, 1] == pytest.approx(0.8)
    assert frame.K.ravel().tolist() == K
    assert without.depth_path is None
    assert without.load_frame().depth_m is None


def test_listing_a_scene_reads_no_pixels(scene_folder: Path):
    for path in (scene_folder / "rgb").iterdir():
        path.write_bytes(b"")
    images = bop.load_scene(scene_folder).images
    with pytest.raises(DataError, match=r"000002\.png cannot be decoded.*copy it again"):
        images[0].load_frame()


def test_missing_image_is_named(scene_folder: Path):
    (scene_folder / "rgb" / "000010.png").unlink()
    with pytest.raises(DataError, match=r"000010\.png does not exist"):
        bop.load_scene(scene_folder).images[1].load_frame()


def test_depth_of_another_size_says_both_sizes(tmp_path: Path):
    scene = bop.load_scene(write_scene(tmp_path / "000001", depth_hw=(8, 10)))
    with pytest.raises(DataError, match=r"depth.000002\.png is 10x8.*20x16.*[Aa]lign"):
        scene.images[0].load_frame()


def test_coloured_depth_is_refused(scene_folder: Path):
    cv2.imwrite(str(scene_folder / "depth" / "000002.png"), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(DataError, match="expected one channel of 16 bit or float"):
        bop.load_scene(scene_folder).images[0].load_frame()


def test_scene_without_truth(scene_folder: Path):
    """BOP keeps the truth of some test splits secret: then no scene of them has it."""
    (scene_folder / "scene_gt.json").unlink()
    scene = bop.load_scene(scene_folder)
    assert not scene.has_truth
    assert (scene.images[0].truths, scene.images[0].truth_known) == ((), False)
    (scene_folder / "scene_gt_info.json").unlink()
    (scene,) = bop.load_split(scene_folder.parent)
    assert not scene.has_truth


def test_an_image_without_objects_is_not_one_without_truth(scene_folder: Path):
    for name in ("scene_gt.json", "scene_gt_info.json"):
        change(scene_folder / name, lambda c: c.update({"2": []}))
        change(scene_folder / name, lambda c: c.pop("10"))
    empty, unknown = bop.load_scene(scene_folder).images
    assert empty.truths == unknown.truths == ()
    assert (empty.truth_known, unknown.truth_known) == (True, False)


def test_truth_without_visibility_is_noted(scene_folder: Path, capsys):
    (scene_folder / "scene_gt_info.json").unlink()
    (scene,) = bop.load_split(scene_folder.parent)
    assert scene.images[0].truths[0].visible_fraction is None
    assert f"{scene_folder.parent} has no scene_gt_info.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scene_gt.json", "scene_gt_info.json"])
def test_a_scene_that_lost_its_truth_among_others_is_named(tmp_path: Path, name: str):
    split = tmp_path / "parts" / "train"
    for scene in ("000000", "000001", "000002"):
        write_scene(split / scene)
    (split / "000001" / name).unlink()
    with pytest.raises(DataError, match=rf"000001/{name} is missing: 1 of the 3 scenes.*in none"):
        bop.load_split(split)


def test_missing_depth_is_counted_and_said_once(tmp_path: Path, capsys):
    for scene in ("000000", "000001"):
        write_scene(tmp_path / "parts" / "train" / scene)
    for _ in range(2):
        bop.load_split(tmp_path / "parts" / "train")
    said = capsys.readouterr().err
    assert said.count("note: 2 of the 4 images") == 1
    for path in tmp_path.rglob("depth/*"):
        path.unlink()
    bop.load_split(tmp_path / "parts" / "train")  # colour only
    assert capsys.readouterr().err == ""


def test_missing_and_damaged_json_are_named(scene_folder: Path):
    (scene_folder / "scene_gt.json").write_text('{"2": [{"obj_id": 5, ')
    with pytest.raises(DataError, match=r"scene_gt\.json is not valid JSON.*download it again"):
        bop.load_scene(scene_folder)
    (scene_folder / "scene_camera.json").unlink()
    with pytest.raises(DataError, match=r"scene_camera\.json cannot be read: No such file"):
        bop.load_scene(scene_folder)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("scene_camera.json", lambda c: c["2"].pop("cam_K"), r"entry 2: missing or .*'cam_K'"),
        ("scene_camera.json", lambda c: c["10"].update(cam_K=[1, 2]), "entry 10: missing or"),
        ("scene_camera.json", lambda c: c.update(x={}), "entry x: missing or malformed"),
        ("scene_gt.json", lambda c: c["2"][0].pop("cam_t_m2c"), r"entry 2: .*cam_t_m2c"),
        ("scene_gt.json", lambda c: c["2"][0].update(cam_R_m2c=[2, 0, 0] * 3), "not orthonormal"),
        ("scene_gt_info.json", lambda c: c["2"].pop(), r"image 2 has 1 entries.* has 2"),
        ("scene_gt_info.json", lambda c: c.pop("10"), r"image 10 has 0 entries.* has 1"),
    ],
)
def test_wrong_entries_name_file_and_entry(scene_folder: Path, name: str, edit, message: str):
    change(scene_folder / name, edit)
    with pytest.raises(DataError, match=message):
        bop.load_scene(scene_folder)


def test_scaled_rotations_of_the_data_set_become_rotations(scene_folder: Path):
    def scale(content: dict) -> None:
        content["10"][0]["cam_R_m2c"] = (1.005 * R).ravel().tolist()

    change(scene_folder / "scene_gt.json", scale)
    T = bop.load_scene(scene_folder).images[1].truths[0].T_camera_object
    np.testing.assert_allclose(T[:3, :3], R, atol=1e-9)


def test_split_lists_its_scenes(tmp_path: Path):
    for name in ("000003", "000001"):
        write_scene(tmp_path / "lm" / "test" / name)
    assert [scene.scene_id for scene in bop.load_split(tmp_path / "lm" / "test")] == [1, 3]
    with pytest.raises(DataError, match=r"is no BOP split.*lmo/test"):
        bop.load_split(tmp_path / "lm")


def test_scene_folder_must_be_a_number(tmp_path: Path):
    with pytest.raises(DataError, match="expected a number such as 000002"):
        bop.load_scene(write_scene(tmp_path / "kitchen"))


def test_targets(tmp_path: Path):
    path = tmp_path / "targets.json"
    path.write_text('[{"im_id": 3, "inst_count": 2, "obj_id": 5, "scene_id": 1}]')
    assert bop.load_targets(path) == [bop.Target(scene_id=1, image_id=3, obj_id=5, count=2)]
    path.write_text('[{"im_id": 3}]')
    with pytest.raises(DataError, match=r"targets\.json, entry 0: missing or malformed 'scene_id'"):
        bop.load_targets(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="expected a JSON list"):
        bop.load_targets(path)


def test_models_info_in_metres(tmp_path: Path):
    path = tmp_path / "models_info.json"
    S = [-1, 0, 0, 2.0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    entry = {
        "diameter": 150.0,
        "symmetries_discrete": [S],
        "symmetries_continuous": [{"axis": [0, 0, 1], "offset": [1.0, 0, 0]}],
    }
    path.write_text(json.dumps({"4": entry, "9": {"diameter": 99}}))
    infos = bop.load_models_info(path)
    assert infos[4].diameter_m == pytest.approx(0.15)
    discrete, continuous = infos[4].symmetries
    assert discrete["matrix"][:4] == pytest.approx([-1, 0, 0, 0.002])
    assert continuous == {"axis": [0, 0, 1], "continuous": True, "point_m": [0.001, 0, 0]}
    assert infos[9].symmetries == []


def test_names_and_ids():
    assert bop.object_name(5, "lmo") == "can"
    assert bop.object_name(5, "ycbv") == "obj_000005"
    assert bop.object_id("driller", "lm") == 8
    assert bop.object_id("obj_000012", "tless") == 12
    with pytest.raises(DataError, match=r"'mug' has no id in BOP data set 'lmo'.*driller"):
        bop.object_id("mug", "lmo")
    with pytest.raises(DataError, match="'can' has no id in BOP data set 'ycbv'"):
        bop.object_id("can", "ycbv")


def test_results_file(tmp_path: Path):
    T = se3.make_transform(R, np.array([0.01, -0.02, 0.8]))
    path = tmp_path / "out.csv"
    bop.write_results(path, [bop.BopResult(2, 3, 5, 0.875, T, 0.0625)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert path.read_text().splitlines()[0] == "scene_id,im_id,obj_id,score,R,t,time"
    (row,) = rows
    assert [row[key] for key in ("scene_id", "im_id", "obj_id")] == ["2", "3", "5"]
    assert float(row["score"]) == 0.875
    assert float(row["time"]) == 0.0625
    np.testing.assert_allclose(np.array(row["R"].split(), float), R.ravel(), atol=1e-8)
    np.testing.assert_allclose(np.array(row["t"].split(), float), [10, -20, 800], atol=1e-5)


@pytest.mark.skipif(not LMO_SCENE.exists(), reason="../shared/data/lmo is absent")
def test_real_lmo_scene():
    scene = bop.load_scene(LMO_SCENE)
    assert (len(scene.images), scene.dataset) == (50, "lmo")
    assert [image.image_id for image in scene.images if image.depth_path] == [3]
    truths = {bop.object_name(t.obj_id, "lmo"): t for t in scene.images[0].truths}
    np.testing.assert_allclose(
        truths["can"].T_camera_object[:3, 3], [0.13436598, 0.04577287, 0.96478389], atol=1e-8
    )
    frame = scene.images[0].load_frame()
    assert frame.depth_m is not None
    # at the can's pixel the measured depth is the can's, in metres
    x0, y0, x1, y1 = truths["can"].bbox_xyxy_px or (0, 0, 0, 0)
    assert frame.depth_m[int(y0 + y1) // 2, int(x0 + x1) // 2] == pytest.approx(0.94, abs=0.1)
    assert len(bop.load_targets(SHARED / "lmo" / "test_targets_bop19.json")) == 365


def write_names(dataset: Path, names: dict[str, str | None]) -> Path:
    path = dataset / "models" / "models_info.json"
    path.parent.mkdir(exist_ok=True)
    entries = {key: {"diameter": 100.0, "name": name} for key, name in names.items()}
    path.write_text(json.dumps(entries))
    return path


def test_names_of_a_synthesized_set_go_both_ways(tmp_path: Path):
    write_scene(tmp_path / "parts" / "test" / "000000")
    write_names(tmp_path / "parts", {"5": "mug", "2": "can"})
    (scene,) = bop.load_split(tmp_path / "parts" / "test")
    assert scene.object_names == {5: "mug", 2: "can"}
    assert bop.load_scene(scene.folder).object_names == scene.object_names
    assert scene.name_of(5) == "mug"
    assert bop.object_id("mug", scene.dataset, scene.object_names) == 5
    # an id without a name keeps BOP's; a named one is known by its name only
    assert bop.object_id(scene.name_of(7), scene.dataset, scene.object_names) == 7
    with pytest.raises(DataError, match=r"'obj_000005' has no id.*mug, can"):
        bop.object_id("obj_000005", scene.dataset, scene.object_names)


def test_names_in_the_file_prevail_over_linemods(tmp_path: Path):
    write_scene(tmp_path / "lm" / "test" / "000001")
    write_names(tmp_path / "lm", {"5": "tin"})
    (scene,) = bop.load_split(tmp_path / "lm" / "test")
    assert (scene.name_of(5), scene.name_of(1)) == ("tin", "ape")
    assert bop.object_id("tin", "lm", scene.object_names) == 5
    assert bop.object_id("ape", "lm", scene.object_names) == 1


def test_bops_own_sets_name_nothing(tmp_path: Path):
    assert bop.load_object_names(tmp_path) == {}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models_info.json").write_text('{"5": {"diameter": 1.0}}')
    assert bop.load_object_names(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": {"name": "mug"}, "2": {"name": "mug"}}', r"entry 2: expected a name of its own"),
        ('{"1": {"name": ""}}', r"entry 1: expected a name of its own for each object, got ''"),
        ('{"x": {"name": "mug"}}', r"models_info\.json, entry x: missing or malformed"),
        ('{"1": 5}', r"models_info\.json, entry 1: missing or malformed"),
        ('{"1": ', r"models_info\.json is not valid JSON"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, content: str, message: str):
    write_names(tmp_path, {}).write_text(content)
    with pytest.raises(DataError, match=message):
        bop.load_object_names(tmp_path)


def test_masks_one_for_each_truth(scene_folder: Path):
    seen = np.zeros((16, 20), bool)
    seen[4:10, 3:8] = True
    (scene_folder / "mask_visib").mkdir()
    path = scene_folder / "mask_visib" / "000002_000000.png"
    second = scene_folder / "mask_visib" / "000010_000000.png"
    for name in (path, second):
        cv2.imwrite(str(name), seen.astype(np.uint8) * 255)
    image, other = bop.load_scene(scene_folder).images
    # what is hidden altogether needs none
    assert image.mask_visib_paths == (path, None)
    assert other.mask_visib_paths == (second,)
    mask = image.load_mask(0, (16, 20))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, seen)
    with pytest.raises(DataError, match=r"image 2 has no visible mask of its object 1.*000002_00"):
        image.load_mask(1)
    with pytest.raises(DataError, match=r"is 20x16, the colour image is 40x30"):
        image.load_mask(0, (30, 40))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"000002_000000\.png cannot be decoded"):
        image.load_mask(0)
    path.unlink()
    with pytest.raises(DataError, match=r"000002_000000\.png does not exist"):
        image.load_mask(0)


def test_a_missing_mask_among_others_is_named(scene_folder: Path):
    (scene_folder / "mask_visib").mkdir()
    mask = np.full((16, 20), 255, np.uint8)
    cv2.imwrite(str(scene_folder / "mask_visib" / "000010_000000.png"), mask)
    with pytest.raises(
        DataError, match=r"000002_000000\.png is missing: .* lacks 1 of the 2 masks"
    ):
        bop.load_scene(scene_folder)
    # parts of a data set keep the annotations of images that they do not have
    (scene_folder / "rgb" / "000002.png").unlink()
    assert len(bop.load_scene(scene_folder).images) == 2


def test_grey_images_and_tif_are_found(scene_folder: Path):
    """ITODD has gray/ instead of rgb/, and TIFF files."""
    (scene_folder / "rgb" / "000010.png").unlink()
    (scene_folder / "gray").mkdir()
    cv2.imwrite(str(scene_folder / "gray" / "000010.tif"), np.full((16, 20), 90, np.uint8))
    cv2.imwrite(str(scene_folder / "depth" / "000010.tif"), np.full((16, 20), 7000, np.uint16))
    frame = bop.load_scene(scene_folder).images[1].load_frame()
    assert frame.rgb[0, 0].tolist() == [90, 90, 90]
    assert frame.depth_m is not None
    assert frame.depth_m[0, 0] == pytest.approx(0.7)


def test_a_pose_with_nan_is_damaged(scene_folder: Path):
    change(
        scene_folder / "scene_gt.json", lambda c: c["2"][0].update(cam_t_m2c=[1, float("nan"), 2])
    )
    with pytest.raises(DataError, match=r"entry 2: .*not finite"):
        bop.load_scene(scene_folder)
