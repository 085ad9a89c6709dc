"""The sensor model: statistics of what it adds, and that the seed alone decides."""

import numpy as np

from heatnet_ros.rendering.sensor import apply_color_sensor, apply_depth_sensor


def step_depth() -> np.ndarray:
    depth = np.full((120, 160), 1.0, np.float32)
    depth[:, 80:] = 0.6
    return depth


def test_same_seed_same_noise():
    rgb = np.full((120, 160, 3), 90, np.uint8)
    for apply, perfect in ((apply_color_sensor, rgb), (apply_depth_sensor, step_depth())):
        first, second, other = (apply(np.random.default_rng(seed), perfect) for seed in (3, 3, 4))
        assert np.array_equal(first, second)
        assert not np.array_equal(first, other)


def test_depth_noise_grows_with_distance_is_in_millimetres_and_unbiased():
    spread = []
    for distance in (0.5, 1.5):
        flat = np.full((200, 200), distance, np.float32)
        noisy = apply_depth_sensor(np.random.default_rng(0), flat)
        seen = noisy[noisy > 0]
        assert len(seen) > 0.9 * flat.size
        assert abs(seen.mean() - distance) < 1e-4
        np.testing.assert_allclose(seen * 1000, np.rint(seen * 1000), atol=1e-3)
        spread.append(seen.std())
    assert 0.0008 < spread[0] < 0.002 < spread[1] < 0.006


def test_depth_edges_have_holes_and_flat_parts_hardly_any():
    noisy = apply_depth_sensor(np.random.default_rng(1), step_depth())
    edge = noisy[:, 79:81] == 0
    assert 0.2 < edge.mean() < 1.0
    assert (noisy[:, 20:60] == 0).mean() < 0.1
    missing = apply_depth_sensor(np.random.default_rng(1), np.zeros((20, 20), np.float32))
    assert not missing.any()


def test_color_strength_zero_keeps_the_picture_and_one_changes_it():
    rng = np.random.default_rng(2)
    flat = np.full((60, 80, 3), 120, np.uint8)
    assert np.array_equal(apply_color_sensor(rng, flat, 0.0), flat)
    changed = apply_color_sensor(rng, flat, 1.0).astype(int)
    assert 0 < np.abs(changed - 120).mean() < 60


def test_noise_of_its_own_keeps_the_exposure():
    flat = np.full((60, 80, 3), 120, np.uint8)
    frames = [
        apply_color_sensor(np.random.default_rng(2), flat, 1.0, np.random.default_rng(i))
        for i in range(2)
    ]
    assert not np.array_equal(*frames)
    np.testing.assert_allclose(frames[0].mean((0, 1)), frames[1].mean((0, 1)), atol=0.3)
