"""Stamps of a topic's messages and when they arrived: rate, gaps, delay, drift, offset to another.

Stamps and clock are nanoseconds of the same kind of time; ``seen_s`` is monotonic.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

from heatnet_ros.types import FloatArray

# so long without a message is a pause, or the clock was set: more than a camera that stutters
_PAUSE_PERIODS, _PAUSE_S = 5, 1.0


class Timeline:
    """The latest ``kept`` messages of one topic, in the order of their arrival.

    drift_span_s: no drift is told of less time than that.
    """

    def __init__(self, kept: int = 100, drift_span_s: float = 2.0) -> None:
        self._drift_span_s = drift_span_s
        self._stamps_ns: deque[int] = deque(maxlen=kept)
        self._delays_s: deque[float] = deque(maxlen=kept)
        self._seen_s: deque[float] = deque(maxlen=kept)

    def __len__(self) -> int:
        return len(self._stamps_ns)

    def add(self, stamp_ns: int, seen_s: float, clock_ns: int | None = None) -> None:
        """A message came; ``clock_ns`` is the time on the clock that stamps it, where known."""
        self._stamps_ns.append(stamp_ns)
        self._seen_s.append(seen_s)
        self._delays_s.append(np.nan if clock_ns is None else (clock_ns - stamp_ns) / 1e9)

    def clear(self) -> None:
        """Forget all: the clock was set back."""
        for kept in (self._stamps_ns, self._delays_s, self._seen_s):
            kept.clear()

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """The stamps."""
        return tuple(self._stamps_ns)

    @property
    def rate_hz(self) -> float:
        """Messages a second, by their arrival; 0 of fewer than two."""
        if len(self._seen_s) < 2:
            return 0.0
        return (len(self._seen_s) - 1) / max(self._seen_s[-1] - self._seen_s[0], 1e-9)

    @property
    def period_s(self) -> float | None:
        """Median time between stamps that rise; None where there are none."""
        steps = [b - a for a, b in pairwise(self.stamps_ns) if b > a]
        return float(np.median(steps)) / 1e9 if steps else None

    @property
    def backwards(self) -> int:
        """How often a stamp was older than the one before."""
        return sum(b < a for a, b in pairwise(self.stamps_ns))

    @property
    def repeated(self) -> int:
        """How often a stamp came again."""
        return len(self._stamps_ns) - len(set(self._stamps_ns))

    def count_gaps(self) -> int:
        """Messages that are missing between the first and the last, by the usual period.

        A pause of a second and of five periods is no loss: the camera rested, or its clock was set.
        """
        period_s = self.period_s
        if period_s is None:
            return 0
        steps = np.diff(np.unique(self._stamps_ns)) / 1e9
        missing = np.maximum(np.rint(steps / period_s) - 1, 0)
        paused = (missing >= _PAUSE_PERIODS) & (steps >= _PAUSE_S)
        return int(missing[~paused].sum())

    @property
    def drop_share(self) -> float:
        """Part of the messages that is missing, 0..1, by the gaps between stamps."""
        missing = self.count_gaps()
        return missing / max(missing + len(set(self._stamps_ns)), 1)

    @property
    def delay_s(self) -> float | None:
        """Median time from stamp to arrival; negative where stamps lie in the future."""
        if not self._delays_s:  # an idle node asks once a second: without NumPy
            return None
        delays = np.array(self._delays_s)
        return float(np.nanmedian(delays)) if np.isfinite(delays).any() else None

    @property
    def drift(self) -> float | None:
        """How much the delay grows, seconds a second (0.001: a clock 0.1 % too slow).

        None of less than ``drift_span_s``: what is late now and then would count as drift.
        """
        if len(self._seen_s) < 10:
            return None
        seen, delays = np.array(self._seen_s), np.array(self._delays_s)
        if seen[-1] - seen[0] < self._drift_span_s or not np.isfinite(delays).all():
            return None
        # a late message is no drift: the least delay of each tenth of the time counts
        parts = np.array_split(np.arange(len(seen)), 10)
        least = [part[np.argmin(delays[part])] for part in parts]
        slopes = [
            float(np.polyfit(seen[half], delays[half], 1)[0]) for half in (least[:5], least[5:])
        ]
        # a clock goes on to run wrong; a step (a buffer more in the driver) is in one half only
        return min(slopes, key=abs) if slopes[0] * slopes[1] > 0 else 0.0


def measure_offsets(color: Timeline, depth: Timeline) -> FloatArray:
    """Seconds from each colour stamp to the nearest depth stamp (N,), depth later: positive.

    Only of colour stamps in the time from which there is depth.
    """
    if not len(color) or not len(depth):
        return np.zeros(0)
    stamps, other = np.unique(color.stamps_ns), np.unique(depth.stamps_ns)
    half_ns = 5e8 * (color.period_s or 0.0)
    inside = (stamps >= other[0] - half_ns) & (stamps <= other[-1] + half_ns)
    stamps = stamps[inside]
    after = np.searchsorted(other, stamps).clip(max=len(other) - 1)
    offsets = np.stack([other[np.maximum(after - 1, 0)] - stamps, other[after] - stamps])
    nearest = np.abs(offsets).argmin(axis=0)
    return np.asarray(offsets[nearest, np.arange(len(stamps))] / 1e9, np.float64)
