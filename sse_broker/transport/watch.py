"""Notices at once that the peer of a stream has gone, where its socket can be reached.

A thread that waits for its next message does not look at its socket, so without
this a closed tab is found by the first heartbeat that fails.  One selector per
process watches all sockets for reading: a client has nothing to say after its
request, so what can be read is its end.  What it says all the same is dropped,
and a client that says more than ``MOST_HEARD`` bytes is cut.

Under gevent the hub watches; otherwise one thread does, which lives as long as
there is something to watch.

Lock map
    _lock     guards the watched sockets and the thread's life; native; never
              held while a callback runs
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from sse_broker.core.sync import native_lock, on_readable
from sse_broker.core.threads import is_alive, spawn
from sse_broker.transport.sockets import MOST_HEARD

__all__ = ["is_well", "mend", "watch"]

_log = logging.getLogger("sse_broker.watch")
_watchers: dict[int, _Watcher] = {}


def watch(sock: Any, gone: Callable[[str], None]) -> Callable[[], None]:
    """Call *gone* once when the peer of *sock* closes; return the call that ends the watch.

    *gone* is told why: ``client_gone``, or ``flood`` where the peer sends and
    sends.  It runs on another thread or on the hub and must not wait.  End the
    watch before the socket is closed.  TLS sockets are not watched.
    """
    if isinstance(sock, ssl.SSLSocket):
        return _nothing
    watcher = _watchers.get(os.getpid())
    if watcher is None:
        watcher = _watchers.setdefault(os.getpid(), _Watcher())
    try:
        return _watch_on_hub(sock, gone) or watcher.add(sock, gone)
    except (OSError, ValueError, KeyError):  # closed already: the next write says so
        return _nothing


def is_well() -> bool:
    """Whether the sockets of this process that should be watched are."""
    watcher = _watchers.get(os.getpid())
    return watcher is None or watcher.is_well


def mend() -> None:
    """Start the thread of this process again if it died."""
    watcher = _watchers.get(os.getpid())
    if watcher is not None:
        watcher.mend()


def _nothing() -> None:
    """End a watch that never began."""


class _Ear:
    """A socket that is listened to, and how much its peer has said."""

    __slots__ = ("_heard", "_raw", "gone")

    def __init__(self, sock: Any, gone: Callable[[str], None]) -> None:
        self._raw = getattr(sock, "_sock", sock)  # a gevent socket would wait
        self._heard = 0
        self.gone = gone

    def verdict(self) -> str:
        """Drop what can be read now; return why the stream is over, or nothing if it is not."""
        try:  # once: a second time, a socket with a timeout would wait
            piece = self._raw.recv(MOST_HEARD, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return ""
        except OSError:
            return "client_gone"
        self._heard += len(piece)
        if not piece:
            return "client_gone"
        return "flood" if self._heard > MOST_HEARD else ""


def _watch_on_hub(sock: Any, gone: Callable[[str], None]) -> Callable[[], None] | None:
    ends: list[Callable[[], None]] = []
    ear = _Ear(sock, gone)

    def end() -> None:
        if ends:
            ends.pop()()

    def look() -> None:
        reason = ear.verdict()
        if reason:
            end()
            gone(reason)

    stop = on_readable(sock.fileno(), look)
    if stop is None:
        return None
    ends.append(stop)
    return end


class _Watcher:
    """One selector and, while it has sockets, one thread."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._selector = selectors.DefaultSelector()
        self._bell, bell = socket.socketpair()
        self._bell.setblocking(False)
        bell.setblocking(False)
        self._rung = bell
        self._selector.register(bell, selectors.EVENT_READ)
        self._watched: dict[int, _Ear] = {}
        self._thread: threading.Thread | None = None
        self._is_starting = False

    def add(self, sock: Any, gone: Callable[[str], None]) -> Callable[[], None]:
        fd = sock.fileno()
        entry = _Ear(sock, gone)
        with self._lock:
            if self._watched.pop(fd, None) is not None:
                self._selector.unregister(fd)  # of a socket that was closed without a word
            self._selector.register(fd, selectors.EVENT_READ)
            self._watched[fd] = entry
            starts = self._claims_start_locked()
        if starts:
            self._start()
        return lambda: self._remove(fd, entry)

    @property
    def is_well(self) -> bool:
        """Whether there is a thread, if there is something to watch."""
        return not self._watched or is_alive(self._thread)

    def mend(self) -> None:
        """Start the thread again if it died."""
        with self._lock:
            starts = not self.is_well and self._claims_start_locked()
        if starts:
            _log.error("the watcher of sockets had died; it is started again")
            self._start()

    def _claims_start_locked(self) -> bool:
        """Whether the caller is to start a thread, and nobody else does."""
        if self._is_starting or is_alive(self._thread):
            return False
        self._is_starting = True
        return True

    def _start(self) -> None:
        try:
            self._thread = spawn("watch", self._run)
        except RuntimeError:  # no more threads: until there are, heartbeats find who left
            self._thread = None
        finally:
            self._is_starting = False

    def _remove(self, fd: int, entry: _Ear) -> None:
        with self._lock:
            if self._watched.get(fd) is not entry:
                return
            del self._watched[fd]
            self._selector.unregister(fd)
            if not self._watched:
                self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"\0")
        except BlockingIOError:  # it rings already
            pass

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(60):
                if key.fileobj is self._rung:
                    self._answer()
                else:
                    self._look(key.fd)
            with self._lock:
                if not self._watched:
                    self._thread = None
                    return

    def _answer(self) -> None:
        try:
            self._rung.recv(4096)
        except BlockingIOError:
            pass

    def _look(self, fd: int) -> None:
        entry = self._watched.get(fd)
        if entry is None:
            return
        reason = entry.verdict()
        if reason:
            self._remove(fd, entry)
            try:
                entry.gone(reason)
            except Exception:  # one stream's trouble is not the others'
                _log.exception("a stream whose client has left could not be told")
