"""Ends the streams of a process whose server wants to end.

gunicorn tells nobody in a worker that it stops; but the worker's ``alive`` turns
false for a SIGTERM as for HUP, ``max_requests`` and ``--reload``.  So a thread looks
at it ten times a second, and stops the brokers as soon as it does.  Elsewhere the
interpreter's exit stops them: with Ctrl-C on a development server, or waitress.

Nothing has to be configured for this.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable

from sse_broker.core.streams import Streams
from sse_broker.core.threads import spawn
from sse_broker.servers.unknown import Server

__all__ = ["end_with_server"]

LOOK_EVERY = 0.1  # seconds

_endings: dict[int, _Ending] = {}


def end_with_server(streams: Streams, server: Server) -> None:
    """Stop *streams* in this process when its *server* does.  Idempotent; cheap when repeated."""
    pid = os.getpid()
    ending = _endings.get(pid)
    if ending is None:  # setdefault is one step; a lock could be stuck after a fork
        ending = _endings.setdefault(pid, _Ending())
    ending.add(streams, server)


class _Ending:
    """The streams of one process, by broker, and what waits for the server's end."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Streams] = weakref.WeakSet()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_at_exit = False
        self._pause = threading.Event()

    def add(self, streams: Streams, server: Server) -> None:
        if streams in self._all:
            return
        self._all.add(streams)
        is_alive = server.is_alive
        with self._starting:
            if not self._is_at_exit:
                self._is_at_exit = True
                atexit.register(self._at_exit, os.getpid())
            if is_alive is not None and self._thread is None:
                self._thread = spawn("ending", lambda: self._watch(is_alive))

    def _watch(self, is_alive: Callable[[], bool]) -> None:
        while is_alive():
            self._pause.wait(LOOK_EVERY)
        self._stop()

    def _at_exit(self, pid: int) -> None:
        if pid == os.getpid():
            for streams in list(self._all):  # in turn: no thread can be started any more
                streams.stop()

    def _stop(self) -> None:
        """Stop all at once: each may have to wait for a stream that is stuck."""
        threads = [spawn("stop", streams.stop) for streams in list(self._all)]
        for thread in threads:
            thread.join(timeout=60)
