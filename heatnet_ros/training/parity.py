"""Do two networks say the same? Differences of decoded keypoints, poses and boxes, and limits.

Parity asks whether a file computes what the network that is shipped computes (PyTorch, float32):
the largest difference counts. Precision loss asks what float16 or bfloat16 arithmetic or rounded
weights cost; that is the user's choice, so it is measured, bounded and told, but it is no parity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heatnet_ros.config import EstimatorConfig, GateConfig
from heatnet_ros.errors import ModelError
from heatnet_ros.estimators.agreement import USED_BOX_SCORE, USED_CONFIDENCE, find_ambiguous
from heatnet_ros.estimators.heatnet import decode_heatmaps
from heatnet_ros.geometry.pnp import PnpSolution, solve_pnp
from heatnet_ros.training.real_samples import CropSample

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """What a file or an arithmetic must keep; None where nothing is asked.

    px: decoded keypoints in crop pixels, or boxes in input pixels. heatmap: any pixel, as a part of
    the crop's highest value over its lowest, so that a network sure of nothing is compared too.
    confidence: learned, or a box's score. ambiguous: share of the used keypoints.
    """

    max_px: float | None = None
    p99_px: float | None = None
    max_pose_mm: float | None = None
    median_pose_mm: float | None = None
    max_heatmap: float | None = None
    max_confidence: float | None = None
    max_ambiguous: float | None = None


PARITY = Limits(
    max_px=0.1, max_pose_mm=0.1, max_heatmap=1e-3, max_confidence=1e-3, max_ambiguous=0.01
)
BOX_PARITY = Limits(max_px=0.1, max_confidence=1e-3)
# half a crop pixel is a tenth of the RANSAC threshold; bfloat16 has 8 bits of mantissa
LOSS = {
    "bf16": Limits(p99_px=0.5),
    "fp16": Limits(p99_px=0.1),
    "rounding": Limits(p99_px=0.1),
}
BOX_LOSS = {
    "bf16": Limits(p99_px=2.0),
    "fp16": Limits(p99_px=0.5),
    "rounding": Limits(p99_px=0.5),
}


def compare_keypoints(
    expected: Sequence[Outputs], got: Sequence[Outputs], samples: Sequence[CropSample], stride: int
) -> dict[str, float]:
    """Differences of used keypoints and of the poses solved from them, over all samples.

    expected, got: per sample ``heatmaps`` 1xKxhxw and, where the network learned it, ``confidence``
    1xK. A used keypoint without a unique maximum is ``ambiguous``: counted, told, and left out of
    the rest, also of both poses. Poses count where the estimator and the gate accept the expected
    one; a pose that is not found again differs by infinity.
    """
    distances: list[np.ndarray] = []
    unclear: list[np.ndarray] = []
    shifts: list[tuple[float, float, float]] = []
    heights, sureness = [0.0], [0.0]
    for before, after, sample in zip(expected, got, samples, strict=True):
        points, confidence = _decode(before, stride)
        again, confidence_again = _decode(after, stride)
        used, ambiguous = confidence > USED_CONFIDENCE, find_ambiguous(before["heatmaps"][0])
        distance = np.linalg.norm(points - again, axis=1)
        distances.append(distance[used & ~ambiguous])
        unclear.append(distance[used & ambiguous])
        span = max(float(np.ptp(before["heatmaps"])), np.finfo(np.float32).tiny)
        heights.append(_largest(before["heatmaps"] - after["heatmaps"]) / span)
        if "confidence" in before:
            sureness.append(_largest(before["confidence"] - after["confidence"]))
        reference = solve_pose(sample, points, np.where(ambiguous, 0.0, confidence))
        if reference is not None:
            other = solve_pose(sample, again, np.where(ambiguous, 0.0, confidence_again), False)
            shifts.append(_shift(reference, other, sample))
    px, ambiguous_px = np.concatenate(distances), np.concatenate(unclear)
    mm, degrees, add_mm = np.array(shifts).reshape(-1, 3).T
    found = {
        "keypoints": len(px) + len(ambiguous_px),
        "ambiguous_keypoints": len(ambiguous_px),
        "ambiguous_max_px": _top(ambiguous_px),
        "max_px": _top(px),
        "p99_px": _top(px, 99),
        "max_heatmap": max(heights),
        "poses": len(mm),
        "max_pose_mm": _top(mm),
        "median_pose_mm": _top(mm, 50),
        "p95_pose_mm": _top(mm, 95),
        "max_pose_deg": _top(degrees),
        "max_add_mm": _top(add_mm),
    }
    if any("confidence" in outputs for outputs in expected):
        found["max_confidence"] = max(sureness)
    return found


def compare_boxes(expected: Sequence[Outputs], got: Sequence[Outputs]) -> dict[str, float]:
    """Differences of boxes that are sure, from the nearest box of the same class, input pixels.

    Outputs: ``detections`` 1xMx6. A box that is not found again differs by infinity.
    max_confidence: of the scores of such boxes, and of all scores in their order.
    """
    distances, scores = [], [0.0]
    for before, after in zip(expected, got, strict=True):
        rows, others = before["detections"][0], after["detections"][0]
        # equal scores may change places; of a network that is sure of nothing this is all there is
        scores.append(_largest(np.sort(rows[:, 4]) - np.sort(others[:, 4])))
        for row in rows[rows[:, 4] > USED_BOX_SCORE]:
            same = others[others[:, 5] == row[5]]
            if not len(same):
                distances.append(np.inf)
                continue
            distance = np.abs(same[:, :4] - row[:4]).max(axis=1)
            distances.append(float(distance.min()))
            scores.append(abs(float(same[distance.argmin(), 4] - row[4])))
    px = np.array(distances)
    return {
        "boxes": len(px),
        "max_px": _top(px),
        "p99_px": _top(px, 99),
        "max_confidence": max(scores),
    }


def count_compared(found: Mapping[str, float], samples: int, refuse: bool) -> dict[str, int]:
    """How many keypoints and poses, or boxes, a comparison is about.

    found: of ``compare_keypoints`` or ``compare_boxes``. Agreement on none shows nothing: that is
    a ModelError with ``refuse``, otherwise a printed warning.
    """
    counts = {key: int(found[key]) for key in ("keypoints", "poses", "boxes") if key in found}
    missing = [name for name, count in counts.items() if not count]
    if missing:
        text = (
            f"in {samples} samples no {' and no '.join(missing)} could be compared, expected some: "
            "the network is sure of nothing there, and the node will find nothing. Train longer"
        )
        if refuse:
            raise ModelError(f"Parity: {text}, or check that the images show its objects.")
        print(f"  warning: {text} and export again.", flush=True)
    return counts


def require(found: dict[str, float], limits: Limits, what: str, remedy: str) -> None:
    """Raise ModelError when a difference is over its limit or not a number.

    what: "Parity of model.onnx on openvino CPU fp32".
    """
    over = find_excess(found, limits)
    if over:
        raise ModelError(f"{what} failed: {over}; found {tell(found)}. Not exported. {remedy}")


def find_excess(found: dict[str, float], limits: Limits) -> str:
    """What is over its limit or not a number, in words; empty when nothing is."""
    values = dict(found)
    if found.get("keypoints"):
        values["max_ambiguous"] = found["ambiguous_keypoints"] / found["keypoints"]
    return ", ".join(
        f"{name} {values[name]:.4g} (allowed {limit:g})"
        for name, limit in asdict(limits).items()
        if limit is not None and name in values and not values[name] < limit
    )


def solve_pose(
    sample: CropSample, points_px: np.ndarray, confidence: np.ndarray, gated: bool = True
) -> PnpSolution | None:
    """The estimator's pose from keypoints (K, 2) of a crop; None where there is none.

    gated: also None where the gate's defaults would reject it.
    """
    config, gate = EstimatorConfig(), GateConfig()
    linear = sample.warp[:, :2]
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    image_px = (points_px - sample.warp[:, 2]) @ np.linalg.inv(linear).T
    weights = np.where(confidence >= config.min_confidence, confidence, 0.0)
    threshold_px = config.ransac_threshold_px / scale
    solution = solve_pnp(sample.model.keypoints_m, image_px, sample.K, weights, threshold_px)
    if solution is None or not gated:
        return solution
    count = int(solution.inliers.sum())
    score = confidence[solution.inliers].mean() * count / max(np.count_nonzero(weights), 1)
    accepted = (
        count >= gate.min_inliers
        and solution.reprojection_px * scale <= gate.max_reprojection_px
        and score >= gate.min_score
    )
    return solution if accepted else None


def _decode(outputs: Outputs, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (K, 2) and confidence (K,): the learned one where the network has it."""
    points, peaks = decode_heatmaps(outputs["heatmaps"], stride, EstimatorConfig().decode)
    if "confidence" in outputs:
        learned = outputs["confidence"].astype(np.float64)
        peaks = np.where(peaks > 0, learned, 0.0)
    return points[0], peaks[0]


def _shift(a: PnpSolution, b: PnpSolution | None, sample: CropSample) -> tuple[float, float, float]:
    """Distance of the origins (mm), angle (deg), mean distance of surface points (mm)."""
    if b is None:
        return np.inf, np.inf, np.inf
    Ta, Tb = a.T_camera_object, b.T_camera_object
    chord = np.linalg.norm(Ta[:3, :3] - Tb[:3, :3]) / (2 * np.sqrt(2))  # exact near 0
    angle = 2 * np.degrees(np.arcsin(min(1.0, chord)))
    surface = sample.model.surface[:, :3]
    moved = surface @ (Ta - Tb)[:3, :3].T + (Ta - Tb)[:3, 3]
    add = np.linalg.norm(moved, axis=1).mean()
    return 1e3 * float(np.linalg.norm((Ta - Tb)[:3, 3])), float(angle), 1e3 * float(add)


def _largest(difference: np.ndarray) -> float:
    largest = float(np.abs(difference).max())
    return largest if np.isfinite(largest) else np.inf


def _top(values: np.ndarray, percentile: float = 100) -> float:
    # "higher": a percentile between a number and infinity would be no number
    if not len(values):
        return 0.0
    return float(np.percentile(values, percentile, method="higher"))


def tell(found: Mapping[str, Any]) -> dict[str, Any]:
    """As a manifest has it: four significant digits."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in found.items()
    }
