"""Linemod_preprocessed folders as they are published, made small."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from heatnet_ros.datasets import linemod
from heatnet_ros.datasets.bop import object_id
from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3

K_TEXT = "[572.4114, 0.0, 325.2611, 0.0, 573.57043, 242.04899, 0.0, 0.0, 1.0]"
SIZE_HW = (24, 32)


def rotation(frame: int) -> np.ndarray:
    return se3.exp_so3(np.array([0.1 * frame, -0.2, 1.0]))


def truth_text(frame: int, obj_id: int) -> str:
    R = ", ".join(f"{value:.8f}" for value in rotation(frame).ravel())
    return (
        f"- cam_R_m2c: [{R}]\n"
        f"  cam_t_m2c: [-105.35775150, -117.52119142, {1000 + frame}.5]\n"
        f"  obj_bb: [4, 5, 6, 7]\n"
        f"  obj_id: {obj_id}\n"
    )


def write_folder(folder: Path, count: int, objects: tuple[int, ...] | None = None) -> Path:
    """An object folder such as data/01: one image in five trains, the others test."""
    objects = objects or (int(folder.name),)
    for kind in ("rgb", "depth", "mask"):
        (folder / kind).mkdir(parents=True)
    color = np.zeros((*SIZE_HW, 3), np.uint8)
    color[:, :, 2] = 200  # red, in OpenCV's order
    mask = np.zeros((*SIZE_HW, 3), np.uint8)
    mask[5:12, 4:10] = 255
    depth = np.full(SIZE_HW, 1200, np.uint16)
    for frame in range(count):
        cv2.imwrite(str(folder / "rgb" / f"{frame:04d}.png"), color)
        cv2.imwrite(str(folder / "depth" / f"{frame:04d}.png"), depth)
        cv2.imwrite(str(folder / "mask" / f"{frame:04d}.png"), mask)
    truths = (f"{i}:\n" + "".join(truth_text(i, obj) for obj in objects) for i in range(count))
    (folder / "gt.yml").write_text("".join(truths))
    cameras = (f"{i}:\n  cam_K: {K_TEXT}\n  depth_scale: 1.0\n" for i in range(count))
    (folder / "info.yml").write_text("".join(cameras))
    train = range(0, count, 5)
    (folder / "train.txt").write_text("".join(f"{i:04d}\n" for i in train))
    # the published lists end without a line break
    (folder / "test.txt").write_text("\n".join(f"{i:04d}" for i in range(count) if i not in train))
    return folder


@pytest.fixture
def ape(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data" / "01", 6)


def test_poses_in_metres_with_lm_names(ape: Path):
    scene = linemod.load_linemod_scene(ape)
    assert (scene.dataset, scene.scene_id, scene.has_truth) == ("lm", 1, True)
    assert [image.image_id for image in scene.images] == [0, 1, 2, 3, 4, 5]
    (truth,) = scene.images[3].truths
    expected = se3.make_transform(rotation(3), np.array([-0.1053577515, -0.11752119142, 1.0035]))
    np.testing.assert_allclose(truth.T_camera_object, expected, atol=1e-8)
    assert scene.name_of(truth.obj_id) == "ape"
    assert object_id("ape", scene.dataset, scene.object_names) == 1
    assert truth.bbox_xyxy_px == (4, 5, 9, 11)  # last pixel included
    assert truth.visible_fraction is None


def test_pixels(ape: Path):
    image = linemod.load_linemod_scene(ape).images[0]
    frame = image.load_frame()
    assert frame.rgb[3, 3].tolist() == [200, 0, 0]
    assert frame.depth_m is not None
    assert frame.depth_m[3, 3] == pytest.approx(1.2)
    assert frame.K[0].tolist() == [572.4114, 0.0, 325.2611]
    mask = image.load_mask(0, frame.size_hw)  # published with three channels
    assert mask.shape == SIZE_HW
    assert np.argwhere(mask).min(axis=0).tolist() == [5, 4]
    assert mask.sum() == 42


def test_only_the_wanted_images(ape: Path):
    train = linemod.load_frame_list(ape / "train.txt")
    test = linemod.load_frame_list(ape / "test.txt")
    assert (train, test) == ([0, 5], [1, 2, 3, 4])
    images = linemod.load_linemod_scene(ape, train).images
    assert [image.rgb_path.name for image in images] == ["0000.png", "0005.png"]


def test_folder_02_keeps_its_own_object_unless_all_are_asked_for(tmp_path: Path):
    folder = write_folder(tmp_path / "data" / "02", 2, objects=(5, 2, 1))
    image = linemod.load_linemod_scene(folder).images[1]
    assert [truth.obj_id for truth in image.truths] == [2]
    assert image.load_mask(0).sum() == 42
    everything = linemod.load_linemod_scene(folder, all_objects=True).images[1]
    assert [truth.obj_id for truth in everything.truths] == [5, 2, 1]
    assert [path is not None for path in everything.mask_visib_paths] == [False, True, False]


def test_a_missing_depth_image_means_none(ape: Path):
    (ape / "depth" / "0002.png").unlink()
    image = linemod.load_linemod_scene(ape).images[2]
    assert image.depth_path is None
    assert image.load_frame().depth_m is None


@pytest.mark.parametrize("name", ["gt.yml", "info.yml"])
def test_missing_files_are_named(ape: Path, name: str):
    (ape / name).unlink()
    with pytest.raises(DataError, match=rf"{name} cannot be read: No such file"):
        linemod.load_linemod_scene(ape)


def test_a_missing_image_is_named_before_work_begins(ape: Path):
    (ape / "rgb" / "0004.png").unlink()
    with pytest.raises(DataError, match=r"rgb/0004\.png does not exist, gt\.yml describes it"):
        linemod.load_linemod_scene(ape)
    assert len(linemod.load_linemod_scene(ape, [1, 2]).images) == 2


@pytest.mark.parametrize("name", ["gt.yml", "info.yml"])
def test_files_cut_off_anywhere_are_noticed(ape: Path, name: str):
    """Wherever the cut is: inside a number it may still be valid YAML."""
    whole = (ape / name).read_text()
    for stop in range(0, len(whole) - 1, 11):
        (ape / name).write_text(whole[:stop])
        if stop >= len(whole.rstrip()) - 2:
            continue  # only digits of the last number are gone: nothing tells
        with pytest.raises(DataError, match=r"gt\.yml|info\.yml"):
            linemod.load_linemod_scene(ape)


def test_not_yaml(ape: Path):
    (ape / "gt.yml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match=r"gt\.yml is not text"):
        linemod.load_linemod_scene(ape)
    (ape / "gt.yml").write_text("0: [1, 2\n1: }")
    with pytest.raises(DataError, match=r"(?s)gt\.yml is not valid YAML.*download it again"):
        linemod.load_linemod_scene(ape)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("obj_id: 1\n4:", "obj_id: 3\n4:", r"entry 3: object 1 of this folder is not in it"),
        ("obj_bb: [4, 5, 6, 7]", "obj_bb: [4, 5, 6]", r"gt\.yml, entry 0: missing or malformed"),
        ("cam_t_m2c", "cam_t", r"gt\.yml, entry 0: .*cam_t_m2c"),
        ("[-105.35775150,", "[.nan,", r"entry 0: .*not finite"),
        ("cam_R_m2c: [", "cam_R_m2c: [9", r"entry 0: .*not orthonormal"),
        ("0:\n-", "zero:\n-", r"gt\.yml: expected entries numbered"),
    ],
)
def test_wrong_entries_name_file_and_entry(ape: Path, old: str, new: str, message: str):
    text = (ape / "gt.yml").read_text()
    assert old in text
    (ape / "gt.yml").write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        linemod.load_linemod_scene(ape)


def test_a_split_beyond_the_annotations(ape: Path):
    with pytest.raises(DataError, match=r"gt\.yml describes no image 6, which its split has"):
        linemod.load_linemod_scene(ape, [0, 6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0001\n00x2\n", r"train\.txt, line 2: expected the number of an image.*'00x2'"),
        ("0001\n0002\n0001\n", r"train\.txt, line 3: .*each once"),
        ("\n", r"train\.txt lists no image"),
    ],
)
def test_damaged_lists(ape: Path, text: str, message: str):
    (ape / "train.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        linemod.load_frame_list(ape / "train.txt")


def test_the_folder_must_be_an_objects(tmp_path: Path):
    with pytest.raises(DataError, match="expected an object's number such as 01"):
        linemod.load_linemod_scene(tmp_path)
