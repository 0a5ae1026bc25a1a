"""Event streams outside the broker: the seed's ``WriteEvent``, as a whole response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response

from sse_broker.web.refusal import HEADERS
from sse_broker.wire.message import Message, comment_frame, format_event

__all__ = ["event_stream"]


def event_stream(events: Iterable[Any]) -> Response:
    """Return a response that streams *events* to this one client.

    Each is an ``(event, data)`` pair, a :class:`Message`, bytes that
    :func:`format_event` made, or anything else that is data for ``message``.
    *events* is iterated by the server, after the view has returned, and closed
    at the end if it can be.  Nothing is kept, replayed or shared: the broker is
    what does that.
    """
    return Response(_Frames(events), headers=HEADERS)


class _Frames(Iterator[bytes]):
    """An iterator class, so that ``close()`` reaches the source even before the first frame."""

    def __init__(self, events: Iterable[Any]) -> None:
        self._source = events
        self._events: Iterator[Any] | None = None

    def __next__(self) -> bytes:
        if self._events is None:
            self._events = iter(self._source)
            return comment_frame("sse_broker")  # headers and first bytes leave at once
        return _frame(next(self._events))

    def close(self) -> None:
        """Close the source, if it can be closed."""
        for one in (self._events, self._source):
            close = getattr(one, "close", None)
            if close is not None:
                close()
                return


def _frame(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, Message):
        return item.frame
    if isinstance(item, tuple) and len(item) == 2:
        return format_event(*item)
    return format_event("message", item)
