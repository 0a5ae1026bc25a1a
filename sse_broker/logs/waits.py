"""Waits with an end, for what several threads or processes take by turns.

Under gevent nothing here stops the hub: a native lock, and a lock in a file,
are tried for, and between two tries the other greenlets run.
"""

from __future__ import annotations

import threading
import time
from _thread import TIMEOUT_MAX

from sse_broker.core.sync import NativeLock, patched

__all__ = ["Deadline", "take"]

SHORT, LONG = 0.0005, 0.01  # seconds between two tries; each pause is twice as long as the last


class Deadline:
    """When one call has to be over.  Belongs to that call."""

    __slots__ = ("_pause", "end")

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self._pause = SHORT

    @property
    def left(self) -> float:
        """Seconds until then; 0 if it is over."""
        return max(0.0, self.end - time.monotonic())

    def pause(self) -> bool:
        """Wait for the next try, if there is time for one; say whether there is."""
        left = self.left
        if not left:
            return False
        threading.Event().wait(min(self._pause, left))  # a greenlet's where gevent has patched
        self._pause = min(LONG, 2 * self._pause)
        return True


def take(lock: NativeLock, deadline: Deadline) -> bool:
    """Take a native lock and say whether it was to be had in time."""
    if lock.acquire(False):
        return True
    if not patched():
        return lock.acquire(timeout=min(deadline.left, TIMEOUT_MAX))
    while deadline.pause():
        if lock.acquire(False):
            return True
    return False
