"""What a request for a stream says of where the stream is to begin."""

from __future__ import annotations

from flask import Request

__all__ = ["last_event_id"]


def last_event_id(request: Request) -> str:
    """Return the id of the last event that the client has seen; empty if it names none.

    The header ``Last-Event-ID`` (HTML standard, 9.2.4) goes first.  Clients that
    cannot set headers say it in the URL, where each has its own spelling:
    ``last_event_id``, ``lastEventId``, ``lastEventID``, ``Last-Event-ID`` and so on.
    A parameter of that name with nothing in it says nothing.
    """
    found = request.headers.get("Last-Event-ID", "")
    if found:
        return found
    for name, value in request.args.items(multi=True):
        if value and name.lower().replace("-", "").replace("_", "") == "lasteventid":
            return value
    return ""
