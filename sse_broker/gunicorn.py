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


class _Handoff:
    """One request whose stream is to leave, and what is left of the request then."""

    __slots__ = ("_began", "_environ", "_request", "_response", "_worker", "is_taken", "stream")

    def __init__(
        self, worker: StreamWorker, response: Any, environ: dict[str, Any], stream: Stream
    ) -> None:
        self._worker, self._response, self._environ = worker, response, environ
        self.stream = stream
        self._began = dt.datetime.now()
        self._request: Any = None
        self.is_taken = False
        """Whether the stream has left, so that what ends its request has to wait."""

    def keep(self, request: Any) -> None:
        """Note the request whose end will have to be told."""
        self._request = request

    def adopt(self, handed: tuple[Streams, Reader], sock: Any) -> None:
        """Give the socket and the stream to the pump."""
        worker, response = self._worker, self._response
        streams, reader = handed
        wants_end = worker.keeps_requests or self.stream.at_close
        end = _End(worker, streams, reader, self if wants_end else None)
        assert worker.pump is not None
        worker.pump.adopt(reader, sock, bool(response.chunked), end)

    def conclude(self, written: int) -> None:
        """Do what was put off: close the stream, write the access line, call the hook."""
        self.stream.close()
        worker, response = self._worker, self._response
        if not worker.keeps_requests:
            return
        response.sent += written
        took = dt.datetime.now() - self._began
        worker.log.access_now(response, self._request, self._environ, took)
        worker.cfg.post_request_now(worker, self._request, self._environ, response)


class _End:
    """What is done at a handed-off stream's end, on a side thread."""

    __slots__ = ("_late", "_reader", "_streams", "_worker")

    def __init__(
        self, worker: StreamWorker, streams: Streams, reader: Reader, late: _Handoff | None
    ) -> None:
        self._worker, self._streams, self._reader, self._late = worker, streams, reader, late

    def __call__(self, written: int) -> None:
        try:
            self._streams.forget(self._reader.client, "client_gone")
            if self._late is not None:
                self._late.conclude(written)
        finally:
            self._worker.handed_back()


class _Leaving(Iterator[bytes]):
    """A stream as gunicorn iterates it here: after its first frames it leaves."""

    __slots__ = ("_handoff", "_has_begun")

    def __init__(self, handoff: _Handoff) -> None:
        self._handoff, self._has_begun = handoff, False

    def __next__(self) -> bytes:
        handoff = self._handoff
        stream, pump = handoff.stream, handoff._worker.pump
        assert pump is not None
        if not self._has_begun:
            self._has_begun = True
            pump.restart()  # should it have died; the broker would do it within a second
            handoff._response.force_close()  # nothing is asked on this connection afterwards
            stream.leave()
            return next(stream)
        handed = stream.hand_off()
        if handed is None:  # it was refused, or is over already
            return next(stream)
        handoff.is_taken = True
        raise Detach(handoff, handed)

    def close(self) -> None:
        """Close the stream, unless it lives on."""
        if not self._handoff.is_taken:
            self._handoff.stream.close()


def _handed(environ: dict[str, Any]) -> _Handoff | None:
    handoff = environ.get(HANDOFF)
    return handoff if isinstance(handoff, _Handoff) and handoff.is_taken else None


class _Log:
    """gunicorn's logger, with the access line of a stream put off to its end."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.access_now: Callable[..., None] = log.access

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Write the access line of a request that is over."""
        handoff = _handed(environ)
        if handoff is None:
            self.access_now(resp, req, environ, request_time)
        else:
            handoff.keep(req)


class _Settings:
    """gunicorn's settings, with ``post_request`` of a stream put off to its end."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)

    @property
    def post_request_now(self) -> Callable[..., None]:
        """The hook itself."""
        hook: Callable[..., None] = self._cfg.post_request
        return hook

    @property
    def post_request(self) -> Callable[..., None]:
        """The hook, for requests that are over."""

        def hook(worker: Any, req: Any, environ: dict[str, Any], resp: Any) -> None:
            if _handed(environ) is None:
                self.post_request_now(worker, req, environ, resp)

        return hook


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
