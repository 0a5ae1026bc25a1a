"""A stream through a URL, as a client of this library's reads it: no driver, no threads.

Times come from :func:`time.monotonic` here: this is a program's own watch on a
server, and no part of a broker.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

__all__ = ["Answer", "Opened", "ask", "connect", "open_stream", "with_query"]


class Answer(NamedTuple):
    """A whole answer: its status, headers with lower-case names, body, HTTP version, seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    version: int
    took: float

    def json(self) -> Any:
        """Return the body's JSON; an empty dictionary if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


def with_query(url: str, **values: str) -> str:
    """Return *url* with what is not empty of *values* added to its query."""
    query = urlencode({name: value for name, value in values.items() if value})
    return url if not query else f"{url}{'&' if '?' in url else '?'}{query}"


def connect(url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to *url*'s server, not yet made, and the request's target.

    :raises ValueError: *url* is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no http:// or https:// URL")
    made: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        made = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout, context=context
        )
    else:
        made = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    return made, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    timeout: float = 5.0,
) -> Answer:
    """Ask once and return the answer.

    :raises OSError: there was none within *timeout* seconds; also http.client.HTTPException.
    """
    connection, target = connect(url, timeout)
    began = time.monotonic()
    try:
        sent = dict(headers or {})
        payload = None
        if body is not None:
            payload = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, target, payload, sent)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read(1 << 20)
        return Answer(answer.status, found, content, answer.version, time.monotonic() - began)
    finally:
        connection.close()


class Opened:
    """An open stream.  One thread."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, began: float
    ) -> None:
        self._connection, self._answer = connection, answer
        self._socket = connection.sock
        self.status, self.version = answer.status, answer.version
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.began = began
        self.headers_after = time.monotonic() - began

    def read(self, timeout: float) -> bytes | None:
        """Return what has come, waiting up to *timeout* seconds; ``None`` if nothing did.

        Empty bytes say that the stream has ended in order.

        :raises OSError: it was broken off; also http.client.HTTPException.
        """
        if self._socket is not None:
            self._socket.settimeout(max(0.01, timeout))
        try:
            return self._answer.read1(65536)
        except (TimeoutError, socket.timeout):  # noqa: UP041  # two things until Python 3.10
            return None

    def close(self) -> None:
        """Let go of the connection.  Idempotent."""
        self._answer.close()
        self._connection.close()


def open_stream(url: str, headers: Mapping[str, str], timeout: float) -> Opened:
    """Ask for a stream and return once its headers are there.

    :raises OSError: they were not there within *timeout* seconds; also http.client.HTTPException.
    """
    connection, target = connect(url, timeout)
    began = time.monotonic()
    try:
        connection.connect()
        sock = connection.sock
        connection.request("GET", target, headers={"Accept": "text/event-stream", **headers})
        answer = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    connection.sock = sock  # http.client lets go of it where the answer says "close"
    return Opened(connection, answer, began)
