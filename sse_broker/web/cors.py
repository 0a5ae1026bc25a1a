"""Cross-origin requests: an exact allow-list, and nothing for anybody else.

A foreign page can open a stream with the user's cookies even where it may not
read it, and it costs a slot; so a cross-site request from an origin that is not
on the list is refused before anything is subscribed.  Origins are compared as
whole strings, never as patterns or prefixes, and ``*`` is not one.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Request, Response
from werkzeug.exceptions import Forbidden

from sse_broker.errors import InvalidConfig

__all__ = ["AllowList"]

_HEADERS = "Authorization, Cache-Control, Content-Type, Last-Event-ID"


class AllowList:
    """The origins that may use the blueprint from other sites.

    :raises InvalidConfig: one is not ``scheme://host[:port]``.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        if isinstance(origins, str):
            origins = [origin.strip() for origin in origins.split(",") if origin.strip()]
        self.origins = frozenset(origins)
        for origin in self.origins:
            parts = urlsplit(origin)
            if not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
                raise InvalidConfig(
                    f"{origin!r} is no origin; write it as https://app.example.com",
                    field="cors_origins",
                )

    def check(self, request: Request) -> None:
        """Refuse a request that another site's page made.

        :raises werkzeug.exceptions.Forbidden: it is cross-site and not on the list.
        """
        origin = request.headers.get("Origin", "")
        if not origin or origin in self.origins:
            return
        site = request.headers.get("Sec-Fetch-Site", "")
        same = site in ("same-origin", "none") or (
            not site and urlsplit(origin).netloc == request.host
        )
        if not same:
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
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
                response.headers["Access-Control-Allow-Headers"] = _HEADERS
                response.headers["Access-Control-Max-Age"] = "600"
        return response
