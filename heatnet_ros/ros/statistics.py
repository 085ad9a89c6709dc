"""Counts, rates and latencies of the node, written by its threads and read once a second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from heatnet_ros.checks.depth import DepthMeasure
from heatnet_ros.types import PipelineResult, Reason

# lost: reported by the middleware; dropped frames are counted by the mailbox; no_camera_info:
# complete sets of images that came before the first CameraInfo
COUNTERS = (
    "received",
    "received_depth",
    "lost",
    "out_of_order",
    "clock_resets",
    "sync_losses",
    "no_camera_info",
    "bad_input",
    "failed",
    "processed",
    "poses",
)
_WINDOW = 200
_RATE_S = 5.0


class Statistics:
    """All counters since activation. Latencies and the rate cover the latest frames only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._finished_s: deque[float] = deque(maxlen=_WINDOW)
        self._receive_ms: deque[float] = deque(maxlen=_WINDOW)
        self._stamp_ms: deque[float] = deque(maxlen=_WINDOW)
        self._stages_ms: dict[str, float] = {}
        self._instances: dict[str, list[int]] = {}
        self._rejected: dict[str, tuple[str, float]] = {}  # reason, when
        self._last: dict[str, str] = {}  # of the latest frame

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of ``COUNTERS``."""
        with self._lock:
            self._counts[what] += number

    def record(
        self,
        result: PipelineResult,
        since_receive_s: float,
        since_stamp_s: float,
        depth: DepthMeasure | None = None,
    ) -> None:
        """One frame was processed and published; ``depth``: of its depth image."""
        instances: dict[str, list[int]] = {}
        for pose in result.poses:
            instances.setdefault(pose.object_id, []).append(pose.instance)
        with self._lock:
            self._counts["processed"] += 1
            self._counts["poses"] += len(result.poses)
            self._finished_s.append(self._clock())
            self._receive_ms.append(since_receive_s * 1e3)
            self._stamp_ms.append(since_stamp_s * 1e3)
            self._stages_ms = {name: s * 1e3 for name, s in result.timings_s.items()}
            self._instances = instances
            self._last = {
                "boxes": str(len(result.detections)),
                "boxes_followed": str(sum(d.followed for d in result.detections)),
                "depth_valid": "none" if depth is None else f"{depth.share:.2f}",
                "depth_median_m": "none" if depth is None else f"{depth.median_m:.4g}",
                "depth_encoding": "none" if depth is None else depth.encoding,
            }
            for rejection in result.rejected:
                self._reasons[str(rejection.reason)] += 1
                if rejection.reason is Reason.SAME_OBJECT and rejection.object_id in instances:
                    continue  # found twice and told once: nothing is missing
                text = f"{rejection.reason} {rejection.detail}"
                self._rejected[rejection.object_id] = (text, self._clock())

    def rate_hz(self) -> float:
        """Processed frames per second over the last seconds."""
        now = self._clock()
        with self._lock:
            recent = [t for t in self._finished_s if now - t < _RATE_S]
        if len(recent) < 2:
            return 0.0
        # up to now, not up to the last frame: the rate must fall when frames stop coming
        return len(recent) / max(now - recent[0], 1e-6)

    def values(self) -> dict[str, str]:
        """Everything as text, for diagnostics."""
        out = {"rate_hz": f"{self.rate_hz():.2f}"}
        with self._lock:
            for key in COUNTERS:
                out[key] = str(self._counts[key])
            for name, window in (("receive", self._receive_ms), ("stamp", self._stamp_ms)):
                for q in (50, 95):
                    value = f"{np.percentile(window, q):.1f}" if window else "none"
                    out[f"latency_{name}_p{q}_ms"] = value
            for name, ms in self._stages_ms.items():
                out[f"stage_{name}_ms"] = f"{ms:.1f}"
            out |= self._last
            for name, numbers in self._instances.items():
                out[f"instances.{name}"] = ", ".join(map(str, sorted(numbers)))
            for name, (text, when_s) in self._rejected.items():
                out[f"rejected.{name}"] = text
                out[f"rejected_age_s.{name}"] = f"{self._clock() - when_s:.0f}"
            for reason, number in self._reasons.items():
                out[f"rejections.{reason}"] = str(number)
        return out
