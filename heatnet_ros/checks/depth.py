"""Is a depth image plausible: enough of it, in metres?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heatnet_ros.checks.finding import Finding, error, ok, warning
from heatnet_ros.types import DepthF32

# with less depth than that the solution and its check stand on few points
MIN_VALID = 0.2
# a median beyond is another unit, or not what a table-top camera sees
PLAUSIBLE_M = (0.05, 30.0)
_STEP = 4  # every 4th pixel of every 4th row tells as much


class DepthMeasure(NamedTuple):
    """encoding: of the message. share: of the pixels that is valid, 0..1. median_m: else 0."""

    encoding: str
    share: float
    median_m: float


def measure_depth(encoding: str, depth_m: DepthF32) -> DepthMeasure:
    """Of a depth image (H, W) that was converted to metres."""
    some = depth_m[::_STEP, ::_STEP]
    valid = some[np.isfinite(some) & (some > 0)]
    median_m = float(np.median(valid)) if valid.size else 0.0
    return DepthMeasure(encoding, valid.size / max(some.size, 1), median_m)


def check_valid_share(topic: str, share: float) -> Finding | None:
    """A warning where little of the depth is valid."""
    if share >= MIN_VALID:
        return None
    return warning(
        topic,
        f"only {share:.0%} of the depth pixels are valid, expected {MIN_VALID:.0%} or more",
        "Check the emitter, the range (is the scene too near?) and shiny or transparent surfaces; "
        "objects without depth are solved from colour alone or rejected (no_depth).",
    )


def check_unit(topic: str, encoding: str, median_m: float) -> Finding | None:
    """An error where the median depth in metres (0: none is valid) must be of another unit."""
    low, high = PLAUSIBLE_M
    if not median_m or low <= median_m <= high:
        return None
    unit = "metres" if encoding.startswith("32FC1") else "millimetres"
    return error(
        topic,
        f"the median depth is {median_m:.4g} m, expected {low:g} to {high:g} m: "
        f"'{encoding}' must hold {unit} (REP-118)",
        f"Set the driver's depth unit so that it publishes {unit} (RealSense: "
        "depth_module.depth_units 0.001), or convert the topic.",
    )


def check_depth(topic: str, depth: DepthMeasure) -> Finding:
    """What there is to say of a depth image."""
    encoding, share, median_m = depth
    return (
        check_unit(topic, encoding, median_m)
        or check_valid_share(topic, share)
        or ok(topic, f"{encoding}, {share:.0%} valid, median {median_m:.2f} m")
    )
