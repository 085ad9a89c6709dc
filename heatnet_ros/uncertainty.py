"""What a pose's covariance has to be multiplied with so that it tells how far the pose may be off.

The solve knows how well its keypoints and depth agree, not how well the network knows the object.
Measured on films with known truth (docs/stability.md): the squared error in units of the solve's
covariance grows with the score's power of -2.5, for two networks alike (from 9 at a score of 0.95
to 65 at 0.4 with one, from 3.5 to 20 with the other; 6 expected), and beside that every object has
its own factor, which the network's manifest holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heatnet_ros.types import PoseEstimate

SCORE_EXPONENT = 2.5
LEAST_SCORE = 0.05  # below it nothing was measured; the gate lets nothing through there


def calibrate_covariance(pose: PoseEstimate, scales: Mapping[str, float]) -> PoseEstimate:
    """The pose with its covariance times the object's factor over score**2.5.

    scales: object -> factor at a score of 1; an object that is not in it was not measured and has
    1. A pose without a covariance comes back as it is.
    """
    if pose.covariance is None:
        return pose
    factor = scales.get(pose.object_id, 1.0) / max(pose.score, LEAST_SCORE) ** SCORE_EXPONENT
    return replace(pose, covariance=pose.covariance * factor)
