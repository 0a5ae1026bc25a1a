"""A few threads for what the pump must not do itself: I/O on a log, and code of the application."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from sse_broker.core.threads import is_alive, spawn

__all__ = ["Side"]

THREADS = 4

_log = logging.getLogger("sse_broker.pump")


class Side:
    """Runs calls in the order in which they come, ``THREADS`` at a time.

    Threads start when they are first needed.  A call that raises is logged.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def submit(self, call: Callable[[], None]) -> None:
        """Have *call* run soon.  Any thread; never waits."""
        self._calls.put(call)
        if len(self._threads) < THREADS or not all(map(is_alive, self._threads)):
            try:
                self._start_one()
            except RuntimeError as err:  # no more threads: the others do it, or the next call's
                _log.warning("a side thread could not be started: %s", err)

    def _start_one(self) -> None:
        with self._starting:
            self._threads = [thread for thread in self._threads if is_alive(thread)]
            if len(self._threads) < THREADS:
                self._threads.append(spawn("side", self._run))

    def stop(self) -> None:
        """Run what was submitted, then end the threads; wait for them 5 s at most."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(timeout=5)
        self._threads = []

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            try:
                call()
            except Exception:  # the thread must outlive whatever it meets
                _log.exception("what was to be done at a stream's side failed")
