"""Published poses against the truth, matched by stamp. Knows no ROS and no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from heatnet_ros.evaluate import ADD_THRESHOLD_DIAMETERS
from heatnet_ros.mesh import Mesh
from heatnet_ros.metrics import add_or_adds_error_m, pose_errors
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import FloatArray

# a monitor may run for weeks: truths and poses of so many of the latest frames find their partner,
# and medians and percentiles are of so many of the latest values
KEPT_FRAMES, KEPT_VALUES = 2000, 20_000
_T = TypeVar("_T")


@dataclass
class _Track:
    """What is known of one object: poses by stamp in ns, the latest only, and what they came to."""

    truths: dict[int, FloatArray] = field(default_factory=dict)
    poses: dict[int, FloatArray] = field(default_factory=dict)
    frames: int = 0
    scored: int = 0
    right: int = 0
    errors_mm: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_VALUES))
    errors_deg: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_VALUES))


class Scoreboard:
    """Scores each pair of truth and pose once, and forgets it.

    Every true pose counts, whether the node saw the frame, dropped it or rejected the object: what
    has no pose is a miss. Of several poses of one object in one frame the first one published
    counts (the lowest instance). ADD(-S) is taken on the mesh's vertices. Counts and recall are of
    all frames, medians and percentiles of the latest ``KEPT_VALUES``; a partner that comes more
    than ``KEPT_FRAMES`` frames late comes too late.
    """

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._meshes: dict[str, Mesh | None] = {}
        self._tracks = {name: _Track() for name in library.objects}
        self._latencies_s: deque[float] = deque(maxlen=KEPT_VALUES)
        self._posed_ns: dict[int, bool] = {}  # the latest stamps
        self._posed, self._first_ns, self._last_ns = 0, 0, 0

    def add_truth(self, name: str, stamp_ns: int, T_camera_object: FloatArray) -> None:
        """One true pose."""
        track = self._tracks[name]
        if _is_new(track.truths, stamp_ns, T_camera_object):
            track.frames += 1
            self._score(name, stamp_ns)

    def add_pose(
        self, name: str, stamp_ns: int, T_camera_object: FloatArray, latency_s: float
    ) -> None:
        """One published pose, received ``latency_s`` after its image's stamp."""
        self._latencies_s.append(latency_s)
        if _is_new(self._posed_ns, stamp_ns, True):
            self._first_ns = min(self._first_ns, stamp_ns) if self._posed else stamp_ns
            self._last_ns = max(self._last_ns, stamp_ns) if self._posed else stamp_ns
            self._posed += 1
        if _is_new(self._tracks[name].poses, stamp_ns, T_camera_object):
            self._score(name, stamp_ns)

    def poses_at(self, stamp_ns: int) -> dict[str, FloatArray]:
        """Object -> published pose of one of the latest frames."""
        found = {name: track.poses.get(stamp_ns) for name, track in self._tracks.items()}
        return {name: T for name, T in found.items() if T is not None}

    def report(self) -> dict[str, Any]:
        """Per object that was to be seen: poses, recall, median errors; latency and rate over all.

        Medians, latency and rate are None where there is nothing to measure.
        """
        objects = {name: _summarize(track) for name, track in self._tracks.items() if track.frames}
        recalls = [entry["recall_add_01d"] for entry in objects.values()]
        return {
            "objects": objects,
            "recall_add_01d": round(float(np.mean(recalls)), 4) if recalls else None,
            "rate_hz": self._rate_hz(),
            "latency_ms": {
                f"p{q}": round(float(np.percentile(self._latencies_s, q)) * 1e3, 1)
                if self._latencies_s
                else None
                for q in (50, 95, 99)
            },
        }

    def _score(self, name: str, stamp_ns: int) -> None:
        """Count what has both its truth and its pose."""
        track, model = self._tracks[name], self._library[name]
        T_est, T_true = track.poses.get(stamp_ns), track.truths.get(stamp_ns)
        if T_est is None or T_true is None:
            return
        error_m = add_or_adds_error_m(T_est, T_true, self._vertices(name), model.symmetries)
        errors = pose_errors(T_est, T_true, model.symmetries)
        track.scored += 1
        track.right += int(error_m < ADD_THRESHOLD_DIAMETERS * model.diameter_m)
        track.errors_mm.append(errors.translation_mm)
        track.errors_deg.append(errors.rotation_deg)

    def _vertices(self, name: str) -> FloatArray:
        if name not in self._meshes:
            self._meshes[name] = self._library[name].load_mesh()
        mesh = self._meshes[name]
        # a library without its meshes: the surface samples are on the same surface
        return mesh.vertices_m if mesh is not None else self._library[name].surface[:, :3]

    def _rate_hz(self) -> float | None:
        span_s = (self._last_ns - self._first_ns) / 1e9
        return round((self._posed - 1) / span_s, 2) if span_s > 0 else None


def _is_new(latest: MutableMapping[int, _T], stamp_ns: int, value: _T) -> bool:
    """Add a stamp, unless it is there, to the latest ``KEPT_FRAMES``."""
    if stamp_ns in latest:
        return False
    latest[stamp_ns] = value
    if len(latest) > KEPT_FRAMES:
        del latest[next(iter(latest))]
    return True


def _summarize(track: _Track) -> dict[str, Any]:
    return {
        "poses": track.scored,
        "frames": track.frames,
        "recall_add_01d": round(track.right / track.frames, 4),
        "median_error_mm": _median(track.errors_mm),
        "median_error_deg": _median(track.errors_deg),
    }


def _median(values: deque[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None
