"""From a thread of gunicorn's to the pump: one request whose stream leaves, and its end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Protocol

from sse_broker.core.reader import Reader
from sse_broker.core.streams import Streams
from sse_broker.servers.gunicorn import HANDOFF
from sse_broker.transport.pump import Pump
from sse_broker.web.stream import Stream

__all__ = ["Detach", "Handoff", "Leaving", "left"]


class Host(Protocol):
    """The worker, as far as a request that leaves it is concerned."""

    pump: Pump | None
    keeps_requests: bool
    log: Any
    cfg: Any

    def handed_back(self) -> None:
        """Count a connection of the pump's as closed.  Any thread."""


class Detach(BaseException):
    """Leaves a request's thread with its stream; gunicorn catches no BaseException."""

    def __init__(self, handoff: Handoff, handed: tuple[Streams, Reader]) -> None:
        super().__init__()
        self.handoff, self.handed = handoff, handed


class Handoff:
    """One request whose stream is to leave, and what is left of the request then."""

    __slots__ = ("_began", "_environ", "_request", "_worker", "is_taken", "response", "stream")

    def __init__(
        self, worker: Host, response: Any, environ: dict[str, Any], stream: Stream
    ) -> None:
        self._worker, self.response, self._environ = worker, response, environ
        self.stream = stream
        self._began = dt.datetime.now()
        self._request: Any = None
        self.is_taken = False
        """Whether the stream has left, so that what ends its request has to wait."""

    def keep(self, request: Any) -> None:
        """Note the request whose end will have to be told."""
        self._request = request

    def begin(self) -> None:
        """Prepare for the stream's first frames."""
        assert self._worker.pump is not None
        self._worker.pump.restart()  # should it have died; the broker would do it within a second
        self.response.force_close()  # nothing is asked on this connection afterwards
        self.stream.leave()

    def send(self, first: bytes) -> None:
        """Send the headers and the first frames as gunicorn would, in one piece.

        :raises OSError: the client has left.
        """
        response = self.response
        sock, pieces = response.sock, _Pieces()
        response.sock = pieces
        try:
            response.write(first)
        finally:
            response.sock = sock
        sock.sendall(b"".join(pieces))

    def adopt(self, handed: tuple[Streams, Reader], sock: Any) -> None:
        """Give the socket and the stream to the pump.

        :raises OSError: the socket is closed already; the stream is over.
        """
        worker = self._worker
        streams, reader = handed
        wants_end = worker.keeps_requests or self.stream.at_close
        end = _End(worker, streams, reader, self if wants_end else None)
        assert worker.pump is not None
        try:
            worker.pump.adopt(reader, sock, bool(self.response.chunked), end)
        except BaseException:
            streams.forget(reader.client, "client_gone")
            self.conclude(0)
            raise

    def conclude(self, written: int) -> None:
        """Do what was put off: close the stream, write the access line, call the hook."""
        self.stream.close()
        worker, response = self._worker, self.response
        if not worker.keeps_requests:
            return
        response.sent += written
        took = dt.datetime.now() - self._began
        worker.log.access_now(response, self._request, self._environ, took)
        worker.cfg.post_request_now(worker, self._request, self._environ, response)


class _Pieces(list[bytes]):
    """What gunicorn writes to a socket."""

    def sendall(self, data: bytes) -> None:
        """Keep *data*."""
        self.append(bytes(data))


class _End:
    """What is done at a handed-off stream's end, on a side thread."""

    __slots__ = ("_late", "_reader", "_streams", "_worker")

    def __init__(
        self, worker: Host, streams: Streams, reader: Reader, late: Handoff | None
    ) -> None:
        self._worker, self._streams, self._reader, self._late = worker, streams, reader, late

    def __call__(self, written: int) -> None:
        try:
            self._streams.forget(self._reader.client, "client_gone")
            if self._late is not None:
                self._late.conclude(written)
        finally:
            self._worker.handed_back()


class Leaving(Iterator[bytes]):
    """A stream as gunicorn iterates it here: with its first frames it leaves."""

    __slots__ = ("_handoff", "_has_begun")

    def __init__(self, handoff: Handoff) -> None:
        self._handoff, self._has_begun = handoff, False

    def __next__(self) -> bytes:
        handoff = self._handoff
        if self._has_begun:  # it was refused, or is over already
            return next(handoff.stream)
        self._has_begun = True
        handoff.begin()
        first = next(handoff.stream)
        if handoff.stream.is_over:
            return first
        handoff.send(first)
        handed = handoff.stream.hand_off()
        if handed is None:  # it has ended meanwhile
            return next(handoff.stream)
        handoff.is_taken = True
        raise Detach(handoff, handed)

    def close(self) -> None:
        """Close the stream, unless it lives on."""
        if not self._handoff.is_taken:
            self._handoff.stream.close()


def left(environ: dict[str, Any]) -> Handoff | None:
    """Return what is left of a request whose stream has left its thread."""
    handoff = environ.get(HANDOFF)
    return handoff if isinstance(handoff, Handoff) and handoff.is_taken else None
