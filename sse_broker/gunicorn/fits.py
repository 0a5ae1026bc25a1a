"""Whether the gunicorn that is installed is as hand-off needs it."""

from __future__ import annotations

import inspect
from typing import Any

from gunicorn.http.wsgi import Response
from gunicorn.workers import gthread

__all__ = ["incompatibility"]

METHODS = {
    "handle": ["self", "conn"],
    "handle_request": ["self", "req", "conn"],
    "finish_request": ["self", "conn", "fs"],
    "enqueue_req": ["self", "conn"],
    "accept": ["self", "listener"],
    "set_accept_enabled": ["self", "enabled"],
    "get_thread_pool": ["self"],
    "is_parent_alive": ["self"],
    "wait_for_and_dispatch_events": ["self", "timeout"],
    "run": ["self"],
}


def incompatibility() -> str:
    """Return what of this gunicorn is not as hand-off needs it; empty if all is."""
    worker: Any = gthread.ThreadWorker
    for name, arguments in METHODS.items():
        method = getattr(worker, name, None)
        if method is None or list(inspect.signature(method).parameters) != arguments:
            return f"has another ThreadWorker.{name}"
    if not hasattr(gthread.TConn, "close") or hasattr(gthread.TConn, "__slots__"):
        return "has other connections"
    if not hasattr(getattr(gthread, "PollableMethodQueue", None), "defer"):
        return "has another queue to its main thread"
    if {"respiter", "resp"} - set(worker.handle_request.__code__.co_varnames):
        return "iterates a body in another way"
    probe = Response(None, None, None)
    for name in ("chunked", "must_close", "sent", "headers", "response_length"):
        if not hasattr(probe, name):
            return f"has responses without {name}"
    return ""
