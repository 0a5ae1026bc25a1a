"""Where a request carries its credentials, and how they stay out of access logs."""

from __future__ import annotations

import re

from flask import Request

from sse_broker.errors import AuthenticationFailed

__all__ = ["MAX_TOKEN_CHARS", "bearer", "hide_in_logs", "token_of"]

MAX_TOKEN_CHARS = 8_192  # more than any header of a usual server holds


def bearer(request: Request) -> str:
    """Return the bearer token of *request* (RFC 6750, section 2.1); empty if it has none."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def token_of(request: Request, *, cookie: str = "", query: str = "") -> str:
    """Return the token of *request*: of its header, of *cookie*, of the parameter *query*.

    :raises AuthenticationFailed: there is none.
    """
    token = bearer(request)
    if not token and cookie:
        token = request.cookies.get(cookie, "")
    if not token and query:
        token = request.args.get(query, "")
        hide_in_logs(request, query)
    if not token:
        raise AuthenticationFailed("missing token")
    return token


def hide_in_logs(request: Request, name: str) -> None:
    """Mask the query parameter *name* in what gunicorn's access log shows of the URL."""
    pattern = re.compile(rf"(?<=[?&]){re.escape(name)}=[^&#\s]*")
    environ = request.environ
    for key in ("RAW_URI", "REQUEST_URI", "HTTP_REFERER"):
        if isinstance(environ.get(key), str):
            environ[key] = pattern.sub(f"{name}=***", environ[key])
