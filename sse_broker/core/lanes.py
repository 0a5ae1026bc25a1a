"""Threads for what may take long, so that one slow call is not the others' trouble.

What must not wait for one another goes through lanes of its own: ends of streams, reads
of the log, functions of the application.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable

from sse_broker.core.sync import native_lock
from sse_broker.core.threads import spawn

__all__ = ["Lane"]

SLOW = 0.25  # seconds after which a call has no part in the number of threads any more
IDLE = 2.0  # seconds after which a thread that has nothing to do ends

_log = logging.getLogger("sse_broker.lanes")


class Lane:
    """Runs calls in the order in which they come, on a few threads that start when needed.

    *width* calls run at a time; those that have taken ``SLOW`` seconds already do
    not count, until there are *most* threads.  A call that raises is logged.
    """

    def __init__(
        self,
        role: str,
        width: int,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._role, self._width, self._most = role, width, max(width, most or width)
        self._now = clock
        self._lock = native_lock()  # guards all that follows, for O(1) work
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._began: dict[threading.Thread, float | None] = {}  # None is idle
        self._starting = 0
        self._there = threading.Semaphore(0)  # as often as there are calls, and ends to be noticed
        self._stopped = False

    @property
    def waits(self) -> bool:
        """Whether a call waits for a thread."""
        return bool(self._calls)

    @property
    def depth(self) -> int:
        """How many calls wait for a thread."""
        return len(self._calls)

    def submit(self, call: Callable[[], None]) -> None:
        """Have *call* run soon.  Any thread; never waits for one."""
        self._calls.append(call)
        self._there.release()
        self.look()

    def look(self) -> None:
        """Start a thread if a call waits and those that there are do not come to it.

        Any thread that holds no lock.
        """
        while self._needs_one():
            try:
                spawn(self._role, self._run)
            except RuntimeError as err:  # no more threads: the others do it, or the next call's
                with self._lock:
                    self._starting -= 1
                _log.warning("a thread for %s could not be started: %s", self._role, err)
                return

    def _needs_one(self) -> bool:
        now = self._now()
        # Under gevent a look at a thread switches greenlets, so no lock is held for it.
        dead = [thread for thread in list(self._began) if not thread.is_alive()]
        with self._lock:
            threads = self._began
            for thread in dead:
                threads.pop(thread, None)
            idle = sum(began is None for began in threads.values()) + self._starting
            quick = sum(began is not None and now - began < SLOW for began in threads.values())
            if len(self._calls) <= idle or idle + quick >= self._width:
                return False
            if len(threads) + self._starting >= self._most or self._stopped:
                return False
            self._starting += 1
            return True

    def stop(self, timeout: float = 5.0) -> None:
        """Run what was submitted, then end the threads; wait for all of them *timeout* seconds."""
        self._stopped = True
        for _ in range(len(self._began) + self._starting):
            self._there.release()
        end = time.monotonic() + timeout
        for thread in list(self._began):
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        me = threading.current_thread()
        with self._lock:
            self._starting -= 1
            self._began[me] = None
        while self._there.acquire(timeout=IDLE):
            with self._lock:
                call = self._calls.popleft() if self._calls else None
                if call is None:
                    break
                self._began[me] = self._now()
            try:
                call()
            except Exception:  # the thread must outlive whatever it meets
                _log.exception("a call of %s failed", self._role)
            with self._lock:
                self._began[me] = None
        with self._lock:
            self._began.pop(me, None)
