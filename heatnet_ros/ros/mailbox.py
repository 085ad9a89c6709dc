"""A box with one slot between the subscriptions and the worker: the newest item wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot. ``put`` never waits and replaces what was not taken; ``take`` waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self._dropped = 0

    def put(self, item: T) -> None:
        """Store an item; one that was still there is dropped and counted."""
        with self._condition:
            if self._closed:
                return
            self._dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def take(self) -> T | None:
        """Wait for an item and remove it; None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._item is not None)
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self) -> None:
        """Wake the taker for good; later items are ignored."""
        with self._condition:
            self._closed = True
            self._item = None
            self._condition.notify_all()

    @property
    def dropped(self) -> int:
        """Items that were replaced before anybody took them."""
        with self._condition:
            return self._dropped
