"""Requests whose head is not there yet: they hold no thread, and have a deadline.

gunicorn reads a request on a thread of its pool for as long as the client likes, so a few
clients that send half a request stop everybody.  Here a thread looks whether the head
is there (``MSG_PEEK``); if not, the connection waits on the main thread, until more of
it comes or its time is over.

What cannot be seen from outside (TLS, the rest of a request that came with the one
before) is read on a thread, and cut at its deadline.  A body is the application's
to read: a proxy in front is what protects it.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Heads", "is_there"]

DEADLINE = 10.0  # seconds from the connection, or the last response's end, to a whole head
SEEN = 16 * 1024  # bytes; a longer head is read on a thread, under the same deadline
EDGE = getattr(select, "EPOLLET", 0) | getattr(select, "EPOLLRDHUP", 0) | 1  # EPOLLIN
_PEEK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


def is_there(conn: Any) -> bool:
    """Whether a thread that reads the next request of *conn* now would not wait for its head.

    Also where that cannot be seen, and where the connection has ended.
    """
    if isinstance(conn.sock, ssl.SSLSocket) or getattr(conn.cfg, "is_ssl", False):
        return True
    unreader = getattr(conn.parser, "unreader", None)
    if unreader is not None and unreader.buf.getvalue():
        return True  # some of it was read with the request before
    try:
        seen: bytes = conn.sock.recv(SEEN, _PEEK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    return not seen or b"\r\n\r\n" in seen or len(seen) == SEEN


class Heads:
    """The connections of one worker that wait, on its main thread, and those that are read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._waiting: dict[int, tuple[Any, float]] = {}
        self._reading: dict[int, tuple[Any, int, float]] = {}
        # Edge-triggered: half a head that is left where it is would wake for ever.
        self._epoll = select.epoll() if hasattr(select, "epoll") else None

    def fileno(self) -> int:
        """What becomes readable when there is more of a head; -1 where nobody can say that."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def wait(self, conn: Any) -> None:
        """Have *conn* wait for more."""
        fd = conn.sock.fileno()
        if fd < 0:
            return
        self._waiting[fd] = (conn, self._now() + DEADLINE)
        if self._epoll is not None:
            self._epoll.register(fd, EDGE)

    def complete(self) -> list[Any]:
        """Return the connections that can be read now; they wait no more."""
        seen = [(fd, 0) for fd in self._waiting] if self._epoll is None else self._epoll.poll(0)
        return [
            self._let_go(fd)
            for fd, mask in seen
            if fd in self._waiting and (mask & ~1 or is_there(self._waiting[fd][0]))
        ]

    def late(self, stops_at: float | None = None) -> list[Any]:
        """Return the connections whose time is over; they wait no more.  Cut those that are read.

        *stops_at* is a deadline for all, once the worker stops.
        """
        now = self._now()
        over = []
        for fd, (_, end) in self._waiting.items():  # in the order of their ends
            if (end if stops_at is None else min(end, stops_at)) > now:
                break
            over.append(fd)
        for conn, fd, end in list(self._reading.values()):
            if end <= now:
                self._reading.pop(id(conn), None)
                _cut(conn, fd)
        return [self._let_go(fd) for fd in over]

    def next_in(self) -> float:
        """Return the seconds to the next deadline of a connection that waits; 1 at most."""
        for _, end in self._waiting.values():
            return max(0.0, min(1.0, end - self._now()))
        return 1.0

    def begin(self, conn: Any) -> None:
        """Say that a thread reads *conn*.  On that thread."""
        self._reading[id(conn)] = (conn, conn.sock.fileno(), self._now() + DEADLINE)

    def parsed(self, conn: Any) -> None:
        """Say that its request is there, or that there is none.  On that thread; idempotent."""
        self._reading.pop(id(conn), None)

    def _let_go(self, fd: int) -> Any:
        conn, _ = self._waiting.pop(fd)
        if self._epoll is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:  # closed meanwhile
                pass
        return conn

    def close(self) -> None:
        """Let go of what is held open."""
        if self._epoll is not None:
            self._epoll.close()


def _cut(conn: Any, fd: int) -> None:
    """End what a thread reads.  While TLS shakes hands the connection's own socket has none."""
    shown = conn.sock.fileno()
    try:
        with socket.socket(fileno=os.dup(fd if shown < 0 else shown)) as twin:
            twin.shutdown(socket.SHUT_RD)
    except OSError:
        pass
