"""Streams in greenlets: gevent's hub does what is left to the host.

What a greenlet sends to many, and what follows, is written when the hub comes to it:
a greenlet that sends and sends would write all the time, and no other had a turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from sse_broker.transport.threads import OwnThreads

__all__ = ["Hub"]


class Hub(OwnThreads):
    """The host of a process that gevent has patched: the hub of the thread that made it."""

    is_alive = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._hub: Any = sys.modules["gevent"].get_hub()
        self._is_due = False  # whether the hub has been asked to look
        self._has_written = False  # whoever sends, since the hub has run

    def start(self) -> None:
        """There is nothing to start: the hub runs."""

    def restart(self) -> None:
        """Log what went wrong.  There is nothing that could die."""
        self.say()

    def release(self) -> None:
        """There is nothing to end."""

    def _is_here(self) -> bool:
        current: Any = sys.modules["gevent._hub_local"].get_hub_if_exists()
        return current is self._hub

    def _is_free(self) -> bool:
        return not self._todo and not self._has_written and self._is_here()

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """See :class:`Host`."""
        free = self._is_free()
        super().hand_out(act, clients)
        if free and not self._is_due:
            self._has_written = True
            self._ask()

    def _wake(self) -> None:
        if not self._is_due:
            self._ask()

    def _ask(self) -> None:
        self._is_due = True
        if self._is_here():
            self._hub.loop.run_callback(self.turn)
        else:
            self._hub.loop.run_callback_threadsafe(self.turn)

    def turn(self) -> None:
        """Do what was left to the host.  On the hub."""
        self._is_due = self._has_written = False
        with self.lock:
            self._run()
