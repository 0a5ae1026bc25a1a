"""A thread that burns CPU beside the streams, and counts how far it gets."""

from __future__ import annotations

import _thread
import time

try:  # under gevent a thread of its own all the same, or it would hold the hub for ever
    from gevent.monkey import get_original
except ImportError:

    def get_original(module: str, name: str) -> object:
        return getattr(_thread, name)


class Burner:
    """Loops in Python between ``turn("1")`` and ``turn("0")``."""

    def __init__(self) -> None:
        self._thread: list[bool] | None = None  # whether the one that runs is to go on
        self._loops = 0
        self._since = 0.0

    def turn(self, on: str | None) -> dict[str, float]:
        """Switch it, or leave it as it is; return its loops per second since the last call."""
        now = time.monotonic()
        rate = self._loops / (now - self._since) if self._thread else 0.0
        self._loops, self._since = 0, now
        if on == "1" and self._thread is None:
            self._thread = [True]
            get_original("_thread", "start_new_thread")(self._burn, (self._thread,))
        elif on == "0" and self._thread is not None:
            self._thread[0] = False
            self._thread = None
        return {"loops_per_second": rate}

    def _burn(self, goes_on: list[bool]) -> None:
        while goes_on[0]:
            total = 0
            for number in range(200):
                total += number
            self._loops += 1
