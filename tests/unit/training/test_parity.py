"""What the parity check measures, on heatmaps and images whose answer is known."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from heatnet_ros.errors import DataError, ModelError
from heatnet_ros.estimators.heatnet import encode_heatmaps
from heatnet_ros.geometry.camera import project
from heatnet_ros.geometry.se3 import exp_so3, make_transform, transform
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.resources import find_resource
from heatnet_ros.training.parity import (
    PARITY,
    Limits,
    compare_boxes,
    compare_keypoints,
    count_compared,
    find_ambiguous,
    require,
)
from heatnet_ros.training.real_samples import CropSample, CropShape, RealImages, real_crops

pytestmark = pytest.mark.train
LIBRARY = load_objects(find_resource("config/objects/demo.yaml", "Object library"))
MUG = LIBRARY["mug"]
SHAPE = CropShape(128, True, 1.3)
SIDE, STRIDE, SIGMA = 160, 4, 1.2
K = np.array([[600.0, 0, 79.5], [0, 600, 79.5], [0, 0, 1]])
R = exp_so3(np.array([2.2, 0.4, 0.3]))
T_CAMERA_MUG = make_transform(R, np.array([0.0, 0.0, 0.8]) - R @ MUG.bounds_m.mean(axis=0))
MUG_PX = project(transform(T_CAMERA_MUG, MUG.keypoints_m), K)
SAMPLE = CropSample({}, "held out", np.eye(2, 3), K, MUG)


def heatmaps(points_px: np.ndarray) -> dict[str, np.ndarray]:
    cells = (SIDE // STRIDE, SIDE // STRIDE)
    return {"heatmaps": encode_heatmaps(points_px, cells, STRIDE, SIGMA)[None]}


def compare(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, float]:
    return compare_keypoints([before], [after], [SAMPLE], STRIDE)


def test_equal_networks_differ_by_nothing():
    found = compare(heatmaps(MUG_PX), heatmaps(MUG_PX))
    assert found["keypoints"] == len(MUG_PX) and found["poses"] == 1
    assert found["max_px"] == found["max_pose_mm"] == found["ambiguous_keypoints"] == 0
    require(found, PARITY, "It", "")


def test_one_moved_keypoint_is_the_largest_difference():
    moved = MUG_PX.copy()
    moved[3, 0] += 0.2
    found = compare(heatmaps(MUG_PX), heatmaps(moved))
    assert found["max_px"] == pytest.approx(0.2, abs=0.01)
    with pytest.raises(ModelError, match=r"max_px 0\.2\S* \(allowed 0\.1\)"):
        require(found, Limits(max_px=0.1), "It", "")


def test_a_nearer_object_moves_the_pose_by_a_known_length():
    center = MUG_PX.mean(axis=0)
    # 1 % larger in the picture is 1 % nearer
    found = compare(heatmaps(MUG_PX), heatmaps(center + 1.01 * (MUG_PX - center)))
    assert found["max_pose_mm"] == pytest.approx(8.0, rel=0.1)
    assert found["max_add_mm"] == pytest.approx(8.0, rel=0.1)
    with pytest.raises(ModelError, match=r"max_pose_mm .*\(allowed 0\.1\)"):
        require(found, Limits(max_pose_mm=0.1), "It", "")


def test_a_pose_that_is_lost_differs_by_infinity():
    lost = {"heatmaps": np.zeros_like(heatmaps(MUG_PX)["heatmaps"])}
    assert compare(heatmaps(MUG_PX), lost)["max_pose_mm"] == np.inf


def test_two_equal_peaks_are_ambiguous_two_different_ones_and_neighbours_are_not():
    one, other = np.array([[40.0, 40.0]]), np.array([[100.0, 90.0]])
    first, second = heatmaps(one)["heatmaps"][0], heatmaps(other)["heatmaps"][0]
    second *= first.max() / second.max()
    between = heatmaps(np.array([[41.5, 41.5]]))["heatmaps"][0]  # four pixels share the maximum
    maps = np.concatenate([first, first + 0.995 * second, first + 0.95 * second, between])
    assert find_ambiguous(maps).tolist() == [False, True, False, False]


def test_ambiguous_keypoints_are_told_and_too_many_are_refused():
    after = heatmaps(MUG_PX)
    before = {"heatmaps": after["heatmaps"].copy()}
    second = heatmaps(np.full_like(MUG_PX, 12.0))["heatmaps"][0, 0]
    height = before["heatmaps"][0, 0].max() / second.max()
    before["heatmaps"][0, 0] += 0.998 * height * second
    after["heatmaps"][0, 0] += 1.002 * height * second
    found = compare(before, after)
    assert found["ambiguous_keypoints"] == 1 and found["ambiguous_max_px"] > 20
    assert found["max_px"] < 0.01 and found["max_pose_mm"] < 0.01
    require(found, Limits(max_px=0.1, max_ambiguous=0.1), "It", "")
    with pytest.raises(ModelError, match="max_ambiguous"):
        require(found, Limits(max_px=0.1, max_ambiguous=0.01), "It", "")


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ModelError, match="max_heatmap inf"):
        broken = {"heatmaps": np.full_like(heatmaps(MUG_PX)["heatmaps"], np.nan)}
        require(compare(heatmaps(MUG_PX), broken), PARITY, "It", "")
    with pytest.raises(ModelError, match="max_px nan"):
        require({"max_px": float("nan")}, Limits(max_px=0.1), "It", "")


def test_a_network_that_is_sure_of_nothing_is_told_or_refused(capsys):
    flat = {"heatmaps": np.full_like(heatmaps(MUG_PX)["heatmaps"], 1e-3)}
    found = compare(flat, flat)
    require(found, PARITY, "It", "")  # nothing differs, because nothing is compared
    assert count_compared(found, 1, refuse=False) == {"keypoints": 0, "poses": 0}
    said = capsys.readouterr().out
    assert "warning: in 1 samples no keypoints and no poses" in said and "Train longer" in said
    with pytest.raises(ModelError, match=r"no keypoints and no poses.*sure of nothing.*Train long"):
        count_compared(found, 1, refuse=True)


def test_keypoints_without_a_pose_are_refused_and_what_is_compared_is_counted(capsys):
    two = {"heatmaps": heatmaps(MUG_PX)["heatmaps"].copy()}
    two["heatmaps"][0, 2:] = 1e-3  # no pose from two points
    with pytest.raises(ModelError, match="samples no poses could"):
        count_compared(compare(two, two), 1, refuse=True)
    found = compare(heatmaps(MUG_PX), heatmaps(MUG_PX))
    assert count_compared(found, 1, refuse=True) == {"keypoints": len(MUG_PX), "poses": 1}
    with pytest.raises(ModelError, match="no boxes"):
        count_compared(compare_boxes([], []), 3, refuse=True)
    assert capsys.readouterr().out == ""


def test_boxes_are_compared_with_the_nearest_of_their_class():
    rows = np.array([[0, 0, 9, 9, 0.9, 1], [5, 5, 8, 8, 0.8, 0], [1, 1, 3, 3, 0.1, 0]], np.float32)
    other = rows[::-1].copy()
    other[2, 2] += 0.25
    found = compare_boxes([{"detections": rows[None]}], [{"detections": other[None]}])
    assert found["boxes"] == 2 and found["max_px"] == pytest.approx(0.25)
    other[:, 5] = 0
    found = compare_boxes([{"detections": rows[None]}], [{"detections": other[None]}])
    assert found["max_px"] == np.inf


def write_dataset(folder: Path, obj_name: str) -> None:
    """One image with a white dot where the mug's first keypoint is."""
    scene = folder / "test" / "000001"
    for name in ("rgb", "depth"):
        (scene / name).mkdir(parents=True)
    center = np.array([400.0, 200.0])
    camera = K.copy()
    camera[:2, 2] = center
    x, y = np.rint(project(transform(T_CAMERA_MUG, MUG.keypoints_m[:1]), camera)[0]).astype(int)
    image = np.zeros((480, 640, 3), np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    cv2.imwrite(str(scene / "rgb" / "000000.png"), image)
    cv2.imwrite(str(scene / "depth" / "000000.png"), np.full((480, 640), 800, np.uint16))
    R, t = T_CAMERA_MUG[:3, :3].ravel().tolist(), (1e3 * T_CAMERA_MUG[:3, 3]).tolist()
    truth = {"obj_id": 1, "cam_R_m2c": R, "cam_t_m2c": t}
    box = {"bbox_visib": [330, 130, 140, 140], "visib_fract": 0.9}
    for name, content in (
        ("scene_camera", {"cam_K": camera.ravel().tolist(), "depth_scale": 1.0}),
        ("scene_gt", [truth]),
        ("scene_gt_info", [box]),
    ):
        (scene / f"{name}.json").write_text(json.dumps({"0": content}))
    (folder / "models").mkdir()
    (folder / "models" / "models_info.json").write_text(json.dumps({"1": {"name": obj_name}}))


def test_real_crops_lie_where_the_truth_projects(tmp_path):
    write_dataset(tmp_path / "mine", "mug")
    (sample,) = real_crops(
        RealImages(tmp_path / "mine", "test"), LIBRARY, CropShape(128, True, 1.3)
    )
    assert sample.origin == "real" and sample.model is MUG
    assert sample.feed["object_index"].tolist() == [list(LIBRARY.objects).index("mug")]
    assert sample.feed["depth"].shape == (1, 2, 128, 128) and sample.feed["depth"][0, 1].all()
    keypoint = project(transform(T_CAMERA_MUG, MUG.keypoints_m[:1]), sample.K)[0]
    expected = sample.warp[:, :2] @ keypoint + sample.warp[:, 2]
    weight = sample.feed["rgb"][0, ..., 0].astype(float)
    ys, xs = np.mgrid[:128, :128]
    centroid = np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(centroid, expected, atol=0.6)  # the dot sits on whole pixels


def test_images_without_the_objects_are_refused(tmp_path):
    write_dataset(tmp_path / "mine", "teapot")
    with pytest.raises(DataError, match="shows none of bracket, valve, mug"):
        real_crops(RealImages(tmp_path / "mine", "test"), LIBRARY, SHAPE)


def test_an_object_whose_visibility_nobody_states_is_taken(tmp_path):
    """Linemod_preprocessed has no visible fractions; BOP's without scene_gt_info has no boxes."""
    scene = tmp_path / "data" / "01"
    for name, picture in (
        ("rgb", np.full((240, 320, 3), 90, np.uint8)),
        ("depth", np.full((240, 320), 800, np.uint16)),
    ):
        (scene / name).mkdir(parents=True)
        cv2.imwrite(str(scene / name / "0000.png"), picture)
    (scene / "test.txt").write_text("0000\n")
    matrix = "[600.0, 0.0, 160.0, 0.0, 600.0, 120.0, 0.0, 0.0, 1.0]"
    (scene / "info.yml").write_text(f"0:\n  cam_K: {matrix}\n  depth_scale: 1.0\n")
    (scene / "gt.yml").write_text(
        "0:\n- cam_R_m2c: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]\n"
        "  cam_t_m2c: [0.0, 0.0, 800.0]\n  obj_bb: [120, 90, 60, 50]\n  obj_id: 1\n"
    )
    ape = dataclasses.replace(MUG, name="ape")
    library = ObjectLibrary("lm", {"ape": ape}, tmp_path / "lm.yaml")
    (sample,) = real_crops(RealImages(tmp_path, "test"), library, SHAPE)
    assert sample.model is ape and sample.feed["depth"].shape == (1, 2, 128, 128)


def test_an_object_that_is_hidden_is_left_out(tmp_path):
    write_dataset(tmp_path / "mine", "mug")
    path = tmp_path / "mine" / "test" / "000001" / "scene_gt_info.json"
    path.write_text(path.read_text().replace("0.9", "0.05"))
    with pytest.raises(DataError, match="shows none of"):
        real_crops(RealImages(tmp_path / "mine", "test"), LIBRARY, SHAPE)
