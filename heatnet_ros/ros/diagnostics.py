"""diagnostic_msgs/DiagnosticArray of the node: one status for the input, one for the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from heatnet_ros.machine import resident_memory_mb
from heatnet_ros.ros.problems import Problems, Source

_PIPELINE = (Source.CONFIGURATION, Source.PIPELINE)


def build_diagnostics(
    node_name: str,
    stamp: Time,
    state: str,
    problems: Problems,
    values: Mapping[str, str],
    engines: Mapping[str, str],
    topics: Mapping[str, str],
    warnings: Sequence[str],
) -> DiagnosticArray:
    """Build ``<node>: input`` and ``<node>: pipeline``.

    A status is ERROR, with the problem as its message, while there is one; the input is WARN while
    there are ``warnings``. ``values`` are those of ``Statistics`` and ``Intake`` plus ``dropped``;
    ``engines`` maps network -> backend, device and precision, ``topics`` stream -> topic.
    """
    present = problems.present
    inputs = [p.message for source, p in present.items() if source not in _PIPELINE]
    faults = [p.message for source, p in present.items() if source in _PIPELINE]
    last = {"last_problem": "none"}
    if problems.last is not None:
        age = problems.seconds_since(problems.last)
        last = {"last_problem": problems.last.message, "last_problem_age_s": f"{age:.0f}"}
    running = {"state": state, "rss_mb": f"{resident_memory_mb():.0f}"}
    subscribed = {f"topic.{stream}": topic for stream, topic in topics.items()}
    running |= {f"engine.{role}": text for role, text in engines.items()}
    good = f"{state}, {values['rate_hz']} Hz" if state == "active" else state
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            _status(f"{node_name}: input", inputs, warnings, good, last | subscribed),
            _status(f"{node_name}: pipeline", faults, [], good, running | dict(values)),
        ],
    )


def _status(
    name: str, problems: list[str], warnings: Sequence[str], good: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    level = DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
    return DiagnosticStatus(
        name=name,
        level=DiagnosticStatus.ERROR if problems else level,
        message=" | ".join([*problems, *warnings]) or good,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
