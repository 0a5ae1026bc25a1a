"""The threads that serve requests: one queue, and no future for each request.

What gunicorn asks of its pool beyond that is ``shutdown``.  Threads start when they are
needed and live on; they are daemons, so that a request that never ends does not keep
a worker that was told to leave.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from sse_broker.core.threads import spawn

__all__ = ["Outcome", "Pool"]


class Outcome:
    """How a request ended, in the form of a future that is done."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: Any = None, error: BaseException | None = None) -> None:
        self._result, self._error = result, error

    def cancelled(self) -> bool:
        """Whether it was never begun: it was."""
        return False

    def exception(self) -> BaseException | None:
        """What it raised."""
        return self._error

    def result(self) -> Any:
        """What it returned.

        :raises BaseException: what it raised.
        """
        if self._error is not None:
            raise self._error
        return self._result


class Pool:
    """At most *size* threads; each calls *work* with what is put, one after the other."""

    def __init__(self, size: int, work: Callable[[Any], None]) -> None:
        self._size, self._work = size, work
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def put(self, one: Any) -> None:
        """Have *one* worked at.  One thread calls this, or several by turns; never waits."""
        self._todo.put(one)
        if self._started < self._size and not self._idle.acquire(blocking=False):
            self._started += 1
            try:
                spawn("request", self._run)
            except RuntimeError:  # no more threads: those that there are serve it in turn
                self._started -= 1
                if not self._started:
                    raise

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        """Begin no more.  Never waits, whatever *wait* says: the threads are daemons."""
        del wait
        for _n in range(self._started):
            self._todo.put(None)

    def _run(self) -> None:
        while True:
            one = self._todo.get()
            if one is None:
                return
            self._work(one)
            if self._started < self._size:
                self._idle.release()
