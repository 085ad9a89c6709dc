"""What came of a run of ``chaos.py``, and what of it is not as it must be."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from chaos_camera import DAMAGED

from heatnet_ros.machine import count_cores, describe_processor

if TYPE_CHECKING:
    from chaos import Run

EXIT_LIMIT_S = 5.0
MAX_GROWTH = 0.05
# the demo's networks are wrong in one of a hundred frames, and some events lie about the camera
MAX_WRONG = 0.05
WARM_UP = 0.2
UNEXPECTED = ("Traceback", "unexpectedly", "A frame failed")


@dataclass(frozen=True)
class Outcome:
    """One round: what happened, and how long poses took to come back (None: they did not).

    unheard_s: how long good frames came before the middleware had a reader for them.
    """

    events: list[str]
    detail: str
    back_s: float | None
    unheard_s: float


def judge(run: Run, exit_: tuple[float | None, int | None, list[int]], limit_s: float) -> Any:
    """The report, and what is not as it must be."""
    samples, outcomes = run.samples, run.outcomes
    warm = [s for s in samples if s.time_s - samples[0].time_s >= WARM_UP * run.seconds]
    edge = max(len(warm) // 6, 1)
    before, after = (
        statistics.median(s.rss_mb for s in part) if part else 0.0
        for part in (warm[:edge], warm[-edge:])
    )
    seen = run.world.listener.seen
    log = run.world.node_log.read_text(errors="replace")
    times: dict[str, list[float | None]] = defaultdict(list)
    for outcome in outcomes:
        for name in outcome.events:
            times[name].append(outcome.back_s)
    took_s, status, left = exit_
    more = Counter(run.threads_at_end) - Counter(run.threads_at_start)
    early = [s.threads for s in samples if s.time_s - samples[0].time_s <= WARM_UP * run.seconds]
    most_early = max([*early, len(run.threads_at_start)])
    report = {
        "seconds": run.seconds,
        "rounds": len(outcomes),
        "cycles": run.cycles,
        "limit_s": limit_s,
        "back_s": {name: _summary(values) for name, values in sorted(times.items())},
        "poses": len(seen),
        "watched": dict(run.world.watched),
        "poses_wrong": sum(s.right is False for s in seen),
        "poses_of_damaged_frames": sum(s.stamp_ns % 1000 == DAMAGED for s in seen),
        "memory_mb": {
            "warm": before,
            "end": after,
            "growth": round(after / max(before, 1.0) - 1, 4),
        },
        "threads": {
            "start": len(run.threads_at_start),
            "warm_up_most": most_early,
            "end": len(run.threads_at_end),
            "more": sorted(more.elements()),
        },
        "unexpected": [line for line in log.splitlines() if any(u in line for u in UNEXPECTED)],
        "exit": {"seconds": took_s, "status": status, "left": left},
        "stalled_s": round(sum(end - begin for begin, end in run.stalls), 1),
        "machine": f"{describe_processor()}, {count_cores()} cores",
    }
    slow = [o for o in outcomes if o.back_s is None or o.back_s > limit_s]
    failed = [o for o in outcomes if "FAILED" in o.detail or "NOT RESTORED" in o.detail]
    checks = {
        "the node died": not outcomes or (status is None and took_s is None and not left),
        f"poses not back within {limit_s:g} s: {[asdict(o) for o in slow]}": slow,
        f"the node did not do what it was told: {[asdict(o) for o in failed]}": failed,
        "poses of damaged frames": report["poses_of_damaged_frames"],
        f"more than {MAX_WRONG:.0%} of the poses are wrong": report["poses_wrong"]
        > MAX_WRONG * max(len(seen), 1),
        f"memory grew by more than {MAX_GROWTH:.0%}": after > (1 + MAX_GROWTH) * before,
        "more threads than in the warm-up": len(run.threads_at_end) > most_early,
        "the log holds unexpected errors": report["unexpected"],
        f"no clean end on SIGINT in {EXIT_LIMIT_S:g} s": took_s is None or status != 0 or left,
    }
    report["faults"] = [what for what, wrong in checks.items() if wrong]
    every = max(len(samples) // 100, 1)
    report["memory_series_mb"] = [(s.rss_mb, s.anonymous_mb) for s in samples[::every]]
    report["unconfigured_mb"] = [(s.rss_mb, s.anonymous_mb) for s in run.world.at_rest]
    report["threads_series"] = [s.threads for s in samples[::every]]
    report |= _discovery(outcomes, limit_s)
    report["outcomes"] = [asdict(outcome) for outcome in outcomes]
    return report


def _discovery(outcomes: list[Outcome], limit_s: float) -> dict[str, Any]:
    """What a user waits for: DDS has to find the camera first, then the node must be back."""
    both = [None if o.back_s is None else o.back_s + o.unheard_s for o in outcomes]
    over = [asdict(o) for o, s in zip(outcomes, both, strict=True) if s is not None and s > limit_s]
    return {
        "unheard_s": _summary([o.unheard_s for o in outcomes]),
        "with_discovery_s": _summary(both),
        "over_limit_with_discovery": over,
    }


def _summary(values: list[float | None]) -> dict[str, Any]:
    known = [v for v in values if v is not None]
    return {
        "rounds": len(values),
        "stuck": len(values) - len(known),
        "median": round(statistics.median(known), 2) if known else None,
        "most": round(max(known), 2) if known else None,
    }


def format_report(report: dict[str, Any]) -> str:
    lines = [f"{'event':<28}{'rounds':>7}{'median s':>10}{'most s':>8}{'stuck':>7}"]
    for name, row in report["back_s"].items():
        median, most = (_seconds(row[k]) for k in ("median", "most"))
        lines.append(f"{name:<28}{row['rounds']:>7}{median:>10}{most:>8}{row['stuck']:>7}")
    memory, threads, end = report["memory_mb"], report["threads"], report["exit"]
    seconds = "never" if end["seconds"] is None else f"in {end['seconds']:.1f} s"
    lines += [
        f"{report['rounds']} rounds, {report['cycles']} lifecycle cycles, {report['poses']} poses, "
        f"{report['poses_wrong']} wrong, {report['poses_of_damaged_frames']} of damaged frames",
        f"memory {memory['warm']:.0f} MB warm, {memory['end']:.0f} MB at the end "
        f"({memory['growth']:+.1%}); threads {threads['start']} at the start, "
        f"{threads['warm_up_most']} at most in the warm-up, {threads['end']} at the end; "
        f"ended by SIGINT {seconds}, status {end['status']}; "
        f"unconfigured {_ends(report['unconfigured_mb'])} MB; "
        f"with DDS discovery back in {_seconds(report['with_discovery_s']['most'])} s at most, "
        f"{len(report['over_limit_with_discovery'])} rounds over {report['limit_s']:g} s",
        *(f"FAILED: {fault}" for fault in report["faults"]),
    ]
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ends(series: list[tuple[float, float]]) -> str:
    """The first and the last of (MB resident, its own)."""
    return " to ".join(f"{part[0]:.0f}" for part in series[:1] + series[-1:]) or "-"
