"""Poses -> vision_msgs/Detection3DArray, as Humble and later define it; where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from std_msgs.msg import Header

from heatnet_ros.objects import ObjectLibrary, ObjectModel
from heatnet_ros.ros.markers import pose_to_message
from heatnet_ros.types import PoseEstimate


def import_vision_msgs() -> ModuleType | None:
    """The messages of vision_msgs, None where the package is not installed."""
    try:
        from vision_msgs import msg
    except ImportError:
        return None
    return msg  # type: ignore[no-any-return]


def build_detections(
    poses: Sequence[PoseEstimate], header: Header, library: ObjectLibrary, msg: ModuleType
) -> object:
    """A Detection3DArray; empty where there are no poses. ``msg``: see ``import_vision_msgs``."""
    array = msg.Detection3DArray(header=header)
    array.detections = [_build_detection(p, header, library[p.object_id], msg) for p in poses]
    return array


def _build_detection(
    pose: PoseEstimate, header: Header, model: ObjectModel, msg: ModuleType
) -> object:
    result = msg.ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = pose.object_id, float(pose.score)
    result.pose.pose = pose_to_message(pose.T_camera_object)
    if pose.covariance is not None:  # else all zero, which is how messages say unknown
        result.pose.covariance = pose.covariance.ravel().tolist()
    detection = msg.Detection3D(header=header, id=f"{pose.object_id}_{pose.instance}")
    detection.results = [result]
    T = np.array(pose.T_camera_object)
    T[:3, 3] = model.center_m(T)
    detection.bbox.center = pose_to_message(T)
    size = detection.bbox.size
    size.x, size.y, size.z = (float(extent) for extent in np.ptp(model.bounds_m, axis=0))
    return detection
