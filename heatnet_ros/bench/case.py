"""One case: a backend, a precision and a mode, at several numbers of objects.

``python -m heatnet_ros.bench.case CASE.json`` runs it in a process of its own, so that its memory
is its own and no other network keeps the cores warm.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from heatnet_ros.bench.recall import score_poses
from heatnet_ros.bench.recording import (
    RATE_HZ,
    Recording,
    Target,
    detect_truly,
    load_recording,
)
from heatnet_ros.bench.stand_ins import TimedEngine, TrueBoxes, TrueHeatmaps
from heatnet_ros.config import PipelineConfig
from heatnet_ros.engines import load_engine
from heatnet_ros.errors import HeatnetError
from heatnet_ros.estimators import build_detector, build_estimator
from heatnet_ros.estimators.agreement import build_check
from heatnet_ros.files import write_json
from heatnet_ros.machine import resident_memory_mb
from heatnet_ros.manifest import Manifest, load_manifest
from heatnet_ros.objects import load_objects
from heatnet_ros.params_file import load_params
from heatnet_ros.pipeline import Pipeline
from heatnet_ros.resources import find_resource
from heatnet_ros.types import Detection, FloatArray, Frame, PoseEstimate

FOLLOW, DETECT = "follow", "detect"
MODES = (FOLLOW, DETECT)
WARM_UP_FRAMES = 15
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True)
class Case:
    """What to run. rate_hz 0: as fast as it goes. stand_in: heatmaps come from the true poses.

    true_boxes: of exactly ``objects``; else the detector's own, of all that the recording shows.
    """

    params: str
    recording: str
    out: str
    backend: str
    precision: str
    mode: str
    objects: tuple[int, ...]
    frames: int
    rate_hz: float = RATE_HZ
    stand_in: bool = False
    true_boxes: bool = True


@dataclass(frozen=True, eq=False)
class Playlist:
    """A recording played to and fro, so that nothing jumps, with stamps that go on."""

    frames: tuple[Frame, ...]
    targets: Mapping[int, tuple[Target, ...]]
    poses: Mapping[int, Mapping[str, FloatArray]]

    @property
    def boxes(self) -> dict[int, tuple[Detection, ...]]:
        """Stamp -> what a perfect detector finds."""
        return {stamp_ns: detect_truly(found) for stamp_ns, found in self.targets.items()}


def build_playlist(
    recording: Recording, targets: Mapping[int, tuple[Target, ...]], count: int
) -> Playlist:
    """``count`` frames. targets: of ``Recording.targets``."""
    there = list(range(len(recording.frames)))
    order = there + there[-2:0:-1]
    frames, placed, poses = [], {}, {}
    for number, i in enumerate(islice(cycle(order), count)):
        stamp_ns = round(number * 1e9 / RATE_HZ)
        frame = recording.frames[i]
        frames.append(dataclasses.replace(frame, stamp_ns=stamp_ns))
        placed[stamp_ns] = targets[frame.stamp_ns]
        poses[stamp_ns] = dict(recording.poses[i])
    return Playlist(tuple(frames), placed, poses)


def run_case(case: Case) -> list[dict[str, Any]]:
    """Run at each number of objects; entries of bench's ``runs``."""
    recording = load_recording(Path(case.recording))
    return [run_objects(case, recording, count) for count in case.objects]


def open_case(case: Case, recording: Recording, count: int) -> tuple[Pipeline, Playlist, Any, Any]:
    """The case's pipeline, warm, the frames of so many objects, its detector and estimator.

    The caller closes the pipeline.
    """
    config = load_params(find_resource(case.params, "Parameter file"))
    config = dataclasses.replace(
        config,
        engine=dataclasses.replace(config.engine, backend=case.backend, precision=case.precision),
        follow=dataclasses.replace(config.follow, enabled=case.mode == FOLLOW),
    )
    library = load_objects(find_resource(config.objects_file, "Object library"))
    targets = recording.targets(library, recording.choose(count))
    playlist = build_playlist(recording, targets, WARM_UP_FRAMES + case.frames)
    detector = _load_detector(config)
    if case.true_boxes:
        detector = TrueBoxes(detector, playlist.boxes)
    estimator = _load_estimator(case, config, playlist)
    pipeline = Pipeline(config, library, detector, estimator)
    pipeline.warm_up(with_depth=recording.frames[0].depth_m is not None)
    return pipeline, playlist, detector, estimator


def run_objects(case: Case, recording: Recording, count: int) -> dict[str, Any]:
    """One pipeline on the playlist of so many objects."""
    pipeline, playlist, detector, estimator = open_case(case, recording, count)
    engines = (detector.engine, estimator.engine)
    try:
        measured, poses = measure(pipeline, playlist.frames, case.rate_hz, estimator, engines)
    finally:
        pipeline.close()
    # without the recording, and before the meshes of the comparison
    rss_mb = resident_memory_mb() - recording.size_mb
    # stand-ins know the truth: their recall would be that of the noise put into them
    scores = score_poses(poses if not case.stand_in else {}, playlist.targets, pipeline.library)
    engine, _, precision = pipeline.engines["estimator"].rpartition(" ")
    return {
        "engine": engine, "precision": precision, "mode": case.mode, "objects": count,
        "boxes": "true" if case.true_boxes else "detector",
        **measured, **scores, "rss_mb": round(rss_mb, 1),
    }  # fmt: skip


def measure(
    pipeline: Pipeline,
    frames: Sequence[Frame],
    rate_hz: float,
    estimator: Any,
    engines: Sequence[TimedEngine],
) -> tuple[dict[str, Any], dict[int, tuple[PoseEstimate, ...]]]:
    """All frames but the first ``WARM_UP_FRAMES``: times in milliseconds; poses by stamp."""
    found: dict[int, tuple[PoseEstimate, ...]] = {}
    times: list[float] = []
    stages: dict[str, list[float]] = {}
    crops, detected, left_out_s = 0, 0, 0.0
    networks_s: list[float] = []
    began_s = due_s = time.perf_counter()
    for number, frame in enumerate(frames):
        if rate_hz:
            time.sleep(max(0.0, due_s - time.perf_counter()))
            due_s = max(due_s, time.perf_counter() - 1 / rate_hz) + 1 / rate_hz
        before_s = getattr(estimator, "excluded_s", 0.0)
        ran_s = sum(engine.own_s() for engine in engines)
        start_s = time.perf_counter()
        if number == WARM_UP_FRAMES:
            began_s, left_out_s = start_s, before_s
        result = pipeline.run(frame)
        took_s = time.perf_counter() - start_s
        excluded_s = getattr(estimator, "excluded_s", 0.0) - before_s
        if number < WARM_UP_FRAMES:
            continue
        times.append(took_s - excluded_s)
        networks_s.append(sum(engine.own_s() for engine in engines) - ran_s)
        for stage, value_s in result.timings_s.items():
            value_s -= excluded_s if stage == "estimate" else 0.0
            stages.setdefault(stage, []).append(value_s)
        found[frame.stamp_ns] = result.poses
        crops += len(result.detections)
        detected += sum(not d.followed for d in result.detections)
    wall_s = time.perf_counter() - began_s
    if not rate_hz:  # else it lies in the pause between frames
        wall_s -= getattr(estimator, "excluded_s", 0.0) - left_out_s
    ms = {name: _ms(np.percentile(times, p)) for name, p in PERCENTILES.items()}
    numbers = {
        "ms": ms,
        "networks_ms": _ms(np.median(networks_s)),
        "outside_networks_share": round(1 - float(np.sum(networks_s) / np.sum(times)), 3),
        "stages_ms": {stage: _ms(np.median(values)) for stage, values in stages.items()},
        "frames": len(times),
        "frames_per_s": round(len(times) / wall_s, 1),
        "crops_per_frame": round(crops / len(times), 2),
        "poses_per_frame": round(sum(map(len, found.values())) / len(times), 2),
        "followed_share": round(1 - detected / max(crops, 1), 3),
    }
    return numbers, found


def _load_detector(config: PipelineConfig) -> Any:
    manifest = load_manifest(find_resource(config.detector.model, "Detector model"))
    return build_detector(_load(config, manifest), manifest, config.detector)


def _load_estimator(case: Case, config: PipelineConfig, playlist: Playlist) -> Any:
    library = load_objects(find_resource(config.objects_file, "Object library"))
    manifest = load_manifest(find_resource(config.estimator.model, "Estimator model"))
    engine = _load(config, manifest)
    if not case.stand_in:
        return build_estimator(engine, manifest, config.estimator, library)
    estimator = TrueHeatmaps(engine, manifest, config.estimator, library)
    estimator.poses = playlist.poses
    return estimator


def _load(config: PipelineConfig, manifest: Manifest) -> TimedEngine:
    """The engine as the node loads it: a precision that changes the answers is refused."""
    chosen = manifest.choose_engine(config.engine)
    return TimedEngine(load_engine(manifest.onnx_path, chosen, partial(build_check, manifest)))


def _ms(seconds: Any) -> float:
    return round(1e3 * float(seconds), 3)


def main(arguments: list[str] | None = None) -> int:
    """Run the case of a JSON file; writes its ``out``."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    entry = json.loads(Path(path).read_text())
    case = Case(**{**entry, "objects": tuple(entry["objects"])})
    try:
        runs = run_case(case)
    except HeatnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_json(Path(case.out), {"runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
