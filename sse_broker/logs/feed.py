"""The one thread of a process that follows a shared log and hands its records on.

A log that cannot be read is tried again, at first at once and then each few
seconds, for as long as it takes: the records are still there when it is back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sse_broker.core.ports import Listener, Lost, PositionLost, Record
from sse_broker.core.threads import is_alive, spawn
from sse_broker.errors import LogUnavailable

__all__ = ["Feed", "Source"]

MIN_PAUSE, MAX_PAUSE = 0.05, 2.0  # seconds
LOG_EVERY = 60.0

_log = logging.getLogger("sse_broker.feed")


class Source(Protocol):
    """What a feed asks of its log."""

    def follow(self, after: int) -> Sequence[Record]:
        """Return the next records after a position; wait for some, but not long.

        :raises PositionLost: something after *after* is gone.
        :raises LogUnavailable: the log cannot be read now.
        """

    def begin(self, after: int | None) -> int:
        """Begin anew after a loss: at a position, or at the newest record; return which."""

    def interrupt(self) -> None:
        """End a wait in :meth:`follow`, now or at the next one."""


class Feed:
    """Calls one listener with every record after a position, from a thread of its own."""

    def __init__(
        self, source: Source, after: int, listener: Listener, lost: Lost, end: Callable[[], None]
    ) -> None:
        self._source = source
        self.start = self._after = after
        self._listener = listener
        self._lost = lost
        self._end = end
        self._stopped = threading.Event()
        self._pause = 0.0
        self._said = -LOG_EVERY
        self._reads = True
        self._interrupted = False  # a listener may not have handed on all of its record
        self._thread = spawn("feed", self._run)

    @property
    def is_healthy(self) -> bool:
        """Whether the thread lives and the log could be read when it last tried."""
        return self._reads and is_alive(self._thread)

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def restart(self) -> None:
        """Start the thread again if it died; it goes on where it was.  One caller at a time.

        Whoever was getting a record just then is told to look for it in the log.
        """
        if not self._stopped.is_set() and not is_alive(self._thread):
            _log.error("the feed had died; it is started again")
            self._thread = spawn("feed", self._run)

    def stop(self) -> None:
        """End the thread and wait for it, 5 s at most.  Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._source.interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step()
                self._pause, self._reads = 0.0, True
            except LogUnavailable as err:
                self._reads = False
                self._wait("the log cannot be read and is tried again: %s", err)
            except Exception:  # the thread must outlive whatever it meets
                self._reads = False
                self._wait("following the log failed and is tried again", None)
        self._end()

    def _step(self) -> None:
        if self._interrupted:
            self._lost(self._after)
            self._interrupted = False
        loss = None
        try:
            records = self._source.follow(self._after)
        except PositionLost as lost:
            loss = lost
        if loss is not None:  # outside the clause: what is logged now is not about the exception
            self._after = self._source.begin(loss.goes_on)
            _log.warning("records were lost (%s)", loss.reason)
            self._lost(self._after)
            return
        for record in records:
            if self._stopped.is_set():
                return
            self._after = record.position  # first, so that a listener that raises gets it once
            self._interrupted = True
            self._listener(record)
            self._interrupted = False

    def _wait(self, text: str, err: Exception | None) -> None:
        if self._stopped.is_set():  # a wait that was interrupted ends in errors of many kinds
            return
        now = time.monotonic()
        if now - self._said >= LOG_EVERY:
            self._said = now
            _log.warning(text, *([err] if err else ()), exc_info=err is None)
        self._pause = min(MAX_PAUSE, 2 * self._pause or MIN_PAUSE)
        self._stopped.wait(self._pause * random.uniform(0.5, 1.0))
