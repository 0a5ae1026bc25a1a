"""What any WSGI server is asked about a request, and the answers of one that shows nothing.

PEP 3333 has no word for a socket, for threads or for the end of the server.  So
under a server that is not known here (cheroot, bjoern, an ASGI bridge) a stream
takes the ordinary way and three things are lost: a client that leaves is noticed
by the failing write of a heartbeat, or by nobody where the server swallows it; no
stream is refused to keep threads for other requests; and the streams end with
the process.
"""

from __future__ import annotations

import io
import os
import socket
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sse_broker.core.sync import patched, unpatched

__all__ = ["Capacity", "Passage", "Server", "stop_reading"]


class Capacity(NamedTuple):
    """How much a server can do at a time in this process; 0 is not known, or no limit."""

    threads: int = 0
    connections: int = 0


class Passage(NamedTuple):
    """Leave to write a body's bytes to the socket, past the server."""

    response: Any
    """The server's own response; its count of bytes, ``sent``, is to be kept true."""

    chunked: bool
    """Whether the body has the chunked coding."""


class Server:
    """One request's server.  Asked by the request's thread; nothing here waits."""

    __slots__ = ("_environ",)

    has_left: Callable[[], bool] | None = None
    """Where the socket cannot be watched: whether the client has left."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    @property
    def socket(self) -> Any:
        """The client's socket, or ``None`` where the server does not show it."""
        return None

    is_socket_foreign = False
    """Whether another thread than the request's writes to the socket and closes it."""

    @property
    def trouble(self) -> str:
        """Why a stream here would stop everything else, and the cure; empty if it would not."""
        if _is_made_up(self._environ):
            return ""
        missing = unpatched()
        if missing:
            return (
                "gevent serves this request but has not patched the standard library"
                f" ({missing}); call gevent.monkey.patch_all() first of all"
            )
        if self._environ.get("wsgi.multithread") or patched():
            return ""
        return (
            f"one request at a time is served here, so a stream would stop all others; {self.cure}"
        )

    cure = "run it with threads, or run gunicorn with --worker-class gthread --threads N"

    @property
    def capacity(self) -> Capacity:
        """How many requests and connections there can be in this process."""
        return Capacity()

    hands_off = False
    """Whether a stream leaves its thread here, if nothing is between it and the server."""

    needs_descriptors = False
    """Whether the limit of descriptors may be raised to one for each connection."""

    @property
    def is_alive(self) -> Callable[[], bool] | None:
        """Who can be asked at any time whether the server has not begun to stop, if anybody."""
        return None

    def passage(self, body: object, caller: types.FrameType) -> Passage | None:
        """Return leave to write past the server if what it iterates is *body* itself.

        *caller* is the frame that has just asked *body* for its second item: the
        first one has been sent, and the server's headers before it.
        """
        del body, caller
        return None

    def hang_up(self) -> None:
        """Have the connection closed as soon as what the response still says is sent.

        Called when a body is over, before its server knows.  An application cannot
        say ``Connection: close`` (PEP 3333, on hop-by-hop headers).
        """


def _is_made_up(environ: Mapping[str, Any]) -> bool:
    """Whether a test client made this request up in its own process.

    Those of Werkzeug, Flask, WebTest and httpx name no server, and the body is bytes
    in memory; a server is not recognised by ``SERVER_SOFTWARE``, which it may leave out.
    """
    body = environ.get("wsgi.input")
    in_memory = body is None or isinstance(getattr(body, "input", body), io.BytesIO)
    return in_memory and not environ.get("SERVER_SOFTWARE")


def stop_reading(sock: Any) -> None:
    """Have a server that waits for the next request on *sock* find the connection's end."""
    if sock is None:
        return
    try:
        # A second descriptor: shutdown() on a TLS socket would touch the TLS state
        # that is still needed to send the rest.
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:
            twin.shutdown(socket.SHUT_RD)
    except OSError:  # it has gone already
        pass
