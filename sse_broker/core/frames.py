"""What waits for one client: a bounded ``queue.Queue`` of records, cheap to put into."""

from __future__ import annotations

import collections
import queue
import threading
import time
from typing import Any

from sse_broker.core.ports import Record
from sse_broker.core.sync import Bell, StdlibQueue, WakeChain, make_bell, native_lock

__all__ = ["FrameQueue"]


class FrameQueue(StdlibQueue):  # type: ignore[misc]  # queue.Queue, whatever was patched
    """A bounded ``queue.Queue`` of records for one consumer, cheap to put into.

    The lock is a native one, so that any thread may take it under gevent.  The
    consumer waits on a bell of its own instead of a condition: a put that finds
    it not waiting costs an append and nothing more.
    """

    queue: collections.deque[Record]
    maxsize: int

    def __init__(self, maxsize: int) -> None:
        # Not queue.Queue's own: three conditions that nobody waits for are 3 kB for each client.
        self.maxsize = maxsize
        self.queue = collections.deque()
        self.mutex = native_lock()
        self.unfinished_tasks = 0
        self.is_shutdown = False  # of Python 3.13
        self.chain: WakeChain | None = None
        self._bell = make_bell()
        self.armed = False  # the consumer waits, and nothing has come since

    def __getattr__(self, name: str) -> Any:
        """Return one of queue.Queue's conditions, made when it is first asked for."""
        if name not in ("not_empty", "not_full", "all_tasks_done"):
            raise AttributeError(name)
        made = self.__dict__[name] = threading.Condition(self.mutex)  # type: ignore[arg-type]
        return made

    def hang(self, bell: Bell) -> None:
        """Have *bell* rung for this queue from now on, once after each :meth:`arm`; rings now."""
        with self.mutex:
            self.chain, self._bell, self.armed = None, bell, False
        bell.ring()

    def arm(self) -> None:
        """Have the bell rung once more; what waits is looked at after this."""
        self.armed = True

    def ring_locked(self) -> None:
        """Wake the consumer, if it waits."""
        if self.armed:
            self.armed = False
            if self.chain is None:
                self._bell.ring()
            else:
                self.chain.call(self._bell)

    def wait(self, timeout: float) -> None:
        """Wait until the bell rings; the caller holds the mutex, which is free meanwhile.

        A bell that is called too late rings into the next wait, which then
        finds nothing and is repeated by whoever waits.
        """
        self.armed, rang = True, False
        self.mutex.release()
        try:
            rang = self._bell.wait(timeout)
        finally:
            if rang and self.chain is not None:
                self.chain.woke()
            self.mutex.acquire()
            self.armed = False

    def snapshot(self) -> list[Record]:
        """Return what waits, without taking it.  Any thread; never waits long."""
        with self.mutex:
            return list(self.queue)

    def wait_armed(self, timeout: float) -> None:
        """Wait as :meth:`wait` does, without the mutex; ``armed`` was set while it was held."""
        rang = False
        try:
            rang = self._bell.wait(timeout)
        finally:
            if rang and self.chain is not None:
                self.chain.woke()
            self.armed = False

    def put(self, item: Record, block: bool = True, timeout: float | None = None) -> None:
        """Put one record in and wake the consumer.  Never waits, whatever the arguments say.

        :raises queue.Full: there is no room; the broker asks the overflow policy instead.
        """
        del block, timeout
        with self.mutex:
            if len(self.queue) >= self.maxsize:
                raise queue.Full
            self.queue.append(item)
            self.ring_locked()

    def get(self, block: bool = True, timeout: float | None = None) -> Record:
        """Take one record, as :meth:`queue.Queue.get` does.

        :raises queue.Empty: there is none, for *timeout* seconds if *block*.
        """
        with self.mutex:
            end = None if timeout is None else time.monotonic() + timeout
            while not self.queue and block:
                rest = 60.0 if end is None else end - time.monotonic()
                if rest <= 0:
                    break
                self.wait(rest)
            if not self.queue:
                raise queue.Empty
            return self.queue.popleft()
