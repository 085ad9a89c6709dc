"""From a frame to poses: follow or detect -> estimate -> refine -> gate -> name. No ROS."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from heatnet_ros.config import PipelineConfig
from heatnet_ros.consistency import check_consistency, check_wanted
from heatnet_ros.doubles import drop_doubles
from heatnet_ros.engines import Engine, load_engine
from heatnet_ros.errors import ConfigError
from heatnet_ros.estimators import Detector, PoseEstimator, build_detector, build_estimator
from heatnet_ros.estimators.agreement import build_check
from heatnet_ros.filtering import FilterBank
from heatnet_ros.following import Follower
from heatnet_ros.gate import check_depth, reject
from heatnet_ros.instances import InstanceMemory
from heatnet_ros.manifest import Manifest, load_manifest
from heatnet_ros.objects import ObjectLibrary, load_objects
from heatnet_ros.refiners import build_refiner
from heatnet_ros.resources import find_resource
from heatnet_ros.types import Detection, Frame, PipelineResult, PoseEstimate, Rejection
from heatnet_ros.uncertainty import calibrate_covariance

# memory grows with the largest number of objects ever seen: up to the last one it is taken at once
WARM_UP_OBJECTS = 8
WARM_UP_SIZE_HW = (480, 640)


class Pipeline:
    """Runs frame after frame; remembers the last poses. Not for two threads at once."""

    def __init__(
        self,
        config: PipelineConfig,
        library: ObjectLibrary,
        detector: Detector,
        estimator: PoseEstimator,
    ) -> None:
        """Raises ConfigError where ``config.objects`` names an unknown one."""
        check_wanted(config.objects, library, detector.manifest)
        self.config, self.library = config, library
        self._detector, self._estimator = detector, estimator
        self._refiner = build_refiner(config.refiner, library)
        self._instances = InstanceMemory(library)
        self._follower = Follower(detector, self._instances, library)
        self._filters = FilterBank(library)

    @property
    def engines(self) -> dict[str, str]:
        """Network role -> backend, device and precision that really run."""
        return {
            "detector": self._detector.engine.description,
            "estimator": self._estimator.engine.description,
        }

    @property
    def unmeasured(self) -> list[str]:
        """Objects whose poses' covariance was not measured."""
        return self._estimator.manifest.unmeasured

    @property
    def needs_depth(self) -> bool:
        """True when the estimator's network takes depth: without it there are no poses."""
        return "depth" in self._estimator.manifest.inputs

    def run(self, frame: Frame) -> PipelineResult:
        """Find the objects of a frame. Raises EngineError or ModelError when a network fails."""
        timings: dict[str, float] = {}
        with _timed(timings, "detect"):
            detections = self._follower.locate(frame, self.config.follow, self.config.objects)
        poses, rejected = self._estimate(frame, detections, timings)
        if not poses and any(d.followed for d in detections):
            # all are lost, so no pose waits for the detector
            with _timed(timings, "detect"):
                detections = self._follower.detect_now(frame, self.config.objects)
            poses, rejected = self._estimate(frame, detections, timings)
        with _timed(timings, "gate"):
            poses = self._instances.assign(poses, frame.stamp_ns)
            self._follower.note(detections, poses, frame.stamp_ns)
        with _timed(timings, "filter"):
            filtered = self._filter(poses, frame.stamp_ns)
        self._follower.look_beside(frame, self.config.follow, self.config.objects)
        return PipelineResult(
            tuple(poses), tuple(rejected), tuple(detections), timings, self.engines, filtered
        )

    def _estimate(
        self, frame: Frame, detections: Sequence[Detection], timings: dict[str, float]
    ) -> tuple[list[PoseEstimate], list[Rejection]]:
        """Poses that passed the gate, and why the others did not."""
        with _timed(timings, "estimate"):
            estimates = self._estimator.estimate(frame, detections)
        rejected = [item for item in estimates if isinstance(item, Rejection)]
        poses = [item for item in estimates if isinstance(item, PoseEstimate)]
        with _timed(timings, "refine"):
            poses = self._refine(frame, poses)
        with _timed(timings, "gate"):
            poses, faults = self._gate(frame, poses)
        scales = self._estimator.manifest.covariance_scale
        return [calibrate_covariance(p, scales) for p in poses], rejected + faults

    def _filter(self, poses: list[PoseEstimate], stamp_ns: int) -> tuple[PoseEstimate, ...]:
        if not self.config.filter.enabled:
            self._filters.reset()
            return ()
        return self._filters.update(poses, stamp_ns, self.config.filter)

    def _refine(self, frame: Frame, poses: list[PoseEstimate]) -> list[PoseEstimate]:
        return poses if self._refiner is None else self._refiner.refine(frame, poses)

    def _gate(
        self, frame: Frame, poses: list[PoseEstimate]
    ) -> tuple[list[PoseEstimate], list[Rejection]]:
        accepted, faults = [], []
        for pose in check_depth(poses, frame, self.library):
            fault = reject(pose, self.library[pose.object_id], self.config.gate)
            if fault is None:
                accepted.append(pose)
            else:
                faults.append(fault)
        kept, doubles = drop_doubles(accepted, frame, self.library)
        return kept, faults + doubles

    def check_wanted(self, names: Sequence[str]) -> None:
        """Raise ConfigError where the library or the detector does not know one of the objects."""
        check_wanted(names, self.library, self._detector.manifest)

    def update(self, config: PipelineConfig) -> None:
        """Take over options that may change while it runs.

        Raises ConfigError, and changes nothing, when another option differs or an object is
        unknown.
        """
        fixed = _changed_fixed_options(self.config, config)
        if fixed:
            raise ConfigError(
                f"{', '.join(fixed)} cannot change while the pipeline runs. Configure the node "
                "again (ros2 lifecycle set ... cleanup, configure)."
            )
        self.check_wanted(config.objects)
        if config.objects:
            for memory in (self._follower, self._instances, self._filters):
                memory.forget_others(config.objects)
        if (config.objects, config.detector) != (self.config.objects, self.config.detector):
            self._follower.look_soon()
        self._detector.config = config.detector
        self._estimator.config = config.estimator
        self._refiner = build_refiner(config.refiner, self.library)
        self.config = config

    def reset(self) -> None:
        """Forget the last poses: the next frame starts a new sequence."""
        self._follower.reset()
        self._instances.reset()
        self._filters.reset()

    def close(self) -> None:
        """End the detector's thread. Nothing may be called afterwards."""
        self._follower.close()

    def warm_up(self, with_depth: bool = True) -> None:
        """Run the networks on an empty image, for 1 to 8 objects: first runs compile.

        More objects at once than that cost about 20 ms the first time.
        """
        h, w = WARM_UP_SIZE_HW
        K = np.array([[w, 0.0, w / 2], [0.0, w, h / 2], [0.0, 0.0, 1.0]])
        depth_m = np.ones((h, w), np.float32) if with_depth or self.needs_depth else None
        frame = Frame(np.zeros((h, w, 3), np.uint8), K, depth_m)
        self._detector.detect(frame)
        box = (w / 4, h / 4, w * 3 / 4, h * 3 / 4)
        seen = Detection(self._estimator.manifest.objects[0], box, 1.0)
        for count in range(1, WARM_UP_OBJECTS + 1):
            estimates = self._estimator.estimate(frame, [seen] * count)
            poses = [item for item in estimates if isinstance(item, PoseEstimate)]
            self._gate(frame, self._refine(frame, poses))


def load_pipeline(config: PipelineConfig) -> Pipeline:
    """Read objects, manifests and networks and check that they belong together.

    Raises ConfigError, ModelError or EngineError with what does not fit, where, and the remedy.
    """
    library = load_objects(find_resource(config.objects_file, "Object library"))
    folders = [
        find_resource(model, f"{role} model")
        for role, model in (
            ("Detector", config.detector.model),
            ("Estimator", config.estimator.model),
        )
    ]
    detector_manifest, estimator_manifest = (load_manifest(folder) for folder in folders)
    check_consistency(config, library, detector_manifest, estimator_manifest)
    detector_engine = _load_network(detector_manifest, config)
    detector = build_detector(detector_engine, detector_manifest, config.detector)
    estimator_engine = _load_network(estimator_manifest, config)
    estimator = build_estimator(estimator_engine, estimator_manifest, config.estimator, library)
    return Pipeline(config, library, detector, estimator)


def _load_network(manifest: Manifest, config: PipelineConfig) -> Engine:
    engine = manifest.choose_engine(config.engine)
    return load_engine(manifest.onnx_path, engine, partial(build_check, manifest))


@contextmanager
def _timed(timings_s: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings_s[stage] = timings_s.get(stage, 0.0) + time.perf_counter() - start


def _changed_fixed_options(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the options that differ and are not ``live``."""
    changed = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            changed += _changed_fixed_options(before, after, f"{prefix}{f.name}.")
        elif before != after and not f.metadata.get("live"):
            changed.append(prefix + f.name)
    return changed
