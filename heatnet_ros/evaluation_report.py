"""An evaluation as JSON and as tables in the form of the HeatNet paper and of BOP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from heatnet_ros.evaluate import MIN_VISIBLE_FRACTION, Evaluation

RECALLS = ("add_002d", "add_005d", "add_01d", "auc", "proj_5px", "mspd", "mssd", "vsd")

# The paper's numbers on LINEMOD, in percent: mAP@50:95 and ADD(-S) of the RGB network with FPS
# keypoints (Table 2, validation), ADD(-S) of the RGB and of the best RGB-D network (Table 4, test)
PAPER = {
    "ape": (96.1, 61.14, 52.42, 73.39),
    "benchvise": (98.1, 93.64, 92.56, 97.52),
    "cam": (97.6, 89.27, 90.83, 92.50),
    "can": (98.9, 89.73, 90.00, 93.33),
    "cat": (98.0, 81.98, 77.12, 93.22),
    "driller": (98.0, 97.47, 96.64, 98.32),
    "duck": (96.7, 66.67, 61.60, 80.00),
    "eggbox": (97.7, 87.72, 87.20, 96.00),
    "glue": (94.5, 91.44, 86.89, 95.90),
    "holepuncher": (97.0, 87.91, 83.87, 93.55),
    "iron": (98.4, 93.09, 93.91, 95.65),
    "lamp": (97.8, 98.21, 95.90, 96.72),
    "phone": (97.9, 88.79, 89.52, 95.16),
}
_PAPER_COLUMNS = ("T2 mAP", "T2 FPS", "T4 RGB", "T4 RGB-D")


def mean_scores(evaluation: Evaluation, with_unknown: bool) -> dict[str, Any]:
    """Means over the objects, under the keys of the objects, and the sum of the targets.

    with_unknown: objects that a targets file asks for and the model does not know count as 0.
    """
    scores = evaluation.scores.values()
    unknown = evaluation.not_in_model if with_unknown and evaluation.counts_unknown else {}
    means: dict[str, Any] = {
        "targets": sum(score.targets for score in scores) + sum(unknown.values())
    }
    for key in RECALLS:
        values = [getattr(score, key) for score in scores if getattr(score, key) is not None]
        if key != "vsd" or values:
            values += [0.0] * len(unknown)
        means[key] = _mean(values)
    return means


def average_recalls(evaluation: Evaluation, with_unknown: bool) -> dict[str, float | None]:
    """BOP's average recalls over all targets: mspd, mssd, vsd and their mean ``ar``.

    VSD is part of ``ar`` only where every target has a depth image, else it would be of others.
    """
    scores = list(evaluation.scores.values())
    unknown = with_unknown and evaluation.counts_unknown
    extra = sum(evaluation.not_in_model.values()) if unknown else 0
    total = sum(score.targets for score in scores)
    with_depth = sum(score.vsd_targets for score in scores)
    if not total + extra:
        return dict.fromkeys(("mspd", "mssd", "vsd", "ar"))
    mspd, mssd = (
        sum(getattr(score, key) * score.targets for score in scores) / (total + extra)
        for key in ("mspd", "mssd")
    )
    vsd, parts = None, [mspd, mssd]
    if with_depth == total and total:
        vsd = sum((score.vsd or 0.0) * score.vsd_targets for score in scores) / (total + extra)
        parts.append(vsd)
    elif with_depth:
        vsd = sum((score.vsd or 0.0) * score.vsd_targets for score in scores) / with_depth
    return {"mspd": mspd, "mssd": mssd, "vsd": vsd, "ar": float(np.mean(parts))}


def build_report(evaluation: Evaluation) -> dict[str, Any]:
    """JSON form. ``mean`` and ``ar`` count objects that were asked for and are unknown as failures.

    Beside them ``mean_in_model`` and ``ar_in_model`` are over the model's own objects. Unknown
    values are None.
    """
    recalls = average_recalls(evaluation, with_unknown=True)
    return {
        "objects": {name: asdict(score) for name, score in evaluation.scores.items()},
        "objects_not_in_model": dict(evaluation.not_in_model),
        "mean": mean_scores(evaluation, with_unknown=True),
        "mean_in_model": mean_scores(evaluation, with_unknown=False),
        "ar": recalls["ar"],
        "ar_parts": {key: recalls[key] for key in ("mspd", "mssd", "vsd")},
        "ar_in_model": average_recalls(evaluation, with_unknown=False)["ar"],
        "min_visible_fraction": MIN_VISIBLE_FRACTION,
        "notes": describe_limits(evaluation),
    }


def describe_limits(evaluation: Evaluation) -> list[str]:
    """What a reader of the numbers has to know, one sentence each."""
    notes = []
    total = sum(score.targets for score in evaluation.scores.values())
    with_depth = sum(score.vsd_targets for score in evaluation.scores.values())
    if total and not with_depth:
        notes.append(
            "No target has a VSD (`evaluate` takes it, of images with depth): "
            "AR is the mean of MSPD, MSSD."
        )
    elif with_depth < total:
        notes.append(
            f"VSD is over the {with_depth} of {total} targets in images with depth: AR is the mean "
            "of MSPD and MSSD alone."
        )
    if evaluation.not_in_model:
        names = ", ".join(f"{name} ({n})" for name, n in evaluation.not_in_model.items())
        counted = (
            "the targets file asks for them, so they count as failures in 'mean' and 'ar', not in "
            "'mean_in_model' and 'ar_in_model'"
            if evaluation.counts_unknown
            else "they are counted nowhere"
        )
        notes.append(f"Not in the model: {names}; {counted}.")
    samples = [name for name, s in evaluation.scores.items() if s.measured_on == "surface"]
    if samples:
        notes.append(
            f"{', '.join(samples)}: the mesh file is absent, errors are on the library's samples."
        )
    return notes


def format_paper_table(evaluation: Evaluation, maps: Mapping[str, float]) -> str:
    """Text for a terminal in the form of the paper's Tables 2 and 4, theirs beside ours.

    maps: object -> detection mAP, 0..1. All in percent; symmetric objects have an asterisk. The
    last rows are the means: over the model's objects, and with those it does not know as failures.
    """
    scores = evaluation.scores
    with_paper = [name for name in scores if name in PAPER]
    columns = ["mAP", "ADD(-S) 0.1d", *(_PAPER_COLUMNS if with_paper else ())]
    rows = []
    for name, score in scores.items():
        cells: list[float | None] = [_percent(maps.get(name)), _percent(score.add_01d)]
        cells += PAPER.get(name, (None,) * len(_PAPER_COLUMNS)) if with_paper else ()
        rows.append((name + ("*" if score.symmetric else ""), cells))
    known = [_mean(values) for values in zip(*(cells for _, cells in rows), strict=True)]
    if rows:
        rows.append((f"mean of {len(scores)}", known))
    rows += [(f"{name} (not in model)", []) for name in evaluation.not_in_model]
    if evaluation.counts_unknown:
        count = len(scores) + len(evaluation.not_in_model)
        strict = [None if v is None else v * len(scores) / count for v in known[:2]] or [None, 0.0]
        rows.append((f"mean of all {count}", strict))
    lines = _align(columns, rows, digits=2)
    if with_paper:
        lines.append(
            "T2, T4: Tables 2 and 4 of the HeatNet paper, on LINEMOD with its random 90/10 split"
        )
    return "\n".join(lines)


def format_table(evaluation: Evaluation) -> str:
    """Text for a terminal: targets, recalls, median errors and rejections, one line per object."""
    keys = ("add_01d", "add_005d", "add_002d", *RECALLS[3:])
    columns = [
        "targets", "found", "ADD(-S) 0.1d", "0.05d", "0.02d", "AUC", "2D 5px", "MSPD", "MSSD",
        "VSD", "median mm", "deg",
    ]  # fmt: skip
    rows: list[tuple[str, list[float | None]]] = []
    for name, score in evaluation.scores.items():
        cells: list[float | None] = [score.targets, score.found]
        cells += [getattr(score, key) for key in keys]
        cells += [score.median_error_mm, score.median_error_deg]
        rows.append((name + ("*" if score.symmetric else ""), cells))
    rows += [(f"{n} (not in model)", [c]) for n, c in evaluation.not_in_model.items()]
    means = [("mean", False)] if evaluation.scores else []
    means += [("mean of all", True)] if evaluation.counts_unknown else []
    for title, with_unknown in means:
        mean = mean_scores(evaluation, with_unknown)
        rows.append((title, [mean["targets"], None, *(mean[key] for key in keys)]))
    lines = _align(columns, rows, digits=3)
    for name, score in evaluation.scores.items():
        if score.rejected:
            reasons = ", ".join(f"{reason} {count}" for reason, count in score.rejected.items())
            lines.append(f"{name} rejected: {reasons}")
    if any(score.symmetric for score in evaluation.scores.values()):
        lines.append("* symmetric: measured by ADD-S")
    return "\n".join([*lines, *describe_limits(evaluation)])


def _align(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]], digits: int
) -> list[str]:
    """Lines of a table; whole numbers stay whole, None becomes a dash, missing cells blank."""
    width = max([len(title) for title, _ in rows] + [len("object")])
    lines = [f"{'object':<{width}}  " + "  ".join(f"{c:>{max(len(c), 6)}}" for c in columns)]
    for title, cells in rows:
        texts = []
        for column, value in zip(columns, cells, strict=False):
            text = "-" if value is None else str(value)
            if isinstance(value, float):
                text = f"{value:.{digits}f}"
            texts.append(f"{text:>{max(len(column), 6)}}")
        lines.append(f"{title:<{width}}  " + "  ".join(texts))
    return [line.rstrip() for line in lines]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
