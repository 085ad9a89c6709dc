"""Scores of estimated poses over many images, as a table and as JSON."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from heatnet_ros.metrics import (
    PoseErrors,
    add_or_adds_error_m,
    match_instances,
    pose_errors,
    projection_error_px,
    recall,
)
from heatnet_ros.objects import ObjectLibrary
from heatnet_ros.types import FloatArray, PipelineResult, PoseEstimate

ADD_THRESHOLD_DIAMETERS = 0.1
PROJECTION_THRESHOLD_PX = 5.0
MIN_VISIBLE_FRACTION = 0.1


@dataclass(frozen=True, eq=False)
class TruePose:
    """Where an object instance really is. visible_fraction: 0..1, or None where unknown."""

    object_id: str
    T_camera_object: FloatArray
    visible_fraction: float | None = None

    @property
    def is_target(self) -> bool:
        """Whether it has to be found: visible to a tenth, or of unknown visibility."""
        return self.visible_fraction is None or self.visible_fraction >= MIN_VISIBLE_FRACTION


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object; recalls count a miss as wrong, medians are over what was found.

    measured_on: ``mesh`` (its vertices) or ``surface`` (the library's samples, where the mesh file
    is absent). rejected: reason -> number of detections. Medians are None where nothing was found.
    """

    targets: int
    found: int
    recall_add_01d: float
    recall_projection_5px: float
    median_error_mm: float | None
    median_error_deg: float | None
    measured_on: str
    rejected: Mapping[str, int]


@dataclass
class _Tally:
    add_diameters: list[float] = field(default_factory=list)
    projection_px: list[float] = field(default_factory=list)
    errors: list[PoseErrors] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


class Scorer:
    """Collects images, then summarises. Only objects of the library are scored."""

    def __init__(self, library: ObjectLibrary) -> None:
        self._library = library
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)
        self._points: dict[str, tuple[FloatArray, str]] = {}

    def add(self, result: PipelineResult, truths: Sequence[TruePose], K: FloatArray) -> None:
        """Compare one image's result with its truth. K 3x3 of the image."""
        for rejection in result.rejected:
            self._tallies[rejection.object_id].rejected[rejection.reason.value] += 1
        for name in self._library.objects:
            targets = [truth for truth in truths if truth.object_id == name and truth.is_target]
            if targets:
                poses = [pose for pose in result.poses if pose.object_id == name]
                self._add_object(name, poses, targets, K)

    def _add_object(
        self, name: str, poses: list[PoseEstimate], targets: list[TruePose], K: FloatArray
    ) -> None:
        model, tally = self._library[name], self._tallies[name]
        points, _ = self._model_points(name)
        errors = np.array(
            [
                [
                    add_or_adds_error_m(
                        pose.T_camera_object, truth.T_camera_object, points, model.symmetries
                    )
                    for truth in targets
                ]
                for pose in poses
            ]
        ).reshape(len(poses), len(targets))
        matched = match_instances(errors, [pose.score for pose in poses])
        for t, (truth, e) in enumerate(zip(targets, matched, strict=True)):
            if e is None:
                tally.add_diameters.append(math.inf)
                tally.projection_px.append(math.inf)
                continue
            T_est, T_true = poses[e].T_camera_object, truth.T_camera_object
            tally.add_diameters.append(float(errors[e, t]) / model.diameter_m)
            pixels = projection_error_px(T_est, T_true, points, K, model.symmetries)
            tally.projection_px.append(pixels)
            tally.errors.append(pose_errors(T_est, T_true, model.symmetries))

    def _model_points(self, name: str) -> tuple[FloatArray, str]:
        if name not in self._points:
            mesh = self._library[name].load_mesh()
            samples = self._library[name].surface[:, :3]
            self._points[name] = (samples, "surface") if mesh is None else (mesh.vertices_m, "mesh")
        return self._points[name]

    def summarize(self) -> dict[str, ObjectScore]:
        """Scores by object, for the objects that had a target, in the library's order."""
        scores = {}
        for name in self._library.objects:
            tally = self._tallies[name]
            if not tally.add_diameters:
                continue
            medians = np.median(tally.errors, axis=0).tolist() if tally.errors else [None, None]
            scores[name] = ObjectScore(
                targets=len(tally.add_diameters),
                found=len(tally.errors),
                recall_add_01d=recall(tally.add_diameters, ADD_THRESHOLD_DIAMETERS),
                recall_projection_5px=recall(tally.projection_px, PROJECTION_THRESHOLD_PX),
                median_error_mm=medians[0],
                median_error_deg=medians[1],
                measured_on=self._model_points(name)[1],
                rejected=dict(tally.rejected),
            )
        return scores


def build_report(scores: Mapping[str, ObjectScore]) -> dict[str, Any]:
    """JSON form; the means are over objects and None without any."""
    return {
        "objects": {name: asdict(score) for name, score in scores.items()},
        "recall_add_01d": _mean([score.recall_add_01d for score in scores.values()]),
        "recall_projection_5px": _mean([score.recall_projection_5px for score in scores.values()]),
        "min_visible_fraction": MIN_VISIBLE_FRACTION,
    }


def format_table(scores: Mapping[str, ObjectScore]) -> str:
    """Text for a terminal: one line per object and their mean."""
    width = max([len(name) for name in scores] + [6])
    lines = [
        f"{'object':<{width}}  targets  found  ADD(-S) 0.1d  2D 5 px  median mm  median deg"
        "  rejected"
    ]
    for name, score in scores.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in score.rejected.items())
        lines.append(
            f"{name:<{width}}  {score.targets:7d}  {score.found:5d}  {score.recall_add_01d:12.3f}"
            f"  {score.recall_projection_5px:7.3f}  {_number(score.median_error_mm, 9)}"
            f"  {_number(score.median_error_deg, 10)}  {reasons or '-'}"
        )
    add = _mean([score.recall_add_01d for score in scores.values()])
    pixels = _mean([score.recall_projection_5px for score in scores.values()])
    if add is not None and pixels is not None:
        lines.append(f"{'mean':<{width}}  {'':7}  {'':5}  {add:12.3f}  {pixels:7.3f}")
    for name, score in scores.items():
        if score.measured_on == "surface":
            lines.append(f"{name}: its mesh file is absent, errors are on the library's samples")
    return "\n".join(line.rstrip() for line in lines)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _number(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.2f}"
