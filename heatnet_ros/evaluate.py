"""Scores of estimated poses over many images: a record of every target, recalls by object.

A target that is not found is a failure and always counts. Symmetric objects are measured by ADD-S,
and everything on the vertices of a mesh, never on keypoints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from heatnet_ros.errors import DataError
from heatnet_ros.geometry.symmetry import Symmetries
from heatnet_ros.mesh import Mesh
from heatnet_ros.metrics import (
    MSPD_IMAGE_WIDTH_PX,
    MSPD_THRESHOLDS_PX,
    MSSD_THRESHOLDS,
    VSD_THRESHOLDS,
    add_or_adds_error_m,
    auc,
    count_hits,
    match_instances,
    mspd_error_px,
    mssd_error_m,
    pose_errors,
    projection_error_px,
    recall,
    vsd_errors,
)
from heatnet_ros.types import DepthF32, FloatArray, PipelineResult, PoseEstimate

ADD_THRESHOLD_DIAMETERS = 0.1
PROJECTION_THRESHOLD_PX = 5.0
MIN_VISIBLE_FRACTION = 0.1
NOT_DETECTED = "not_detected"
NO_POSE_KEPT = "no_pose_kept"  # detected, but the pose belongs to another instance or was a double

# mesh, K, T_camera_object, (width, height) -> HxW float32 metres, 0 where the mesh is not
DepthRenderer = Callable[[Mesh, FloatArray, FloatArray, tuple[int, int]], DepthF32]


@dataclass(frozen=True, eq=False)
class TruePose:
    """Where an object instance really is.

    visible_fraction: 0..1, or None where unknown. bbox_xyxy_px: first and last pixel of the
    visible part, or None where unknown.
    """

    object_id: str
    T_camera_object: FloatArray
    visible_fraction: float | None = None
    bbox_xyxy_px: tuple[float, float, float, float] | None = None

    @property
    def is_target(self) -> bool:
        """Whether it has to be found: visible to a tenth, or of unknown visibility."""
        return self.visible_fraction is None or self.visible_fraction >= MIN_VISIBLE_FRACTION


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """What an image really shows. K 3x3. depth_m: HxW as measured, or None.

    targets: object -> number of instances to find, as a BOP targets file says it; None: every
    instance that is visible to a tenth.
    """

    name: str
    K: FloatArray
    width_px: int
    truths: Sequence[TruePose]
    targets: Mapping[str, int] | None = None
    depth_m: DepthF32 | None = None

    def select_targets(self) -> dict[str, list[TruePose]]:
        """Object -> instances to find; of more than the targets ask for, the most visible ones.

        Raises DataError where the targets ask for more instances than there are.
        """
        selected: dict[str, list[TruePose]] = {}
        for name in dict.fromkeys([truth.object_id for truth in self.truths]):
            mine = [truth for truth in self.truths if truth.object_id == name]
            if self.targets is None:
                selected[name] = [truth for truth in mine if truth.is_target]
            else:
                mine.sort(key=lambda t: -1.0 if t.visible_fraction is None else -t.visible_fraction)
                selected[name] = mine[: self.targets.get(name, 0)]
        for name, count in (self.targets or {}).items():
            if len(selected.get(name, [])) < count:
                raise DataError(
                    f"Image {self.name}: the targets file asks for {count} of '{name}', the ground "
                    f"truth has {len(selected.get(name, []))}. Download the data set again."
                )
        return {name: truths for name, truths in selected.items() if truths}


@dataclass(frozen=True, eq=False)
class EvaluationModel:
    """What an object is measured on: points_m Nx3, normally the vertices of ``mesh``.

    measured_on: ``models_eval`` or ``models`` (the data set's), ``mesh`` (the library's) or
    ``surface`` (the library's samples, where no mesh file is there).
    """

    points_m: FloatArray
    diameter_m: float
    symmetries: Symmetries
    mesh: Mesh | None
    measured_on: str


@dataclass(frozen=True)
class TargetRecord:
    """One target and how well it was found; the errors are None where it was not.

    vsd: mean over BOP's tolerances, None without depth. reason: why there is no pose, else "".
    """

    image: str
    object: str
    visible_fraction: float | None
    found: bool
    reason: str = ""
    score: float | None = None
    add_diameters: float | None = None
    projection_px: float | None = None
    mspd_px: float | None = None
    mssd_diameters: float | None = None
    vsd: float | None = None
    translation_mm: float | None = None
    rotation_deg: float | None = None


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object; recalls count a miss as wrong, medians are over what was found.

    add_*: recalls of ADD(-S) at 0.02, 0.05 and 0.1 diameters; auc: up to 0.1 m; mspd, mssd, vsd:
    BOP's average recalls, vsd over the ``vsd_targets`` in images with depth, None without any.
    rejected: reason -> number of detections. Medians are None where nothing was found.
    """

    targets: int
    found: int
    symmetric: bool
    add_002d: float
    add_005d: float
    add_01d: float
    auc: float
    proj_5px: float
    mspd: float
    mssd: float
    vsd: float | None
    vsd_targets: int
    median_error_mm: float | None
    median_error_deg: float | None
    measured_on: str
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class Evaluation:
    """The outcome: scores by object, every target, and what the model does not know.

    not_in_model: object -> its targets. counts_unknown: a targets file asks for them, so that the
    means count them as failures.
    """

    scores: Mapping[str, ObjectScore]
    records: Sequence[TargetRecord]
    not_in_model: Mapping[str, int]
    counts_unknown: bool


@dataclass
class _Tally:
    add_m: list[float] = field(default_factory=list)
    records: list[TargetRecord] = field(default_factory=list)
    mspd_hits: list[float] = field(default_factory=list)  # mean over the thresholds, of each image
    mssd_hits: list[float] = field(default_factory=list)
    vsd_hits: list[float] = field(default_factory=list)
    vsd_targets: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


class Scorer:
    """Collects images, then summarises.

    known: the objects that the model can find, in the order of the tables. load_model: their
    meshes, loaded when first needed. render_depth: for VSD, which is left out without it.
    """

    def __init__(
        self,
        known: Collection[str],
        load_model: Callable[[str], EvaluationModel],
        render_depth: DepthRenderer | None = None,
    ) -> None:
        self._known, self._load_model, self._render_depth = list(known), load_model, render_depth
        self._tallies = {name: _Tally() for name in self._known}
        self._models: dict[str, EvaluationModel] = {}
        self._not_in_model: Counter[str] = Counter()
        self._counts_unknown = False

    def add(self, result: PipelineResult, image: ImageTruth) -> None:
        """Compare one image's result with its truth."""
        for rejection in result.rejected:
            if rejection.object_id in self._tallies:
                self._tallies[rejection.object_id].rejected[rejection.reason.value] += 1
        for name, targets in image.select_targets().items():
            if name in self._tallies:
                self._add_object(name, result, targets, image)
            else:
                self._not_in_model[name] += len(targets)
                self._counts_unknown |= image.targets is not None

    def _model(self, name: str) -> EvaluationModel:
        if name not in self._models:
            self._models[name] = self._load_model(name)
        return self._models[name]

    def _add_object(
        self, name: str, result: PipelineResult, targets: Sequence[TruePose], image: ImageTruth
    ) -> None:
        model, tally = self._model(name), self._tallies[name]
        poses = [pose for pose in result.poses if pose.object_id == name]
        # as in BOP, there are no more tries than targets
        poses = sorted(poses, key=lambda pose: -pose.score)[: len(targets)]
        errors = _compare(poses, targets, image, model, self._render_depth)
        scores = [pose.score for pose in poses]
        # BOP's thresholds are for images 640 wide
        pixels = MSPD_THRESHOLDS_PX * image.width_px / MSPD_IMAGE_WIDTH_PX
        tally.mspd_hits.append(float(count_hits(errors.mspd_px, scores, pixels).mean()))
        tally.mssd_hits.append(float(count_hits(errors.mssd, scores, MSSD_THRESHOLDS).mean()))
        if errors.vsd is not None:
            hits = [count_hits(of_tau, scores, VSD_THRESHOLDS) for of_tau in errors.vsd]
            tally.vsd_hits.append(float(np.mean(hits)))
            tally.vsd_targets += len(targets)
        matched = match_instances(errors.add_m, scores)
        for t, (truth, e) in enumerate(zip(targets, matched, strict=True)):
            tally.add_m.append(math.inf if e is None else float(errors.add_m[e, t]))
            if e is None:
                reason = _missing_reason(name, result)
                record = TargetRecord(image.name, name, truth.visible_fraction, False, reason)
            else:
                record = _record(poses[e], truth, image, model, errors, (e, t))
            tally.records.append(record)

    def summarize(self) -> Evaluation:
        """Scores by object, for the objects that had a target, and all records."""
        scores = {
            name: _score(tally, self._model(name))
            for name, tally in self._tallies.items()
            if tally.records
        }
        records = [record for tally in self._tallies.values() for record in tally.records]
        return Evaluation(scores, records, dict(self._not_in_model), self._counts_unknown)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Of E estimates to T targets: E x T each; vsd: 10 x E x T or None. mssd in diameters."""

    add_m: FloatArray
    mspd_px: FloatArray
    mssd: FloatArray
    vsd: FloatArray | None


def _compare(
    poses: Sequence[PoseEstimate],
    targets: Sequence[TruePose],
    image: ImageTruth,
    model: EvaluationModel,
    render_depth: DepthRenderer | None,
) -> _Errors:
    points, symmetries, shape = model.points_m, model.symmetries, (len(poses), len(targets))
    add_m, mspd_px, mssd = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for e, pose in enumerate(poses):
        for t, truth in enumerate(targets):
            T_est, T_true = pose.T_camera_object, truth.T_camera_object
            add_m[e, t] = add_or_adds_error_m(T_est, T_true, points, symmetries)
            mspd_px[e, t] = mspd_error_px(T_est, T_true, points, image.K, symmetries)
            mssd[e, t] = mssd_error_m(T_est, T_true, points, symmetries) / model.diameter_m
    vsd = None
    if render_depth is not None and image.depth_m is not None and model.mesh is not None:
        vsd = np.zeros((len(VSD_THRESHOLDS), *shape))
        size_wh = (image.depth_m.shape[1], image.depth_m.shape[0])
        estimated, true = (
            [render_depth(model.mesh, image.K, item.T_camera_object, size_wh) for item in items]
            for items in (poses, targets)
        )
        for e, t in np.ndindex(shape):
            vsd[:, e, t] = vsd_errors(
                estimated[e], true[t], image.depth_m, image.K, model.diameter_m
            )
    return _Errors(add_m, mspd_px, mssd, vsd)


def _record(
    pose: PoseEstimate,
    truth: TruePose,
    image: ImageTruth,
    model: EvaluationModel,
    errors: _Errors,
    at: tuple[int, int],
) -> TargetRecord:
    T_est, T_true = pose.T_camera_object, truth.T_camera_object
    moved = pose_errors(T_est, T_true, model.symmetries)
    pixels = projection_error_px(T_est, T_true, model.points_m, image.K, model.symmetries)
    return TargetRecord(
        image=image.name,
        object=pose.object_id,
        visible_fraction=truth.visible_fraction,
        found=True,
        score=pose.score,
        add_diameters=float(errors.add_m[at]) / model.diameter_m,
        projection_px=_finite(pixels),
        mspd_px=_finite(float(errors.mspd_px[at])),
        mssd_diameters=float(errors.mssd[at]),
        vsd=None if errors.vsd is None else float(errors.vsd[:, at[0], at[1]].mean()),
        translation_mm=moved.translation_mm,
        rotation_deg=moved.rotation_deg,
    )


def _missing_reason(name: str, result: PipelineResult) -> str:
    reasons = dict.fromkeys(r.reason.value for r in result.rejected if r.object_id == name)
    if reasons:
        return ", ".join(reasons)
    seen = any(detection.object_id == name for detection in result.detections)
    return NO_POSE_KEPT if seen else NOT_DETECTED


def _score(tally: _Tally, model: EvaluationModel) -> ObjectScore:
    count, records = len(tally.records), tally.records
    add = [math.inf if r.add_diameters is None else r.add_diameters for r in records]
    pixels = [math.inf if r.projection_px is None else r.projection_px for r in records]
    return ObjectScore(
        targets=count,
        found=sum(record.found for record in records),
        symmetric=model.symmetries.any,
        add_002d=recall(add, 0.02),
        add_005d=recall(add, 0.05),
        add_01d=recall(add, ADD_THRESHOLD_DIAMETERS),
        auc=auc(tally.add_m),
        proj_5px=recall(pixels, PROJECTION_THRESHOLD_PX),
        mspd=sum(tally.mspd_hits) / count,
        mssd=sum(tally.mssd_hits) / count,
        vsd=sum(tally.vsd_hits) / tally.vsd_targets if tally.vsd_targets else None,
        vsd_targets=tally.vsd_targets,
        median_error_mm=_median([r.translation_mm for r in records]),
        median_error_deg=_median([r.rotation_deg for r in records]),
        measured_on=model.measured_on,
        rejected=dict(tally.rejected),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
