"""Approximate time synchronisation, with the interface of ROS's ``message_filters``.

Not ROS's own, which is not on PyPI: in Python it holds its lock while the callbacks run (and for
ever after one that raises), throws new messages away when the clock is set back, and raises in the
subscription's callback, which ends the node, at a stamp that ``rclpy.time.Time`` does not take.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from heatnet_ros.ros.messages import stamp_to_ns

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter"]

Callback = Callable[..., None]


class SimpleFilter:
    """A source of messages: ``signalMessage`` calls what was given to ``registerCallback``."""

    def __init__(self) -> None:
        self._callbacks: dict[int, tuple[Callback, tuple[Any, ...]]] = {}

    def registerCallback(self, callback: Callback, *args: Any) -> int:
        """Call ``callback(*messages, *args)`` for every message; returns the connection's id."""
        connection = len(self._callbacks)
        self._callbacks[connection] = (callback, args)
        return connection

    def signalMessage(self, *messages: Any) -> None:
        """Hand one message (or one synchronised set) on."""
        for callback, args in list(self._callbacks.values()):
            callback(*messages, *args)


class ApproximateTimeSynchronizer(SimpleFilter):
    """Groups messages of several filters whose header stamps differ by less than ``slop`` seconds.

    Costs O(queue) a message. An arriving message is grouped with the nearest waiting message of
    every other filter; what is older than a group can find no partner any more and is forgotten.
    Queues forget by arrival, not by stamp, so it goes on by itself when the clock is set back.
    Callbacks run outside the lock: one that raises or blocks locks nobody out.
    """

    def __init__(self, fs: Sequence[Any], queue_size: int, slop: float) -> None:
        super().__init__()
        self._slop_ns = round(slop * 1e9)
        self._lock = threading.Lock()
        self._queues: list[deque[tuple[int, Any]]] = [deque(maxlen=queue_size) for _ in fs]
        for index, source in enumerate(fs):
            source.registerCallback(self._add, index)

    def _add(self, message: Any, index: int) -> None:
        stamp = message.header.stamp
        with self._lock:
            group = self._match(index, stamp_to_ns(stamp), message)
        if group is not None:
            self.signalMessage(*group)

    def _match(self, index: int, stamp_ns: int, message: Any) -> list[Any] | None:
        group: list[tuple[int, Any]] = []
        for i, queue in enumerate(self._queues):
            if i == index:
                group.append((stamp_ns, message))
            elif queue:
                group.append(min(queue, key=lambda item: abs(item[0] - stamp_ns)))
        stamps = [item[0] for item in group]
        if len(group) < len(self._queues) or max(stamps) - min(stamps) >= self._slop_ns:
            self._queues[index].append((stamp_ns, message))
            return None
        for queue, used in zip(self._queues, stamps, strict=True):
            waiting = [item for item in queue if item[0] > used]
            queue.clear()
            queue.extend(waiting)
        return [item[1] for item in group]
