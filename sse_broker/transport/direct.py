"""Whether bytes may go past gunicorn to the socket of a stream."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["as_it_is", "may_pass"]


def as_it_is(response: Any) -> bool:
    """Whether gunicorn sends the body of *response*, a stream, with no other bytes between."""
    if response.status_code != 200 or response.response_length is not None:
        return False
    return all(name.lower() != "content-encoding" for name, _ in response.headers)


def may_pass(start_response: Any, yielded: int) -> Any:
    """Return gunicorn's response whose stream has yielded so many bytes, if nobody is in between.

    *start_response* is what the stream's response was given.
    """
    http = sys.modules.get("gunicorn.http.wsgi")
    response: Any = getattr(start_response, "__self__", None)
    if http is None or type(response) is not http.Response or not as_it_is(response):
        return None
    return response if response.headers_sent and response.sent == yielded else None
