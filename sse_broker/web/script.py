"""The script for pages, ``client.js``, as the package ships it."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files

from flask import Request, Response

__all__ = ["client_script", "script_text"]


def client_script(request: Request) -> Response:
    """Return ``client.js``, or 304 to who has this very text already.

    Browsers ask each time (``no-cache``), so that a page never runs the script
    of another version than the server's.  The tag is made of the text and not
    of a file's time: all workers and machines of one version agree on it.
    """
    text = script_text()
    response = Response(text, content_type="text/javascript; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # for pages of listed sites
    response.set_etag(hashlib.sha256(text).hexdigest()[:32])
    response.make_conditional(request)
    return response


@functools.cache
def script_text() -> bytes:
    """Return ``client.js``."""
    return files("sse_broker.web").joinpath("client.js").read_bytes()
