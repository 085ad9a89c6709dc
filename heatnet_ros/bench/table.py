"""Bench's numbers as a table for people, and speed-ups against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = ("engine", "precision", "mode", "objects", "p50 ms", "p95", "p99", "frames/s", "recall",
         "MB", "")  # fmt: skip


def format_table(runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> str:
    """One row per run; the last column is the speed-up over the baseline, where there is one."""
    rows = [_HEAD]
    for run in [*baseline, *runs]:
        ms = run["ms"]
        ratio = find_speedup(run, baseline)
        is_base = any(run is entry for entry in baseline)
        rows.append(
            (
                run["engine"], run["precision"], run["mode"], str(run["objects"]),
                f"{ms['p50']:.1f}", f"{ms['p95']:.1f}", f"{ms['p99']:.1f}",
                f"{run['frames_per_s']:.1f}", _percent(run.get("recall_add_01d")),
                f"{run['rss_mb']:.0f}" if "rss_mb" in run else "",
                "baseline" if is_base else "" if ratio is None else f"{ratio:.1f}x",
            )
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def format_stages(runs: Sequence[Mapping[str, Any]]) -> str:
    """Median of each stage, of the networks within them, and the share of time outside of these."""
    lines = []
    for run in runs:
        stages = ", ".join(f"{name} {ms:.2f}" for name, ms in run["stages_ms"].items())
        if "networks_ms" in run:
            stages += (
                f", networks among them {run['networks_ms']:.2f} "
                f"({run['outside_networks_share']:.0%} of the time is outside)"
            )
        lines.append(
            f"{run['engine']} {run['precision']} {run['mode']} {run['objects']}: {stages} ms"
        )
    return "\n".join(lines)


def find_speedup(run: Mapping[str, Any], baseline: Sequence[Mapping[str, Any]]) -> float | None:
    """Baseline's p50 over the run's, at the same number of objects; None without one."""
    for entry in baseline:
        if entry["objects"] == run["objects"] and entry is not run:
            return round(float(entry["ms"]["p50"]) / float(run["ms"]["p50"]), 2)
    return None


def list_speedups(
    runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Entries of ``speedup``: which run, and how many times faster than the baseline it is."""
    found = []
    for run in runs:
        ratio = find_speedup(run, baseline)
        if ratio is not None:
            keys = ("engine", "precision", "mode", "objects")
            found.append({key: run[key] for key in keys} | {"ratio": ratio})
    return found
