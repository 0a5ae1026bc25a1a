"""The worker: gunicorn's gthread one, with its own threads, and streams that leave them.

On the main thread: accepting, connections that are kept alive, heads that are not there
yet.  On a thread of the pool: one request at a time.  A stream that has left is the
pump's; the main thread learns of that only as a number.
"""

from __future__ import annotations

import collections
import errno
import gc
import logging
import selectors
import time
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import ThreadWorker

from sse_broker.gunicorn.handoff import Detach, Handoff, Leaving
from sse_broker.gunicorn.heads import Heads, is_there
from sse_broker.gunicorn.later import LateLog, LateSettings, wants_the_end
from sse_broker.gunicorn.pool import Outcome, Pool
from sse_broker.servers.capacity import descriptors
from sse_broker.servers.gunicorn import HANDOFF, sends_as_it_is
from sse_broker.transport import hosts
from sse_broker.transport.pump import Pump
from sse_broker.web.stream import Stream

__all__ = ["StreamWorker"]

NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 1.0  # seconds without accepting once there is nothing left to accept with
SAY_AGAIN = 60.0  # seconds
NOTIFY_EVERY = 0.5  # seconds; the shortest --timeout is one
STOP_AFTER = 2.0  # seconds that a stopping worker waits for requests that have begun to come
GARBAGE = 5_000  # objects made since, at which the collector looks for those that died
LEFT = object()

_log = logging.getLogger("sse_broker.gunicorn")


class StreamWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gthread worker that hands streams off to one pump thread."""

    cfg: Any
    log: Any
    wsgi: Any
    poller: Any
    alive: bool
    pump: Pump | None = None
    keeps_requests = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._closed: collections.deque[None] = collections.deque()  # by others than the main one
        self._count = 0
        self._accept_again_at = 0.0
        self._said_at = -SAY_AGAIN
        self._stops_at: float | None = None
        self._notify_at = 0.0
        super().__init__(*args, **kwargs)

    def init_process(self) -> None:
        """Start the pump, which has to be there before the app is loaded; then run."""
        self.pump = Pump()
        self.pump.start()
        hosts.install(self.pump)
        self.heads = Heads()
        self.keeps_requests = wants_the_end(self.cfg, self.log)
        self.cfg = LateSettings(self.cfg)
        self.log = LateLog(self.log)
        self._count_descriptors()
        super().init_process()

    def _count_descriptors(self) -> None:
        """Accept no more connections than there are descriptors for."""
        room = descriptors(self.cfg.worker_connections)
        if 0 < room < self.cfg.worker_connections:
            self.worker_connections = room
            self.max_keepalived = max(0, room - self.cfg.threads)

    def get_thread_pool(self) -> Any:
        """Return what serves requests."""
        return Pool(self.cfg.threads, self._serve)

    def run(self) -> None:
        """Serve until told to stop; end the pump with the last connection."""
        assert self.pump is not None
        if self.heads.fileno() >= 0:
            self.poller.register(self.heads.fileno(), selectors.EVENT_READ, self._read_heads)
        try:
            super().run()
        finally:
            self.heads.close()
            self.pump.stop()

    def load_wsgi(self) -> None:
        """Load the app, and offer each of its requests the hand-off."""
        super().load_wsgi()
        app = self.wsgi
        # What the app consists of is not looked through again at each full collection,
        # for which all streams would stop (40 ms for a small app).
        gc.collect()
        gc.freeze()
        # A connect makes some hundred objects that live on: to look after 700 of them, as is
        # the default, is to look seven times as often at what has not had time to die.
        gc.set_threshold(GARBAGE, 10, 10)

        def offering(environ: dict[str, Any], start_response: Any) -> Any:
            environ[HANDOFF] = True
            body = app(environ, start_response)
            if type(body) is not Stream:  # something is in between, or it is another's response
                return body
            response = getattr(start_response, "__self__", None)
            if not sends_as_it_is(response):  # HTTP/2 has one of its own
                return body
            handoff = environ[HANDOFF] = Handoff(self, response, environ, body)
            return Leaving(handoff)

        self.wsgi = offering

    # On the main thread.

    def notify(self) -> None:
        """Tell the arbiter that this worker lives: once in a while, and not at each event."""
        now = time.monotonic()
        if now >= self._notify_at:
            self._notify_at = now + NOTIFY_EVERY
            super().notify()

    def accept(self, listener: Any) -> None:
        """Accept a connection; without descriptors, let the others wait in the backlog."""
        try:
            super().accept(listener)
        except OSError as err:
            if err.errno not in NOTHING_LEFT:
                raise
            self._accept_again_at = now = time.monotonic() + PAUSE
            self.set_accept_enabled(False)
            if now - self._said_at >= SAY_AGAIN:
                self._said_at = now
                _log.error("no connection can be accepted for now: %s", err)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or stop to accept; not before a pause is over."""
        if not enabled or time.monotonic() >= self._accept_again_at:
            super().set_accept_enabled(enabled)

    def enqueue_req(self, conn: Any) -> None:
        """Have a thread serve the next request of a connection."""
        self.tpool.put(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events, or for the deadline of a head."""
        super().wait_for_and_dispatch_events(min(timeout, self.heads.next_in()))
        if self.heads.fileno() < 0:
            self._read_heads()
        if not self.alive and self._stops_at is None:
            self._stops_at = time.monotonic() + STOP_AFTER
        assert self.pump is not None
        for conn in self.heads.late(self._stops_at):
            self.pump.linger(conn.sock)
            self.nr_conns -= 1

    def _wait_for_head(self, conn: Any) -> None:
        self.heads.wait(conn)

    def _read_heads(self, _fileobj: object = None) -> None:
        for conn in self.heads.complete():
            self.tpool.put(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Look after a connection whose thread is through with it."""
        assert self.pump is not None
        conn.close = _Closing(self.pump, conn)
        super().finish_request(conn, fs)

    @property
    def nr_conns(self) -> int:
        """How many connections there are, the pump's too.  Asked and set by the main thread."""
        while self._closed:
            self._closed.pop()
            self._count -= 1
        return self._count

    @nr_conns.setter
    def nr_conns(self, count: int) -> None:
        self._count = count

    # On a request's thread, or another one.

    def _serve(self, conn: Any) -> None:
        """Serve the next request of a connection, if it is there."""
        if not is_there(conn):
            self.method_queue.defer(self._wait_for_head, conn)
            return
        conn.data_ready = True  # gunicorn does not look once more
        self.heads.begin(conn)
        try:
            outcome = Outcome(self.handle(conn))
        except BaseException as err:  # gunicorn's main thread closes the connection
            outcome = Outcome(error=err)
        self.heads.parsed(conn)
        if outcome.exception() is not None or outcome.result():
            if outcome.exception() or outcome.result() is not LEFT:
                self.method_queue.defer(self.finish_request, conn, outcome)
            return
        assert self.pump is not None
        self.pump.linger(conn.sock)
        self.handed_back()

    def handle(self, conn: Any) -> Any:
        """Serve a request on its thread; if its response is a stream, hand that off."""
        try:
            return super().handle(conn)
        except Detach as leaving:
            try:
                leaving.handoff.adopt(leaving.handed, conn.sock)
            except OSError:  # closed meanwhile
                return False
            return LEFT

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Serve a request whose head is there."""
        self.heads.parsed(conn)
        return super().handle_request(req, conn)

    def handed_back(self) -> None:
        """Count a connection of the pump's as closed.  Any thread."""
        self._closed.append(None)
        if not (self._accepting and self.alive):  # the main thread waits for that
            self.method_queue.defer(_nothing)


def _nothing() -> None:
    """Wake the main thread."""


class _Closing:
    """A connection's ``close()``, with the wait for its peer left to the pump."""

    __slots__ = ("_conn", "_pump")

    def __init__(self, pump: Pump, conn: Any) -> None:
        self._pump, self._conn = pump, conn

    def __call__(self, graceful: bool = False) -> None:
        if graceful:
            self._pump.linger(self._conn.sock)
        else:
            util.close(self._conn.sock)
