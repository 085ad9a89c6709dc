"""Crops in training: pictures, masks, coordinates and keypoints move together."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is in the train extra (make test-train)")

from sphere_crops import RADIUS_M, SIZE, K, make_crops, sphere_model

from heatnet_ros.datasets.crop_cache import DEPTH_STEP_M
from heatnet_ros.datasets.shards import write_shard
from heatnet_ros.errors import DataError
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import project, scale_points
from heatnet_ros.training.augment import AugmentConfig
from heatnet_ros.training.crops import (
    LEAST_VISIBLE,
    CropMaker,
    choose_warp,
    crop_sample,
    load_crops,
    mask_from_depth,
    strength_at,
)

pytestmark = pytest.mark.train
OFF = AugmentConfig(rotate_deg=0.0, zoom=0.0, shift=0.0, sensor=0.0, depth_sensor=0.0, cutout=0.0)


def maker(crops, augment=OFF, dense=True, **changes) -> CropMaker:
    arguments = {"crop_px": 128, "stride": 4, "margin": 1.3, "rgbd": True, **changes}
    return CropMaker(crops, [sphere_model()], augment=augment, dense=dense, **arguments)


def warp_of(crops, i, augment, seed):
    return choose_warp(crops["box"][i], 128, 1.3, augment, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "augment",
    [OFF, AugmentConfig(rotate_deg=180, zoom=0.3, shift=0.1, shear=0.2, box_noise=0.1, sensor=0.0,
                        depth_sensor=0.0, cutout=0.0)],
)  # fmt: skip
def test_coordinates_project_back_to_their_pixel(augment):
    crops = make_crops(3)
    for i in range(3):
        sample = maker(crops).make(i, augment, np.random.default_rng(i))
        warp = warp_of(crops, i, augment, i)
        points = sample["coordinates"].reshape(3, -1).T * RADIUS_M
        known = np.isfinite(points[:, 0])
        assert 0.2 < known.mean() < 0.8
        assert np.linalg.norm(points[known], axis=1) == pytest.approx(RADIUS_M, abs=4e-4)
        T = crops["T_camera_object"][i]
        seen = project(se3.transform(T, points[known]), K) @ warp[:, :2].T + warp[:, 2]
        ys, xs = np.mgrid[:32, :32]
        cells = scale_points(np.column_stack([xs.ravel(), ys.ravel()]), 4.0)[known]
        # a coordinate is that of the nearest stored pixel
        nearest = 0.5 * np.sqrt(2) * np.linalg.norm(warp[:, :2], 2)
        assert np.linalg.norm(seen - cells, axis=1).max() <= nearest + 0.05


def test_mask_is_the_visible_share_of_each_heatmap_pixel():
    crops = make_crops(1)
    sample = maker(crops).make(0, OFF, np.random.default_rng(0))
    warp = warp_of(crops, 0, OFF, 0)
    area = crops["mask"][0].sum() * np.linalg.det(warp[:, :2])
    assert sample["mask"].sum() * 16 == pytest.approx(area, rel=0.02)
    assert set(np.unique(sample["mask"][10:20, 10:20])) == {1.0}


def test_shards_without_masks_get_them_from_depth():
    crops = make_crops(2, masks=False)
    truth = make_crops(2)["mask"]
    for i in range(2):
        depth_m = crops["depth"][i] * DEPTH_STEP_M
        mask = mask_from_depth(depth_m, K, crops["T_camera_object"][i], sphere_model().bounds_m)
        np.testing.assert_array_equal(mask, truth[i])
    batch = maker(crops)(np.array([0, 1]), np.random.default_rng(0))
    with_masks = maker(make_crops(2))(np.array([0, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(batch["mask"], with_masks["mask"])


def test_keypoints_follow_the_warp():
    crops = make_crops(1)
    turned = AugmentConfig(rotate_deg=180, shear=0.3, zoom=0.2, shift=0.1)
    sample = maker(crops).make(0, turned, np.random.default_rng(5))
    warp = warp_of(crops, 0, turned, 5)
    expected = crops["keypoints"][0] @ warp[:, :2].T + warp[:, 2]
    np.testing.assert_allclose(sample["keypoints"], expected, atol=1e-3)


def test_no_crop_has_black_corners_where_the_stored_one_ends():
    """At run time the picture goes on where a stored crop ends, and its depth is not known here."""
    crops = make_crops(4)
    assert crops["rgb"].min() > 0 and crops["depth"].min() > 0
    turned = AugmentConfig(rotate_deg=30.0, zoom=0.15, box_noise=0.05, sensor=0.0,
                           depth_sensor=0.0, cutout=0.0)  # fmt: skip
    beyond = 0
    for seed in range(40):
        sample = maker(crops).make(seed % 4, turned, np.random.default_rng(seed))
        assert sample["rgb"].min() >= crops["rgb"].min()
        unknown = sample["depth"][1] == 0
        assert not sample["depth"][0][unknown].any()
        beyond += unknown.mean() > 0.01
    assert beyond >= 5  # these crops do reach over the stored ones' edges


def test_another_background_leaves_the_object_and_lies_behind_it():
    crops = make_crops(3)
    plain = maker(crops).make(0, OFF, np.random.default_rng(0))
    changed = AugmentConfig(**{**OFF.__dict__, "background": 1.0})
    differs = 0
    for seed in range(6):
        sample = maker(crops).make(0, changed, np.random.default_rng(seed))
        inside = np.kron(plain["mask"] == 1, np.ones((4, 4), bool))
        outside = np.kron(plain["mask"] == 0, np.ones((4, 4), bool))
        core = inside.copy()
        core[1:-1, 1:-1] &= inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:]
        core[1:-1, 1:-1] &= inside[1:-1, :-2]
        assert np.abs(sample["rgb"][core].astype(int) - plain["rgb"][core]).max() <= 1
        differs += np.mean(sample["rgb"][outside] != plain["rgb"][outside]) > 0.5
        np.testing.assert_array_equal(sample["mask"], plain["mask"])
        np.testing.assert_array_equal(sample["coordinates"], plain["coordinates"])
    assert differs >= 3  # other crops of this set have the same wall


def test_an_object_in_front_hides_and_is_nearer():
    crops = make_crops(4)
    plain = maker(crops).make(0, OFF, np.random.default_rng(0))
    covering = AugmentConfig(**{**OFF.__dict__, "occlude": 1.0})
    hidden = 0
    for seed in range(12):
        sample = maker(crops).make(0, covering, np.random.default_rng(seed))
        lost = (plain["mask"] == 1) & (sample["mask"] == 0)
        assert sample["mask"].sum() >= (LEAST_VISIBLE - 0.02) * plain["mask"].sum()
        assert not np.isfinite(sample["coordinates"][0][lost]).any()
        if lost.sum() > 20:
            hidden += 1
            pixels = np.kron(lost, np.ones((4, 4), bool)) & (sample["depth"][1] > 0)
            assert sample["depth"][0][pixels].mean() < plain["depth"][0][pixels].mean() - 0.05
    assert hidden >= 3


def test_a_cut_out_takes_the_mask_away():
    crops = make_crops(1)
    cut = AugmentConfig(**{**OFF.__dict__, "cutout": 1.0})
    plain = maker(crops).make(0, OFF, np.random.default_rng(0))["mask"].sum()
    sums = [maker(crops).make(0, cut, np.random.default_rng(s))["mask"].sum() for s in range(8)]
    assert max(sums) <= plain and min(sums) < 0.95 * plain


def test_color_changes_leave_the_geometry():
    crops = make_crops(2)
    colors = AugmentConfig(**{**OFF.__dict__, "hue": 0.1, "gray": 0.3, "contrast": 0.4,
                              "blur": 0.5, "jpeg": 0.5, "shadow": 0.5})  # fmt: skip
    plain = maker(crops).make(0, OFF, np.random.default_rng(0))
    pictures = []
    for seed in range(5):
        sample = maker(crops).make(0, colors, np.random.default_rng(seed))
        assert sample["rgb"].dtype == np.uint8 and sample["rgb"].shape == (128, 128, 3)
        np.testing.assert_array_equal(sample["depth"], plain["depth"])
        np.testing.assert_array_equal(sample["mask"], plain["mask"])
        pictures.append(sample["rgb"])
    assert all(np.mean(picture != plain["rgb"]) > 0.3 for picture in pictures)


def test_the_same_generator_gives_the_same_batch():
    crops = make_crops(4)
    everything = AugmentConfig(occlude=0.5, background=0.5, box_noise=0.05, blur=0.5, jpeg=0.5)
    picks = np.array([0, 1, 2, 3, 0])
    a = maker(crops, everything)(picks, np.random.default_rng(7))
    b = maker(crops, everything)(picks, np.random.default_rng(7))
    assert set(a) == {"rgb", "depth", "keypoints", "object", "mask", "coordinates"}
    for key in a:
        np.testing.assert_array_equal(a[key].numpy(), b[key].numpy())


def test_without_dense_heads_no_dense_targets():
    batch = maker(make_crops(1), dense=False)(np.array([0]), np.random.default_rng(0))
    assert set(batch) == {"rgb", "depth", "keypoints", "object"}


def test_curriculum_grows_to_full_strength():
    assert strength_at(0, 0.0) == 1.0
    assert strength_at(0, 1000.0) == pytest.approx(0.1)
    assert strength_at(500, 1000.0) == pytest.approx(0.55)
    assert strength_at(1000, 1000.0) == 1.0
    weak = AugmentConfig(rotate_deg=90, occlude=0.4).scaled(0.5)
    assert weak.rotate_deg == 45 and weak.occlude == pytest.approx(0.2)
    crops = make_crops(1)
    far = maker(crops, AugmentConfig(**{**OFF.__dict__, "shift": 0.5}), curriculum=1000.0)
    early = far(np.array([0]), np.random.default_rng(3), 0)["keypoints"]
    late = far(np.array([0]), np.random.default_rng(3), 1000)["keypoints"]
    still = maker(crops)(np.array([0]), np.random.default_rng(3))["keypoints"]
    assert float((late - still).norm()) == pytest.approx(
        10 * float((early - still).norm()), rel=0.01
    )


def test_camera_noise_is_added_to_clean_renders_only():
    for masks, touched in ((True, False), (False, True)):
        crops = make_crops(1, masks=masks)
        samples = [
            crop_sample(crops, 0, [0.1], 128, 1.3, None, np.random.default_rng(s), True)
            for s in (0, 1)
        ]
        assert np.any(samples[0][0] != samples[1][0]) == touched
        assert np.any(samples[0][1] != samples[1][1]) == touched


def test_shards_come_back_mapped_and_old_ones_have_no_mask(tmp_path):
    for name, masks in (("new", True), ("old", False)):
        folder = tmp_path / name
        folder.mkdir()
        crops = make_crops(3, masks=masks)
        write_shard(folder / "shard_00000.npz", crops)
        write_shard(folder / "shard_00001.npz", crops)
        loaded = load_crops(folder, 0, None)
        assert ("mask" in loaded) == masks
        assert len(loaded["object"]) == 6 and loaded["rgb"].shape == (6, SIZE, SIZE, 3)
        np.testing.assert_array_equal(loaded["rgb"][4], crops["rgb"][1])
        assert isinstance(loaded["rgb"][4].base, np.memmap | np.ndarray)
    with pytest.raises(DataError, match="No shards"):
        load_crops(tmp_path, 0, None)
