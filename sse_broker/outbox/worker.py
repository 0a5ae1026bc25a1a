"""The thread that drains an outbox in one process.

Lock map
    Worker._starting   held while the thread is started or let go; a greenlet's
                       lock under gevent, because starting a thread waits; no
                       other lock is taken inside
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from sse_broker.core.threads import is_alive, spawn

__all__ = ["Worker"]

MAX_PAUSE = 60.0  # seconds between two tries while the log or the database is away

_log = logging.getLogger("sse_broker.outbox")


class Drained(Protocol):
    """What a worker asks of its outbox."""

    interval: float

    def run_round(self, stopping: threading.Event) -> bool:
        """Drain until nothing waits or *stopping* is set; say whether the log took all."""

    def complain(self, text: str, err: Exception) -> None:
        """Log a warning, but not more than one a minute."""


class Worker:
    """The thread of one process."""

    def __init__(self, outbox: Drained) -> None:
        self._outbox = outbox
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return is_alive(self._thread)

    @property
    def is_well(self) -> bool:
        """Whether the thread lives, if there should be one."""
        return self._thread is None or is_alive(self._thread)

    def mend(self) -> None:
        """Start the thread again if it died."""
        with self._starting:
            if not self.is_well:
                _log.error("the outbox's thread had died; it is started again")
                self._start_locked()

    def start(self) -> None:
        """Start the thread.  Idempotent."""
        with self._starting:
            if not self.is_alive:
                self._start_locked()

    def _start_locked(self) -> None:
        # New ones, because an old thread may still be about to end by its own.
        wake, stopping = self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = spawn("outbox", lambda: self._run(wake, stopping))

    def stop(self, timeout: float) -> None:
        """End the thread; wait for it, *timeout* seconds at most."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._stopping.set()
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def nudge(self) -> None:
        """Have the thread look now.  Never waits."""
        self._wake.set()

    def _run(self, wake: threading.Event, stopping: threading.Event) -> None:
        while True:
            wake.clear()  # first, so that a nudge or a stop from here on ends the wait below
            if stopping.is_set():
                return
            if self.guarded_round(stopping):
                wake.wait(self._outbox.interval)
            else:
                stopping.wait(self.pause())

    def guarded_round(self, stopping: threading.Event) -> bool:
        """Drain; log what that raises, at most once a minute; return whether all went well."""
        try:
            well = self._outbox.run_round(stopping)
        except Exception as err:  # the loop must outlive whatever it meets
            self._outbox.complain("the outbox cannot be drained now: %s", err)
            well = False
        self._failures = 0 if well else self._failures + 1
        return well

    def pause(self) -> float:
        """Return the seconds to wait after a failure: twice as long each time, up to a minute."""
        return min(MAX_PAUSE, self._outbox.interval * 2.0 ** min(self._failures, 16))
