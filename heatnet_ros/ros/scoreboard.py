"""Published poses against the truth, matched by stamp. Knows no ROS and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heatnet_ros.evaluate import ADD_THRESHOLD_DIAMETERS
from heatnet_ros.mesh import Mesh
from heatnet_ros.metrics import PoseErrors, add_or_adds_error_m, pose_errors, recall
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import FloatArray


@dataclass
class _Track:
    """Everything known of one object: stamp in ns -> truth, and -> pose or its errors."""

    truths: dict[int, FloatArray] = field(default_factory=dict)
    poses: dict[int, FloatArray] = field(default_factory=dict)
    add_of_diameter: dict[int, float] = field(default_factory=dict)
    errors: dict[int, PoseErrors] = field(default_factory=dict)


class Scoreboard:
    """Collects truths and poses; scores each pair once.

    Every true pose counts, whether the node saw the frame, dropped it or rejected the object: what
    has no pose is a miss. Of several poses of one object in one frame the first one published
    counts (the lowest instance). ADD(-S) is taken on the mesh's vertices.
    """

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._meshes: dict[str, Mesh | None] = {}
        self._tracks = {name: _Track() for name in library.objects}
        self._latencies_s: list[float] = []
        self._pose_stamps_ns: set[int] = set()

    def add_truth(self, name: str, stamp_ns: int, T_camera_object: FloatArray) -> None:
        """One true pose."""
        self._tracks[name].truths[stamp_ns] = T_camera_object

    def add_pose(
        self, name: str, stamp_ns: int, T_camera_object: FloatArray, latency_s: float
    ) -> None:
        """One published pose, received ``latency_s`` after its image's stamp."""
        self._tracks[name].poses.setdefault(stamp_ns, T_camera_object)
        self._latencies_s.append(latency_s)
        self._pose_stamps_ns.add(stamp_ns)

    def poses_at(self, stamp_ns: int) -> dict[str, FloatArray]:
        """Object -> published pose of one frame."""
        found = {name: track.poses.get(stamp_ns) for name, track in self._tracks.items()}
        return {name: T for name, T in found.items() if T is not None}

    def report(self) -> dict[str, Any]:
        """Per object that was to be seen: poses, recall, median errors; latency and rate over all.

        Medians, latency and rate are None where there is nothing to measure.
        """
        objects = {
            name: self._score(name, track) for name, track in self._tracks.items() if track.truths
        }
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

    def _score(self, name: str, track: _Track) -> dict[str, Any]:
        model = self._library[name]
        for stamp_ns in (track.truths.keys() & track.poses.keys()) - track.errors.keys():
            T_est, T_true = track.poses[stamp_ns], track.truths[stamp_ns]
            error_m = add_or_adds_error_m(T_est, T_true, self._vertices(name), model.symmetries)
            track.add_of_diameter[stamp_ns] = error_m / model.diameter_m
            track.errors[stamp_ns] = pose_errors(T_est, T_true, model.symmetries)
        errors = list(track.errors.values())
        shares = [track.add_of_diameter.get(stamp_ns, np.inf) for stamp_ns in track.truths]
        return {
            "poses": len(errors),
            "frames": len(track.truths),
            "recall_add_01d": round(recall(shares, ADD_THRESHOLD_DIAMETERS), 4),
            "median_error_mm": _median([e.translation_mm for e in errors]),
            "median_error_deg": _median([e.rotation_deg for e in errors]),
        }

    def _vertices(self, name: str) -> FloatArray:
        if name not in self._meshes:
            self._meshes[name] = self._library[name].load_mesh()
        mesh = self._meshes[name]
        # a library without its meshes: the surface samples are on the same surface
        return mesh.vertices_m if mesh is not None else self._library[name].surface[:, :3]

    def _rate_hz(self) -> float | None:
        if len(self._pose_stamps_ns) < 2:
            return None
        span_s = (max(self._pose_stamps_ns) - min(self._pose_stamps_ns)) / 1e9
        return round((len(self._pose_stamps_ns) - 1) / span_s, 2)


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None
