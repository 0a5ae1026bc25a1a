"""What a page of another site may do here: an exact allow-list, and nothing for anybody else.

A foreign page can open a stream with the user's cookies even where it may not
read it, and it costs a slot; so what a browser says of a request is judged
before anything is subscribed.  Browsers say it in three headers (Fetch Metadata
Request Headers, sections 2.1 to 2.4): ``Sec-Fetch-Site`` is where the page comes
from, ``Sec-Fetch-Dest`` what the answer is for, ``Sec-Fetch-Mode`` how it is asked
for.  They come over TLS and from localhost; elsewhere ``Origin`` is compared with
``Host``, which a proxy has to pass on with its port.  Who sends none of these is
no browser, or one that asks its own site.

Origins are compared as whole strings, never as patterns or prefixes, and ``*`` is
not one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Request, Response
from werkzeug.exceptions import Forbidden

from sse_broker.errors import InvalidConfig
from sse_broker.web.said import Said

__all__ = ["REQUEST_HEADERS", "AllowList"]

REQUEST_HEADERS = (
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-CSRF-Token",
    "X-CSRFToken",
    "X-Requested-With",
    # what tracing of pages adds to every request: W3C Trace Context, Baggage, and the vendors
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
    "b3",
    "X-B3-TraceId",
    "X-B3-SpanId",
    "X-B3-ParentSpanId",
    "X-B3-Sampled",
    "elastic-apm-traceparent",
    "newrelic",
    "uber-trace-id",
    "X-Cloud-Trace-Context",
    "X-Datadog-Origin",
    "X-Datadog-Parent-Id",
    "X-Datadog-Sampling-Priority",
    "X-Datadog-Trace-Id",
    "X-Request-ID",
)
"""The request headers that pages of listed origins may set, unless a setting says others."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_OWN = ("same-origin", "none")  # none: typed into the address bar, or no page at all
_DEFAULT_PORT = {"http": 80, "https": 443}


class AllowList:
    """The origins that may use the blueprint from other sites.

    *headers* are the request headers that their pages may set; empty is
    :data:`REQUEST_HEADERS`.  Refusals are told to *said*.

    :raises InvalidConfig: an origin is not ``scheme://host[:port]``, or a header is no name.
    """

    def __init__(
        self, origins: Iterable[str], headers: Iterable[str] = (), said: Said | None = None
    ) -> None:
        self._said = said or Said("sse_broker.cors")
        self.origins = frozenset(_words(origins))
        for origin in self.origins:
            parts = urlsplit(origin)
            if not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
                raise InvalidConfig(
                    f"{origin!r} is no origin; write it as https://app.example.com",
                    field="cors_origins",
                )
        names = _words(headers) or list(REQUEST_HEADERS)
        for name in names:
            if not _TOKEN.fullmatch(name):
                raise InvalidConfig(f"{name!r} is no header name", field="cors_headers")
        self._headers = ", ".join(names)

    def check(self, request: Request, *, stream: bool = False) -> None:
        """Refuse a request that another site's page made, whatever its method.

        *stream* is whether the answer would be a stream: no frame, image, script
        or medium may ask for one, of whatever site.  Other answers may be the
        page that a link leads to.

        :raises werkzeug.exceptions.Forbidden: it may not; the log says why.
        """
        site = request.headers.get("Sec-Fetch-Site", "")
        dest = request.headers.get("Sec-Fetch-Dest", "") or "empty"
        mode = request.headers.get("Sec-Fetch-Mode", "")
        is_page = dest == "document" and mode in ("", "navigate")
        if stream:
            plain = dest == "empty" and mode != "navigate"
            if not plain and not (is_page and site in _OWN):
                self._said.warning("dest", "a stream was asked for as %s and refused", dest)
                raise Forbidden("a stream is for EventSource and fetch, not for a part of a page")
        elif is_page and request.method in ("GET", "HEAD"):
            return
        origin = request.headers.get("Origin", "")
        if origin in self.origins or site in _OWN:
            return
        if site or (origin and not _is_host(origin, request.host)):
            self._said.warning(
                "origin",
                "a request of a page from %s was refused (Host: %s, Sec-Fetch-Site: %s);"
                " if that page is yours, put its origin into SSE_CORS_ORIGINS (cors_origins);"
                " if it is of this very site, have the proxy pass Host on with its port",
                origin or "another site, without Origin,",
                request.host,
                site or "none",
            )
            raise Forbidden("this origin is not on the allow-list")

    def apply(self, request: Request, response: Response) -> Response:
        """Add what the Fetch standard (3.2, CORS protocol) wants for an origin on the list."""
        if not self.origins:
            return response
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if origin in self.origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
                response.headers["Access-Control-Allow-Headers"] = self._headers
                response.headers["Access-Control-Max-Age"] = "600"
        return response


def _words(value: Iterable[str]) -> list[str]:
    words = value.split(",") if isinstance(value, str) else list(value)
    return [word.strip() for word in words if word.strip()]


def _is_host(origin: str, host: str) -> bool:
    """Whether an origin names the host and port that the request was made to."""
    try:
        parts = urlsplit(origin)
        port = _DEFAULT_PORT.get(parts.scheme)
        ours = urlsplit(f"//{host}")
        return parts.hostname is not None and (parts.hostname, parts.port or port) == (
            ours.hostname,
            ours.port or port,
        )
    except ValueError:  # a port that is no number, a bracket left open
        return False
