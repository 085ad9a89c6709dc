"""Learning-rate schedules: progress of a run, 0..1, -> factor on its learning rate.

Progress, not steps: a run that is bounded by minutes, by samples or by both has one curve.
``none``, ``onecycle`` and ``polynomial`` are those of the paper (4.1.2); in torch's terms
``OneCycleLR(cycle_momentum=False)`` and ``PolynomialLR(power=2)``, stepped after every batch; the
authors' notebooks step them once an epoch (see ``published.py``).
"""

from __future__ import annotations

import math
from typing import Protocol

from heatnet_ros.errors import ConfigError

SCHEDULES = ("none", "onecycle", "onecycle_linear", "polynomial", "cosine")
_COSINE_START = 0.05


class ScheduleOptions(Protocol):
    """The part of a training file that shapes the curve (see ``RunConfig``)."""

    @property
    def schedule(self) -> str:
        """One of SCHEDULES."""

    @property
    def learning_rate(self) -> float:
        """The curve's highest value."""

    @property
    def warmup(self) -> float:
        """Part of the run, 0..1, in which the rate rises (cosine, onecycle)."""

    @property
    def start_div(self) -> float:
        """Onecycle: the first rate is learning_rate / start_div."""

    @property
    def final_div(self) -> float:
        """Onecycle: the last rate is the first one / final_div."""


def learning_rate_at(progress: float, options: ScheduleOptions) -> float:
    """Learning rate at ``progress`` (clipped to 0..1). Raises ConfigError on an unknown name."""
    progress, peak, warmup = min(max(progress, 0.0), 1.0), options.learning_rate, options.warmup
    if options.schedule == "none":
        return peak
    if options.schedule == "polynomial":
        return peak * polynomial(progress)
    if options.schedule == "cosine":
        return peak * cosine(progress, warmup)
    if options.schedule in ("onecycle", "onecycle_linear"):
        anneal = _linear if options.schedule == "onecycle_linear" else _half_cosine
        first = 1 / options.start_div
        last = first / options.final_div
        if progress < warmup:
            return peak * anneal(first, 1.0, progress / warmup)
        return peak * anneal(1.0, last, _after(progress, warmup))
    raise ConfigError(
        f"schedule: expected one of {', '.join(SCHEDULES)}, got '{options.schedule}'."
    )


def polynomial(progress: float, power: float = 2.0) -> float:
    """Quadratic decay to zero, torch's ``PolynomialLR``."""
    return (1 - progress) ** power


def cosine(progress: float, warmup: float) -> float:
    """Linear warm-up from a twentieth, then half a cosine to zero."""
    if progress < warmup:
        return _linear(_COSINE_START, 1.0, progress / warmup)
    return _half_cosine(1.0, 0.0, _after(progress, warmup))


def _after(progress: float, warmup: float) -> float:
    return (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
