"""gunicorn: a worker whose streams leave their threads.

``gunicorn -k sse_broker.gunicorn.StreamWorker --threads 4 --worker-connections 20000 app:app``

A ``gthread`` worker like gunicorn's own, for any app.  When the response is a
stream of this library, gunicorn sends its headers and first frames; then the
socket goes to the pump (:mod:`sse_broker.transport.pump`) and the thread is free, as with
``wsgi.file_wrapper``.  The connection stays counted in ``worker_connections``; its
access-log line, ``post_request`` and the response's ``close()`` come at the
stream's end, with the bytes and the time of all of it.

Connections that gunicorn closes gracefully (it waits up to 2 s for each, since
26.0 on the worker's main thread) are closed by the pump, so that clients which
do not close their end stop nobody.

If this gunicorn is not as expected the worker is a plain ``gthread`` one and says
so once.
"""

from __future__ import annotations

import datetime as dt
import gc
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn, ThreadWorker

from sse_broker.core.reader import Reader
from sse_broker.core.streams import Streams
from sse_broker.servers.gunicorn import HANDOFF, sends_as_it_is
from sse_broker.transport import hosts
from sse_broker.transport.pump import Pump
from sse_broker.web.stream import Stream

__all__ = ["StreamWorker"]

_ACCESS_LOGS = ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "syslog")

_log = logging.getLogger("sse_broker.gunicorn")


class Detach(BaseException):
    """Leaves a request's thread with its stream; gunicorn catches no BaseException."""

    def __init__(self, handoff: _Handoff, handed: tuple[Streams, Reader]) -> None:
        super().__init__()
        self.handoff, self.handed = handoff, handed


class StreamWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gthread worker that hands streams off to one pump thread."""

    cfg: Any
    log: Any
    wsgi: Any
    pump: Pump | None = None
    keeps_requests = False

    def init_process(self) -> None:
        """Start the pump, which has to be there before the app is loaded; then run."""
        trouble = incompatibility()
        if trouble:
            _log.warning("streams stay in their threads: this gunicorn %s", trouble)
        else:
            self.pump = Pump()
            self.pump.start()
            hosts.install(self.pump)
            self.keeps_requests = _wants_the_end(self.cfg, self.log)
            self.cfg = _Settings(self.cfg)
            self.log = _Log(self.log)
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop; end the pump with the last connection."""
        try:
            super().run()
        finally:
            if self.pump is not None:
                self.pump.stop()

    def load_wsgi(self) -> None:
        """Load the app, and offer each of its requests the hand-off."""
        super().load_wsgi()
        app = self.wsgi
        if self.pump is None:
            return
        # What the app consists of is not looked through again at each full collection,
        # for which all streams would stop (40 ms for a small app).
        gc.collect()
        gc.freeze()

        def offering(environ: dict[str, Any], start_response: Any) -> Any:
            environ[HANDOFF] = True
            body = app(environ, start_response)
            if type(body) is not Stream:  # something is in between, or it is another's response
                return body
            response = getattr(start_response, "__self__", None)
            if not sends_as_it_is(response):  # HTTP/2 has one of its own
                return body
            handoff = environ[HANDOFF] = _Handoff(self, response, environ, body)
            return _Leaving(handoff)

        self.wsgi = offering

    def handle(self, conn: Any) -> Any:
        """Serve a request on its thread; if its response is a stream, hand that off."""
        try:
            return super().handle(conn)
        except Detach as leaving:
            leaving.handoff.adopt(leaving.handed, conn.sock)
            return leaving

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Look after a connection whose thread is through with it.  On the main thread."""
        if self.pump is not None:
            if not fs.cancelled() and not fs.exception() and isinstance(fs.result(), Detach):
                return  # still counted; it is the pump's
            conn.close = _Closing(self.pump, conn)
        super().finish_request(conn, fs)

    def handed_back(self) -> None:
        """Count a connection of the pump's as closed.  Any thread."""
        self.method_queue.defer(self._one_less)

    def _one_less(self) -> None:
        self.nr_conns -= 1


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


def _wants_the_end(cfg: Any, log: Any) -> bool:
    """Whether anybody is told of a request's end; if not, nothing of it is kept."""
    hook = cfg.settings["post_request"]
    if hook.get() is not hook.default or type(log) is not Logger:  # statsd has a logger of its own
        return True
    return any(getattr(cfg, name, None) for name in _ACCESS_LOGS)


def incompatibility() -> str:
    """Return what of this gunicorn is not as hand-off needs it; empty if all is."""
    wanted = {
        "handle": ["self", "conn"],
        "handle_request": ["self", "req", "conn"],
        "finish_request": ["self", "conn", "fs"],
        "enqueue_req": ["self", "conn"],
    }
    for name, arguments in wanted.items():
        method = getattr(ThreadWorker, name, None)
        if method is None or list(inspect.signature(method).parameters) != arguments:
            return f"has another ThreadWorker.{name}"
    if not hasattr(TConn, "close") or hasattr(TConn, "__slots__"):
        return "has other connections"
    probe = Response(None, None, None)
    for name in ("chunked", "must_close", "sent", "headers", "response_length"):
        if not hasattr(probe, name):
            return f"has responses without {name}"
    return ""
