import numpy as np

from heatnet_ros.checks.depth import check_depth, measure_depth
from heatnet_ros.checks.finding import Level


def test_share_and_median_ignore_what_is_invalid():
    depth = np.full((480, 640), 0.8, np.float32)
    depth[:120] = 0.0
    depth[120:240] = np.nan
    seen = measure_depth("16UC1", depth)
    assert seen.share == 0.5 and np.isclose(seen.median_m, 0.8)
    assert measure_depth("32FC1", np.zeros((8, 8), np.float32)) == ("32FC1", 0.0, 0.0)


def test_units_and_holes():
    good = np.full((480, 640), 0.8, np.float32)
    found = check_depth("/depth", measure_depth("16UC1", good))
    assert found.level is Level.OK and "100% valid, median 0.80 m" in found.evidence
    for factor in (0.01, 60.0, 100.0):
        found = check_depth("/depth", measure_depth("16UC1", np.float32(factor) * good))
        assert found.level is Level.ERROR and "millimetres" in found.evidence
    good[:, 64:] = 0
    compressed = measure_depth("32FC1; compressedDepth png", np.float32(100.0) * good)
    assert "must hold metres" in check_depth("/depth", compressed).evidence
    found = check_depth("/depth", measure_depth("32FC1", good))
    assert found.level is Level.WARNING and "only 10%" in found.evidence
