"""Is a pose good enough to publish? Agreement with the measured depth, then the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from heatnet_ros.config import GateConfig
from heatnet_ros.geometry.depth import stack_surfaces, view_surfaces
from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.types import FloatArray, Frame, PoseEstimate, Reason, Rejection

AGREES = 0.1  # object diameters between measured and predicted depth
# an occluder hides a part of an object, a wrong pose disagrees everywhere
MIN_SUPPORT = 0.3
# something may stand before a sample, the object's own handle as well: half a disagreement. Depth
# behind it is a whole one: the camera has looked through the object.
HIDDEN = 0.5
MIN_POINTS = 4


def check_depth(
    poses: Sequence[PoseEstimate], frame: Frame, library: ObjectLibrary
) -> list[PoseEstimate]:
    """Compare poses with the measured depth: sets ``depth_error_m``, lowers ``score``.

    The score is multiplied by the share of surface samples facing the camera whose measured depth
    agrees with the pose within 0.1 diameters; samples that something stands before count half.
    ``depth_error_m`` is the median difference over the samples that agree where these are at
    least 30 %, else over all: what stands before a part of the object is no error of its pose.
    Where fewer than 4 samples have depth the pose stays as it is.
    """
    if frame.depth_m is None or not poses:
        return [replace(pose, depth_error_m=None) for pose in poses]
    models = [library[pose.object_id] for pose in poses]
    surfaces = stack_surfaces([model.surface for model in models])
    T = np.stack([pose.T_camera_object for pose in poses])
    view = view_surfaces(
        T, surfaces[:, :3], surfaces[:, 3:], frame.depth_m, frame.K, frame.distortion
    )
    return [
        _compare(pose, model, gaps_m[valid])
        for pose, model, gaps_m, valid in zip(
            poses, models, view.gap_m[:, 2], view.valid, strict=True
        )
    ]


def _compare(pose: PoseEstimate, model: ObjectModel, residuals_m: FloatArray) -> PoseEstimate:
    """residuals_m: measured minus predicted depth of the samples that have one."""
    if len(residuals_m) < MIN_POINTS:
        return replace(pose, depth_error_m=None)
    limit_m = AGREES * model.diameter_m
    agree = np.abs(residuals_m) <= limit_m
    hidden = np.count_nonzero(residuals_m < -limit_m)
    share = float(agree.sum() / (len(residuals_m) - (1 - HIDDEN) * hidden))
    supported = share >= MIN_SUPPORT and agree.sum() >= MIN_POINTS
    error_m = float(np.median(residuals_m[agree] if supported else residuals_m))
    return replace(pose, depth_error_m=error_m, score=pose.score * share)


def reject(pose: PoseEstimate, model: ObjectModel, config: GateConfig) -> Rejection | None:
    """The first reason why a pose must not be published, or None.

    The inlier keypoints of a pose are those with a confidence above 0.
    """
    inliers = int(np.sum(pose.keypoints.confidence > 0)) if pose.keypoints is not None else 0
    if inliers < config.min_inliers:
        return _rejection(
            pose, Reason.TOO_FEW_INLIERS, f"{inliers} inliers, min_inliers {config.min_inliers}"
        )
    if pose.reprojection_px > config.max_reprojection_px:
        detail = f"{pose.reprojection_px:.2f} px, max_reprojection_px {config.max_reprojection_px}"
        return _rejection(pose, Reason.REPROJECTION_HIGH, detail)
    limit_m = config.max_depth_error * model.diameter_m
    if pose.depth_error_m is not None and abs(pose.depth_error_m) > limit_m:
        detail = f"measured minus predicted {pose.depth_error_m:.3f} m, limit {limit_m:.3f} m"
        return _rejection(pose, Reason.DEPTH_DISAGREES, detail)
    if pose.score < config.min_score:
        detail = f"score {pose.score:.2f}, min_score {config.min_score}"
        return _rejection(pose, Reason.SCORE_LOW, detail)
    return None


def _rejection(pose: PoseEstimate, reason: Reason, detail: str) -> Rejection:
    return Rejection(pose.object_id, reason, detail, pose.detection)
