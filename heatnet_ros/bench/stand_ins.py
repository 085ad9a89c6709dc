"""What keeps every case at the same work: true boxes, and true heatmaps of untrained networks.

The networks run, and their time counts. Only their answers are replaced, so that a case has the
number of objects that it says, whatever the weights find.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatnet_ros.config import DetectorConfig
from heatnet_ros.engines import Engine, Tensors
from heatnet_ros.estimators import Detector
from heatnet_ros.estimators.heatnet import HeatNetEstimator, encode_heatmaps
from heatnet_ros.geometry import se3
from heatnet_ros.geometry.camera import Crop, project
from heatnet_ros.geometry.symmetry import canonicalize
from heatnet_ros.objects import ObjectModel
from heatnet_ros.types import DepthF32, Detection, FloatArray, Frame

# of the stand-in's keypoints: what a trained network shows on held-out crops
NOISE_PX, OUTLIERS = 1.0, 0.1
SIGMA = 1.5


class TimedEngine:
    """An engine that counts the time of its runs, per thread: the detector may run beside."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._spent_s = engine, dict[int, float]()
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.description = engine.description

    def run(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """See ``Engine.run``."""
        start_s = time.perf_counter()
        try:
            return self._engine.run(tensors)
        finally:
            thread = threading.get_ident()
            took_s = time.perf_counter() - start_s
            self._spent_s[thread] = self._spent_s.get(thread, 0.0) + took_s

    def own_s(self) -> float:
        """Seconds that the calling thread has spent in it."""
        return self._spent_s.get(threading.get_ident(), 0.0)


class TrueBoxes:
    """A detector whose network runs and whose boxes are given (stamp -> boxes)."""

    def __init__(self, detector: Detector, boxes: Mapping[int, Sequence[Detection]]) -> None:
        self._detector, self._boxes = detector, boxes
        self.engine, self.manifest = detector.engine, detector.manifest

    @property
    def config(self) -> DetectorConfig:
        """The detector's own."""
        return self._detector.config

    @config.setter
    def config(self, config: DetectorConfig) -> None:
        self._detector.config = config

    def detect(self, frame: Frame, wanted: Collection[str] = ()) -> list[Detection]:
        """Run the network; the true boxes of the frame, wanted or not."""
        self._detector.detect(frame, wanted)
        return list(self._boxes.get(frame.stamp_ns, ()))


class TrueHeatmaps(HeatNetEstimator):
    """An estimator whose network runs and whose heatmaps show the true pose, with noise.

    excluded_s: time spent on making them, which is not the pipeline's.
    """

    poses: Mapping[int, Mapping[str, FloatArray]] = {}
    excluded_s = 0.0

    def _run(
        self, frame: Frame, items: Sequence[tuple[Detection, Crop, DepthF32 | None]]
    ) -> tuple[Any, Any]:
        super()._run(frame, items)
        start_s = time.perf_counter()
        shape = self._output_shape
        maps = np.zeros((len(items), *shape), np.float32)
        rng = np.random.default_rng(frame.stamp_ns)
        for i, (detection, crop, _) in enumerate(items):
            T = self.poses.get(frame.stamp_ns, {}).get(detection.object_id)
            if T is None:
                continue
            model = self.library[detection.object_id]
            maps[i] = draw_heatmaps(frame, model, T, crop, shape, self.manifest.stride, rng)
        self.excluded_s += time.perf_counter() - start_s
        return maps, None


def draw_heatmaps(
    frame: Frame,
    model: ObjectModel,
    T_camera_object: FloatArray,
    crop: Crop,
    shape: tuple[int, int, int],
    stride: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Heatmaps (K, h, w) of a crop as a trained network gives them: some error, some outliers."""
    seen = canonicalize(T_camera_object, model.symmetries)
    pixels = project(se3.transform(seen, model.keypoints_m), frame.K, frame.distortion)
    points = crop.to_crop(pixels) + rng.normal(0, NOISE_PX, pixels.shape)
    lost = rng.random(len(points)) < OUTLIERS
    points[lost] = rng.uniform(0, crop.size_px - 1, (int(lost.sum()), 2))
    return encode_heatmaps(points, shape[1:], stride, SIGMA)
