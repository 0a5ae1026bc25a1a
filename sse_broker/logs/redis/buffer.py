"""Messages that wait here while Redis is away, if the log's URL allows any.

Once one waits, all that follow wait behind it, so that they leave in order.
One thread sends them on; it lives as long as something waits.

Lock map
    _lock     guards the waiting messages and the thread's life; native; O(1) work
"""

from __future__ import annotations

import atexit
import collections
import logging
import os
import threading
from collections.abc import Callable

from sse_broker.core.sync import native_lock
from sse_broker.core.threads import spawn
from sse_broker.errors import LogUnavailable, QueueFull
from sse_broker.wire.command import Command
from sse_broker.wire.message import Message

__all__ = ["Buffer"]

PAUSE = 0.25  # seconds between tries
FLUSH = 2.0  # seconds that a process that ends waits for what is left

_log = logging.getLogger("sse_broker.logs")


class Buffer:
    """At most *size* messages; *send* records one and raises LogUnavailable."""

    def __init__(self, size: int, send: Callable[[Message | Command], object]) -> None:
        self._size = size
        self._send = send
        self._lock = native_lock()
        self._waiting: collections.deque[Message | Command] = collections.deque()
        self._runs = False
        self._empty = threading.Event()
        self._hooked = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message | Command) -> None:
        """Keep a message until it can be recorded.  Never waits.

        :raises QueueFull: there is no room.
        """
        with self._lock:
            if len(self._waiting) >= self._size:
                raise QueueFull(
                    f"{self._size} messages wait already for a log that is away", retry_after=1.0
                )
            self._waiting.append(message)
            self._empty.clear()
            start, self._runs = not self._runs, True
            hook, self._hooked = not self._hooked, True
        if hook:
            atexit.register(self.flush, FLUSH, os.getpid())
        if start:
            _log.warning("the log is away; messages wait in this process")
            spawn("buffer", self._run)

    def flush(self, timeout: float, pid: int = 0) -> None:
        """Wait until nothing waits, at most *timeout* seconds; log what is left."""
        if pid not in (0, os.getpid()):  # a fork has no part in what its parent kept
            return
        if self._waiting and not self._empty.wait(timeout):
            _log.error("%d messages were not recorded: the log is away", len(self._waiting))

    def _run(self) -> None:
        try:
            self._drain()
        except BaseException:
            with self._lock:
                self._runs = False  # the next message starts another thread
            raise

    def _drain(self) -> None:
        while self._waiting:
            try:
                self._send(self._waiting[0])
            except LogUnavailable:
                self._empty.wait(PAUSE)  # nobody sets it while something waits: a pause
                continue
            except Exception:
                _log.exception("a message that waited cannot be recorded and is left out")
            with self._lock:
                self._waiting.popleft()
                is_over = not self._waiting
                if is_over:
                    self._runs = False
                    self._empty.set()
            if is_over:
                _log.warning("the log is back; nothing waits any more")
                return
