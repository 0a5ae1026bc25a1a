"""What templates have: the script's tag, and the moment at which their page began.

A page reads its state first and is rendered afterwards.  What is sent in between
would be missed by a stream that begins at the moment of rendering, so the moment
of a page is taken when its request begins, before a view has read anything.
"""

from __future__ import annotations

import base64
import hashlib
import logging

from flask import Flask, g, request, url_for
from markupsafe import Markup, escape

from sse_broker.broker import Broker
from sse_broker.errors import LogUnavailable
from sse_broker.web.script import script_text

__all__ = ["add_page_helpers"]

UNKNOWN = "unavailable"  # an id of no message: a stream that begins there is told to start anew

_log = logging.getLogger("sse_broker.web")


def add_page_helpers(app: Flask, broker: Broker, blueprint: str) -> None:
    """Give the templates of *app* ``sse_script()`` and ``sse_last_event_id()``.

    *blueprint* is the name of the one that serves the stream and the script.
    """

    def sse_last_event_id() -> str:
        """Return the id at which the request of this page began; now, if it is no page's."""
        found: str | None = g.get("sse_moment")
        return _moment(broker) if found is None else found

    def sse_script(
        *,
        last_event_id: str | None = None,
        integrity: bool = True,
        **attributes: str | bool,
    ) -> Markup:
        """Return the tag of ``client.js``; ``connect()`` without a URL finds the stream by it.

        The stream begins where the page began, or at *last_event_id*; an empty one
        is now.  More attributes, as ``defer=True`` or ``nonce=...``, go into the tag.
        Without *integrity* a page runs the script also when the server has been
        given another version since.
        """
        moment = sse_last_event_id() if last_event_id is None else last_event_id
        values: dict[str, str | bool] = {
            "src": url_for(f"{blueprint}.client_js"),
            "integrity": _integrity() if integrity else False,
            "data-sse-stream": url_for(f"{blueprint}.stream"),
            "data-last-event-id": moment or False,
            **attributes,
        }
        text = "".join(_attribute(name, value) for name, value in values.items())
        return Markup(f"<script{text}></script>")  # noqa: S704  # each part is escaped

    @app.before_request
    def take_moment() -> None:
        if request.method == "GET" and _is_document():
            g.sse_moment = _moment(broker)

    app.add_template_global(sse_last_event_id)
    app.add_template_global(sse_script)


def _is_document() -> bool:
    """Whether the request is for a page; browsers say so (Fetch Metadata), others ask for HTML."""
    wanted = request.headers.get("Sec-Fetch-Dest")
    if wanted is None:
        return "text/html" in request.headers.get("Accept", "")
    return wanted in ("document", "iframe", "frame")


def _moment(broker: Broker) -> str:
    """Return the id of now for a page, which is rendered also while the log is away."""
    try:
        return broker.last_event_id()
    except LogUnavailable as err:
        _log.warning("a page gets no id to begin its stream at, and a reset instead: %s", err)
        return UNKNOWN


def _integrity() -> str:
    """Return the hash that a browser compares (Subresource Integrity, section 3.1)."""
    digest = hashlib.sha384(script_text()).digest()
    return f"sha384-{base64.b64encode(digest).decode()}"


def _attribute(name: str, value: str | bool) -> Markup:
    if value is False:
        return Markup("")
    name = name.replace("_", "-")
    return Markup(f" {escape(name)}") + ("" if value is True else Markup('="{}"').format(value))  # noqa: S704
