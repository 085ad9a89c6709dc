"""Detectors and pose estimators by name. Each sees only the Engine protocol, never a backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from heatnet_ros.config import DetectorConfig, EstimatorConfig
from heatnet_ros.engines import Engine
from heatnet_ros.errors import ModelError
from heatnet_ros.estimators.heatnet import HeatNetEstimator
from heatnet_ros.estimators.yolo import YoloDetector
from heatnet_ros.manifest import Manifest
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import Detection, Frame, PoseEstimate, Rejection


class Detector(Protocol):
    """Finds objects in a frame. ``config`` may be replaced between frames."""

    config: DetectorConfig
    engine: Engine
    manifest: Manifest

    def detect(self, frame: Frame, wanted: Collection[str] = ()) -> list[Detection]:
        """Detections, best first, boxes in image pixels; of wanted objects, or all."""


class PoseEstimator(Protocol):
    """Estimates the pose of detected objects. ``config`` may be replaced between frames."""

    config: EstimatorConfig
    engine: Engine
    manifest: Manifest

    def estimate(
        self, frame: Frame, detections: Sequence[Detection]
    ) -> list[PoseEstimate | Rejection]:
        """One pose or rejection per detection, in their order."""


_DETECTORS: dict[str, Callable[[Engine, Manifest, DetectorConfig], Detector]] = {
    "yolo": YoloDetector,
}
_ESTIMATORS: dict[
    str, Callable[[Engine, Manifest, EstimatorConfig, ObjectLibrary], PoseEstimator]
] = {
    "heatnet": HeatNetEstimator,
}


def build_detector(engine: Engine, manifest: Manifest, config: DetectorConfig) -> Detector:
    """The detector that the manifest names. Raises ModelError when it does not fit."""
    if manifest.estimator not in _DETECTORS:
        raise ModelError(
            f"Model {manifest.folder} is a '{manifest.estimator}', expected a detector "
            f"({', '.join(_DETECTORS)}). Correct the parameter detector.model."
        )
    return _DETECTORS[manifest.estimator](engine, manifest, config)


def build_estimator(
    engine: Engine, manifest: Manifest, config: EstimatorConfig, library: ObjectLibrary
) -> PoseEstimator:
    """The estimator that ``config.name`` names. Raises ModelError when the model is another's."""
    if manifest.estimator != config.name:
        raise ModelError(
            f"Model {manifest.folder} is a '{manifest.estimator}', expected '{config.name}'. "
            "Correct the parameter estimator.model or estimator.name."
        )
    return _ESTIMATORS[config.name](engine, manifest, config, library)
