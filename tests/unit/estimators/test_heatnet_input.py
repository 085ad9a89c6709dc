"""What HeatNet sees of the depth."""

import numpy as np
import pytest

from heatnet_ros.estimators.heatnet_input import encode_depth


def test_relative_to_the_middle_in_diameters():
    depth = np.full((64, 64), 1.0, np.float32)
    depth[:8] = 1.05
    depth[-8:] = 2.0
    relative, valid = encode_depth(depth, 0.1)
    assert relative[32, 32] == 0 and valid.min() == 1
    assert relative[0, 0] == pytest.approx(0.5, abs=1e-5)
    assert relative[-1, 0] == 1.0  # clipped


def test_the_distance_alone_changes_nothing():
    rng = np.random.default_rng(0)
    depth = (1 + 0.05 * rng.random((32, 32))).astype(np.float32)
    np.testing.assert_allclose(encode_depth(depth + 1, 0.2), encode_depth(depth, 0.2), atol=1e-5)


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, -np.inf])
def test_holes_are_marked_and_change_nothing_else(hole):
    depth = np.linspace(0.9, 1.1, 32 * 32).reshape(32, 32).astype(np.float32)
    whole = encode_depth(depth, 0.3)
    depth[3, 4] = hole
    relative, valid = encode_depth(depth, 0.3)
    assert valid[3, 4] == 0 and relative[3, 4] == 0
    others = np.ones((32, 32), bool)
    others[3, 4] = False
    np.testing.assert_array_equal(relative[others], whole[0][others])


def test_no_depth_in_the_middle_and_none_at_all():
    depth = np.full((32, 32), 0.8, np.float32)
    depth[8:24, 8:24] = 0
    relative, valid = encode_depth(depth, 0.1)
    assert not relative.any() and valid.sum() == 32 * 32 - 256
    assert not encode_depth(np.zeros((32, 32), np.float32), 0.1).any()
