"""Event streams outside the broker: one event after the other, as a whole response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Response, has_request_context, request

from sse_broker.servers import server_of
from sse_broker.servers.capacity import Seats, seats
from sse_broker.transport.sockets import tune
from sse_broker.web.refusal import HEADERS
from sse_broker.wire.message import Message, comment_frame, format_event

__all__ = ["event_stream"]


def event_stream(events: Iterable[Any]) -> Response:
    """Return a response that streams *events* to this one client.

    Each is an ``(event, data)`` pair, a :class:`Message`, bytes that
    :func:`format_event` made, or anything else that is data for ``message``.
    *events* is iterated by the server, after the view has returned, and closed
    at the end if it can be.  A client that takes nothing for 30 s is given up,
    where the server shows its socket.  Nothing is kept, replayed or shared: the broker is
    what does that.
    """
    environ = request.environ if has_request_context() else {}
    return Response(_Frames(events, environ), headers=HEADERS)


class _Frames(Iterator[bytes]):
    """An iterator class, so that ``close()`` reaches the source even before the first frame."""

    def __init__(self, events: Iterable[Any], environ: Mapping[str, Any]) -> None:
        self._source = events
        self._socket = server_of(environ).socket
        self._events: Iterator[Any] | None = None
        self._seats: Seats | None = None

    def __next__(self) -> bytes:
        if self._events is None:
            self._events = iter(self._source)
            self._seats = seats()
            self._seats.take()  # it keeps its thread, which the broker's streams have to know
            if self._socket is not None:
                tune(self._socket)
            return comment_frame("sse_broker")  # headers and first bytes leave at once
        return _frame(next(self._events))

    def close(self) -> None:
        """Close the source, if it can be closed.  Idempotent where the source's is."""
        self._stand_up()
        for one in (self._events, self._source):
            close = getattr(one, "close", None)
            if close is not None:
                close()
                return

    def _stand_up(self) -> None:
        taken, self._seats = self._seats, None
        if taken is not None:
            taken.leave()

    __del__ = _stand_up


def _frame(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, Message):
        return item.frame
    if isinstance(item, tuple) and len(item) == 2:
        return format_event(*item)
    return format_event("message", item)
