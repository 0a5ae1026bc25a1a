"""How a request is told no: the one table of errors and HTTP statuses.

A native ``EventSource`` that gets anything but 200 on a connect or a reconnect
never comes back (HTML standard, 9.2.3).  So a refusal that is meant for now is
a stream that says so and ends; only clients that can handle a status get one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from flask import Request, Response, has_request_context, jsonify
from flask import request as current_request

from sse_broker import errors
from sse_broker.servers import server_of
from sse_broker.web.refused import refused_here
from sse_broker.wire.message import library_frame, retry_frame

__all__ = [
    "HEADERS",
    "STATUS",
    "busy",
    "busy_frames",
    "error_body",
    "is_event_source",
    "is_refusal",
    "note",
    "refuse",
    "status_of",
    "told",
]

STATUS: Mapping[type[errors.BrokerError], int] = {
    errors.InvalidUserID: 400,
    errors.InvalidTopic: 400,
    errors.InvalidSince: 400,
    errors.MessageTooLarge: 413,
    errors.IdConflict: 409,
    errors.InvalidMessage: 400,
    errors.AuthenticationFailed: 401,
    errors.TopicForbidden: 403,
    errors.PublishForbidden: 403,
    errors.NoSuchStream: 404,
    errors.AuthorizerFailed: 503,
    errors.TopicsNotEnabled: 500,
    errors.QueueFull: 503,
    errors.TooManyConnections: 503,
    errors.TooManyRequests: 429,
    errors.BrokerStopped: 503,
    errors.StreamingUnsupported: 500,
    errors.NotNow: 503,
    errors.LogUnavailable: 503,
    errors.InvalidConfig: 500,
}

PRIVATE = (errors.NotNow, errors.LogUnavailable)
"""Errors whose details are the operator's business: paths, hosts, what an exception said."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # without it nginx shows the client nothing, not even headers
    "X-Content-Type-Options": "nosniff",
}


def status_of(error: errors.BrokerError) -> int:
    """Return the HTTP status of an error, or of its nearest base in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def told(error: errors.BrokerError) -> str:
    """Return what a visitor is told of an error: nothing of the machine or the code."""
    return error.text if isinstance(error, PRIVATE) else str(error)


def error_body(error: errors.BrokerError) -> dict[str, str]:
    """Return an error as it is in JSON: ``{"error": ..., "field": ...}``."""
    body = {"error": told(error)}
    if error.field and not isinstance(error, PRIVATE):
        body["field"] = error.field
    return body


def note(kind: str, status: int, reason: str) -> None:
    """Have the current request's refusal said in the server's log."""
    if has_request_context():
        path = repr(current_request.path)[1:-1][:100]
        refused_here().note(kind, f"{current_request.method} {path}", status, reason)


def refuse(error: errors.BrokerError) -> Response:
    """Return an error as JSON, with its status, and have it logged."""
    note(_kind(error), status_of(error), str(error))
    return _as_json(error)


def _kind(error: errors.BrokerError) -> str:
    limited = isinstance(error, errors.TooManyConnections | errors.TooManyRequests)
    return f"{type(error).__name__} {error.field if limited else ''}"


def _as_json(error: errors.BrokerError) -> Response:
    response = jsonify(error_body(error))
    response.status_code = status_of(error)
    response.headers["Cache-Control"] = "no-store"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 11.6.1
    response._is_refusal = True  # type: ignore[attr-defined]  # of ours: nobody else's words
    return response


def is_refusal(response: Response) -> bool:
    """Whether *response* is what :func:`refuse` or :func:`busy` made."""
    return getattr(response, "_is_refusal", False)


def is_event_source(request: Request) -> bool:
    """Whether *request* is of a client for which any status but 200 is final.

    The HTML standard (9.2.2) has an EventSource accept this one type and nothing
    else; ``?on_refuse=status`` says that the client can handle a status all the same.
    """
    accepts = request.headers.get("Accept", "").partition(";")[0].strip().lower()
    return accepts == "text/event-stream" and request.args.get("on_refuse") != "status"


def busy(error: errors.BrokerError, request: Request, retry: int) -> Response:
    """Return a refusal for now, in the form that makes this kind of client come back."""
    plain = is_event_source(request)
    note(_kind(error), 200 if plain else status_of(error), str(error))
    if plain:
        body = b"" if request.method == "HEAD" else busy_frames(error, retry)
        response = Response(body, headers=HEADERS)
        response._is_refusal = True  # type: ignore[attr-defined]
    else:
        error.retry_after = error.retry_after or retry / 1000
        response = _as_json(error)
    # A crowd of refused clients would hold all the connections that the server has.
    response.call_on_close(server_of(request.environ).hang_up)
    return response


def busy_frames(error: errors.BrokerError, retry: int) -> bytes:
    """Return the whole stream of a refusal for now.

    *retry*, in milliseconds, is the least wait; the error may ask for a longer
    one, of which browsers are told at most a minute.
    """
    retry = min(60_000, max(retry, round(1000 * (error.retry_after or 0))))
    data = {"error": told(error), "retry_after": retry / 1000}
    return retry_frame(retry) + library_frame("error", "", data)
