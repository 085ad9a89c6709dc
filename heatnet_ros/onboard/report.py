"""The report: one HTML file with everything in it, for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heatnet_ros.datasets.entries import load_json
from heatnet_ros.files import write_whole
from heatnet_ros.onboard.budget import Plan
from heatnet_ros.onboard.charts import Line, draw_histogram, draw_lines
from heatnet_ros.onboard.check import CheckedObject
from heatnet_ros.onboard.options import Places
from heatnet_ros.onboard.pictures import (
    Picture,
    choose_worst,
    overlay_pictures,
    training_pictures,
    worst_pictures,
)

CAVEAT = (
    "All numbers here are from rendered images: held-out scenes that no training saw, drawn by the "
    "same rules as the training images, with simulated noise of camera and depth sensor. They say "
    "that the networks learned what was rendered. They do not say how well the real parts are "
    "found by your camera, which is usually worse: lights, materials and colours differ from the "
    "CAD model's. Look at real images with `predict`, and measure with `evaluate` on images with "
    "known poses before you rely on it."
)
_ADD_EDGES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
_TURN_EDGES = [0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20]
_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("targets", "targets", "d"),
    ("found", "found", "d"),
    ("ADD(-S) < 0.1 d", "add_01d", "%"),
    ("< 0.05 d", "add_005d", "%"),
    ("< 0.02 d", "add_002d", "%"),
    ("2D 5 px", "proj_5px", "%"),
    ("MSPD", "mspd", "%"),
    ("MSSD", "mssd", "%"),
    ("VSD", "vsd", "%"),
    ("mAP", "map", "%"),
    ("median mm", "median_error_mm", ".1f"),
    ("median deg", "median_error_deg", ".1f"),
)
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
h1{margin-bottom:0}h2{margin-top:2em;border-bottom:1px solid #ccc}table{border-collapse:collapse}
td,th{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}
.grid{display:flex;flex-wrap:wrap;gap:12px}figure{margin:0;max-width:400px}img{max-width:100%}
figcaption{font-size:13px;color:#555}.note{background:#fff4d6;padding:.8em 1em;border-radius:6px}
pre{background:#f3f3f3;padding:.8em;overflow-x:auto;font-size:13px;white-space:pre-wrap}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}.note{background:#4a3c12}
pre{background:#262626}figcaption{color:#aaa}}
"""


def write_report(
    places: Places,
    document: Mapping[str, Any],
    objects: Sequence[CheckedObject],
    plan: Plan,
    commands: Sequence[str],
) -> None:
    """Write ``runs/NAME/report.html``. document: the state's. commands: what to do next.

    Raises DataError when results are missing or damaged, or the file cannot be written.
    """
    evaluation = load_json(places.evaluation, dict)
    records: list[dict[str, Any]] = evaluation["records"]
    mean = evaluation["mean"]["add_01d"]
    title = f"{places.name}: {', '.join(item.name for item in objects)}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_percent(mean)} of {len(records)} targets in {evaluation['images']} held-out images "
        "found with ADD(-S) below a tenth of the diameter (mean over the objects; a missed object "
        "counts as wrong).</p>",
        f'<p class="note">{html.escape(CAVEAT)}</p>',
        "<h2>Next</h2>",
        _pre("\n".join(commands)),
        "<h2>Accuracy on held-out scenes</h2>",
        _score_table(evaluation),
        _list(evaluation["notes"]),
        '<div class="grid">',
        *(chart for name in evaluation["objects"] for chart in _object_charts(name, records)),
        "</div>",
        "<h2>Worst cases</h2><p>The estimate as drawn by the node, the true outline in white.</p>",
        _gallery(worst_pictures(places, choose_worst(records))),
        "<h2>Evaluation images</h2>",
        _gallery(overlay_pictures(places)),
        "<h2>Training images</h2><p>Do these look like what your camera will see?</p>",
        _gallery(training_pictures(places)),
        "<h2>Training</h2>",
        '<div class="grid">',
        *_training_charts(places),
        "</div>",
        "<h2>What was decided, and why</h2>",
        _decisions(objects, plan, document),
        "<h2>Machine and times</h2>",
        _machine(document, evaluation),
        _times(document, plan),
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    text = f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'
    write_whole(places.report, text)


def _score_table(evaluation: Mapping[str, Any]) -> str:
    rows = [(name, entry) for name, entry in evaluation["objects"].items()]
    rows.append(("mean", {**evaluation["mean"], "found": None}))
    head = "".join(f"<th>{html.escape(title)}</th>" for title in ("object", *_titles()))
    lines = [f"<tr>{head}</tr>"]
    for name, entry in rows:
        symmetric = "*" if entry.get("symmetric") else ""
        cells = [f"<td>{_format(entry.get(key), form)}</td>" for _, key, form in _COLUMNS]
        lines.append(f"<tr><td>{html.escape(name)}{symmetric}</td>{''.join(cells)}</tr>")
    rejected = [
        f"{name}: rejected by the gate: "
        + ", ".join(f"{reason} {count}" for reason, count in entry["rejected"].items())
        for name, entry in evaluation["objects"].items()
        if entry.get("rejected")
    ]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>' + _list(
        ["* symmetric: measured by ADD-S.", *rejected]
    )


def _titles() -> list[str]:
    return [title for title, _, _ in _COLUMNS]


def _format(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return _percent(value) if form == "%" else format(value, form)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _object_charts(name: str, records: Sequence[Mapping[str, Any]]) -> list[str]:
    mine = [record for record in records if record["object"] == name]
    found = [record for record in mine if record["found"]]
    missed = len(mine) - len(found)
    charts = []
    for key, scale, edges, title, unit in (
        ("add_diameters", 100, _ADD_EDGES, "ADD(-S)", "per cent of the diameter"),
        ("rotation_deg", 1, _TURN_EDGES, "rotation error", "degrees"),
    ):
        values = [scale * record[key] for record in found if record[key] is not None]
        beyond = sum(value > edges[-1] for value in values)
        extra = [(f"> {edges[-1]}", beyond), ("missed", missed)]
        charts.append(draw_histogram(values, edges, extra, f"{name}: {title}", unit))
    return charts


def _training_charts(places: Places) -> list[str]:
    charts = []
    for network, what in (("yolo", "detector"), ("heatnet", "HeatNet")):
        entries = read_log(places.training(network) / "log.jsonl")
        loss = [(entry["seen"], entry["loss"]) for entry in entries if "loss" in entry]
        charts.append(draw_lines([Line("loss", loss)], f"{what}: loss", "samples seen"))
        scores = [(entry["seen"], entry["held_out"]) for entry in entries if "held_out" in entry]
        names = [
            name
            for name in (scores[-1][1] if scores and isinstance(scores[-1][1], dict) else {})
            if "recall" in name or "precision" in name
        ]
        lines = [
            Line(name, [(seen, found[name]) for seen, found in scores if name in found])
            for name in names[:6]
        ]
        title = f"{what}: held-out {'frames' if network == 'yolo' else 'crops, PnP alone'}"
        charts.append(draw_lines(lines, title, "samples seen"))
    return charts


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a training's log that are whole. Empty where the run was removed."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # cut off by a kill
    return found


def _decisions(objects: Sequence[CheckedObject], plan: Plan, document: Mapping[str, Any]) -> str:
    parts = []
    for item in objects:
        decisions = [f"symmetry {text}" for text in item.decisions] or ["no symmetry was seen"]
        parts.append(_pre(f"{item.about}") + _list(decisions))
    options = document["options"]
    told = [
        *plan.reasons,
        *document.get("remarks", ()),
        f"{options['keypoints']} keypoints per object by farthest point sampling.",
        f"poses: {options['poses']}. A pose that the training images do not show is not found.",
        "HeatNet takes colour alone." if options["rgb"] else "HeatNet takes colour and depth.",
    ]
    return "".join(parts) + _list(told)


def _machine(document: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    machine = document.get("machine", {})
    told = [f"{key}: {value}" for key, value in machine.items() if value]
    told += [f"{role}: {engine}" for role, engine in evaluation["engines"].items()]
    stages = evaluation["median_times_s"]
    told.append(
        "the node's pipeline, median per image: "
        + ", ".join(f"{stage} {1e3 * seconds:.0f} ms" for stage, seconds in stages.items())
    )
    return _list(told)


def _times(document: Mapping[str, Any], plan: Plan) -> str:
    rows = ["<tr><th>step</th><th>minutes</th><th>planned</th><th>command</th></tr>"]
    for name, entry in document["finished"].items():
        planned = plan.estimates_s.get(name)
        command = html.escape(" ".join(entry["command"]))
        rows.append(
            f"<tr><td>{name}</td><td>{entry['seconds'] / 60:.1f}</td>"
            f"<td>{'-' if planned is None else f'{planned / 60:.1f}'}</td>"
            f'<td style="text-align:left;white-space:normal"><code>{command}</code></td></tr>'
        )
    total = document["seconds"] / 60
    return (
        f'<div class="wide"><table>{"".join(rows)}</table></div>'
        f"<p>{total:.1f} minutes in all, of a budget of {document['options']['budget_s'] / 60:.0f}."
        "</p>"
    )


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return "<p>None.</p>"
    figures = [
        f'<figure><img src="{picture.uri}" alt="{html.escape(picture.caption)}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    ]
    return f'<div class="grid">{"".join(figures)}</div>'


def _list(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"
