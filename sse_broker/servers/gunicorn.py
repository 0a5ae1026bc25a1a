"""What gunicorn shows: each request's socket, and in its worker all the rest.

gunicorn tells its applications nothing of their worker.  But the worker is whom the
process's signals call, whatever wraps the application.

Its workers iterate a body in one way, ``for item in respiter: resp.write(item)``, in a
method ``handle_request`` (24.1 to 27.0, gthread and gevent).  So the frame that asks
the body for an item says whether that body is what gunicorn iterates: also an
iterator in C (``map``, ``itertools.chain``), which has no frame, is ``respiter`` itself.
"""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Callable
from typing import Any

from sse_broker.servers.unknown import Capacity, Passage, Server, stop_reading

__all__ = ["HANDOFF", "SOCKET", "Gunicorn", "find_worker", "sends_as_it_is"]

SOCKET = "gunicorn.socket"
HANDOFF = "sse_broker.handoff"
"""The key of ``environ`` by which our worker says that streams may leave their threads."""

_SIGNALS = (signal.SIGTERM, signal.SIGABRT, signal.SIGINT)


class Gunicorn(Server):
    """A request under a gunicorn worker of any kind."""

    __slots__ = ()

    @property
    def socket(self) -> Any:
        """The client's socket, which the request's own thread or greenlet writes to."""
        return self._environ.get(SOCKET)

    @property
    def trouble(self) -> str:
        """Why a stream here would stop everything else, and the cure; empty if it would not."""
        if self._environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
            return (
                "gunicorn serves the HTTP/2 requests of a connection one after another, so a"
                " stream would stop the rest; let the proxy in front speak HTTP/2"
            )
        return super().trouble

    cure = "run gunicorn with --worker-class gthread --threads N, or --worker-class gevent"

    @property
    def capacity(self) -> Capacity:
        """The worker's threads, none for greenlets, and its connections."""
        worker = find_worker()
        kind = _kind_of(type(worker))
        if kind == "ThreadWorker":
            return Capacity(int(worker.cfg.threads), _connections(worker))
        return Capacity(0, _connections(worker)) if kind == "AsyncWorker" else Capacity()

    @property
    def hands_off(self) -> bool:  # type: ignore[override]  # it depends
        """Whether the worker is ours, and as it has to be."""
        return bool(self._environ.get(HANDOFF))

    needs_descriptors = True

    @property
    def is_alive(self) -> Callable[[], bool] | None:
        """The worker's ``alive``: false from the first signal on, or when it has done its share."""
        worker = find_worker()
        return None if worker is None else lambda: bool(worker.alive)

    def passage(self, body: object, caller: types.FrameType) -> Passage | None:
        """Return leave to write past gunicorn if what it iterates is *body* itself."""
        module = str(caller.f_globals.get("__name__"))
        if caller.f_code.co_name != "handle_request" or not module.startswith("gunicorn.workers."):
            return None
        seen = caller.f_locals
        response: Any = seen.get("resp")
        if seen.get("respiter") is not body or not sends_as_it_is(response):
            return None
        return Passage(response, bool(response.chunked)) if response.headers_sent else None

    def hang_up(self) -> None:
        """Have gunicorn find nothing more to read, for which it closes at once.

        It would keep the connection for the next request, and wait for the peer's end
        of it, a gthread worker on its main thread.
        """
        stop_reading(self.socket)


# signal.getsignal() makes an enum member of what it finds, which a stream would wait for.
_handler_of: Callable[[int], Any] = getattr(sys.modules.get("_signal"), "getsignal", None) or (
    signal.getsignal
)


def find_worker() -> Any:
    """Return the gunicorn worker that this process is, or ``None`` elsewhere."""
    base = sys.modules.get("gunicorn.workers.base")
    for number in _SIGNALS if base else ():
        owner = getattr(_handler_of(number), "__self__", None)
        if isinstance(owner, base.Worker):  # type: ignore[union-attr]  # there is one
            return owner
    return None


_kinds: dict[type, str] = {}


def _kind_of(worker: type) -> str:
    if worker not in _kinds:
        names = {kind.__name__ for kind in worker.__mro__}
        _kinds[worker] = next((n for n in ("ThreadWorker", "AsyncWorker") if n in names), "")
    return _kinds[worker]


def sends_as_it_is(response: Any) -> bool:
    """Whether gunicorn writes each item of a body, all of it, framed and not changed.

    Not the answer to HEAD, whose body is dropped (a middleware may have made a GET of
    it); not where a ``Content-Length`` cuts it off; not a response of another class
    (HTTP/2), or one whose ``write`` somebody has replaced to see what passes.
    """
    http: Any = sys.modules.get("gunicorn.http.wsgi")
    if http is None or type(response) is not http.Response:
        return False
    write = http.Response.write
    if getattr(write, "__globals__", None) is not vars(http) or "write" in vars(response):
        return False
    is_whole = response.response_length is None and response.req.method != "HEAD"
    return is_whole and getattr(response, "status_code", None) == 200


def _connections(worker: Any) -> int:
    """What the worker accepts at most; our own lowers it to its descriptors."""
    return int(getattr(worker, "worker_connections", None) or worker.cfg.worker_connections)
