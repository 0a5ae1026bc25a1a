"""The routes of the operators' page."""

from __future__ import annotations

import dataclasses
import functools
import hmac
import ipaddress
import json
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

from flask import Blueprint, Request, Response, current_app, jsonify, request
from werkzeug.exceptions import Forbidden, NotFound

from sse_broker.broker import Broker
from sse_broker.core.explain import nearest
from sse_broker.core.overview import PAGE
from sse_broker.core.process import Life
from sse_broker.errors import InvalidMessage, TooManyConnections
from sse_broker.web.body import json_object
from sse_broker.web.dashboard.gathering import gather
from sse_broker.web.response import event_stream
from sse_broker.wire.message import Message

__all__ = ["DashboardAuthorizer", "add_dashboard"]

DashboardAuthorizer = Callable[[Request], bool]
"""Whether a request may see, and use, the operators' page."""

EVERY = 2.0  # seconds between two overviews
STEP = 0.25  # seconds in which a stopping server is noticed
MOST_PAGES_OPEN = 4  # in a process: each holds a thread of its server
MOST_FOUND = 10_000  # streams that can be paged through
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {"dashboard.js": "text/javascript", "dashboard.css": "text/css"}


def add_dashboard(
    blueprint: Blueprint, broker: Broker, authorizer: DashboardAuthorizer | str | None
) -> None:
    """Add the page to *blueprint*.  *authorizer* is a function, a token, or ``None``."""
    open_pages = threading.BoundedSemaphore(MOST_PAGES_OPEN)

    def route(path: str, view: Callable[..., Response], method: str = "GET") -> None:
        @functools.wraps(view)
        def guarded(**arguments: str) -> Response:
            refusal = _refusal(authorizer)
            response = view(**arguments) if refusal is None else refusal
            response.headers["Content-Security-Policy"] = POLICY
            response.headers["Referrer-Policy"] = "no-referrer"
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        name = f"dashboard_{view.__name__}"
        blueprint.add_url_rule(path, name, guarded, methods=[method])

    def page() -> Response:
        return Response(_file("index.html"), content_type="text/html; charset=utf-8")

    def part(name: str) -> Response:
        if name not in KINDS:
            raise NotFound
        response = Response(_file(name), content_type=f"{KINDS[name]}; charset=utf-8")
        response.headers["Cache-Control"] = "no-cache"
        return response

    def events() -> Response:
        if not open_pages.acquire(blocking=False):
            raise TooManyConnections(f"{MOST_PAGES_OPEN} dashboards are open in this process")
        environ = request.environ
        return event_stream(_Overviews(lambda: gather(broker, environ), broker, open_pages.release))

    def find() -> Response:
        return jsonify(_find(broker, request.args))

    def explain() -> Response:
        found = broker.explain(request.args.get("id", ""), user_id=request.args.get("user", ""))
        return jsonify(dataclasses.asdict(found))

    def send() -> Response:
        return jsonify(id=broker.publish(_message(json_object(request, 65_536))))

    def disconnect() -> Response:
        body = json_object(request, 4_096)
        broker.disconnect_client(str(body.get("client_id") or ""), "disconnected by an operator")
        return jsonify(status="ok")

    route("/dashboard", page)
    route("/dashboard/<name>", part)
    route("/dashboard/events", events)
    route("/dashboard/find", find)
    route("/dashboard/explain", explain)
    route("/dashboard/send", send, "POST")
    route("/dashboard/disconnect", disconnect, "POST")


def _refusal(authorizer: DashboardAuthorizer | str | None) -> Response | None:
    """Return what is answered instead, if the request may not see the page."""
    if callable(authorizer):
        if not authorizer(request):
            raise Forbidden("this page is for operators")
        return None
    if authorizer:
        given = request.authorization.password if request.authorization else None
        if given and hmac.compare_digest(given.encode(), authorizer.encode()):
            return None
        response = jsonify(error="the password is the dashboard token")
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="sse_broker dashboard"'
        return response
    if not current_app.debug:
        raise NotFound
    if not _is_near(request.remote_addr):
        raise Forbidden("in debug mode only this machine sees it; or set SSE_DASHBOARD_TOKEN")
    return None


def _is_near(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


class _Overviews(Iterator[tuple[str, str]]):
    """An overview at once, then every two seconds, until the server stops."""

    def __init__(
        self, look: Callable[[], dict[str, Any]], broker: Broker, done: Callable[[], None]
    ) -> None:
        self._look, self._broker, self._done = look, broker, done
        self._wait = threading.Event()  # nobody sets it: a wait that gevent can patch
        self._is_first = True
        self._closed = False

    def __next__(self) -> tuple[str, str]:
        waited = EVERY if self._is_first else 0.0
        self._is_first = False
        while waited < EVERY:
            self._wait.wait(STEP)
            waited += STEP
            if self._broker.streams.here().life is Life.STOPPED:
                raise StopIteration
        return "overview", json.dumps(self._look())

    def close(self) -> None:
        """Let another page be opened.  Idempotent."""
        if not self._closed:
            self._closed = True
            self._done()

    __del__ = close


def _find(broker: Broker, asked: Any) -> dict[str, Any]:
    try:
        page = min(max(0, int(asked.get("page", "0"))), MOST_FOUND // PAGE)
    except ValueError:
        raise InvalidMessage("page must be a number", field="page") from None
    about = {name: asked.get(name, "") for name in ("user", "topic", "tenant")}
    answers, missing = broker.streams.ask("find", {**about, "most": (page + 1) * PAGE})
    found = [one for one in answers.values() if isinstance(one, dict)]
    rows = sorted(
        (row for one in found for row in one["streams"]), key=lambda row: str(row["client_id"])
    )
    total = sum(one["total"] for one in found)
    near = nearest(about["topic"], [name for one in found for name in one["names"]])
    hint = f"No stream subscribes to it; did you mean {near}?" if near and not total else ""
    return {
        "total": total,
        "pages": -(-min(total, MOST_FOUND) // PAGE),
        "streams": rows[page * PAGE : (page + 1) * PAGE],
        "missing": missing,
        "hint": hint,
    }


def _message(body: dict[str, Any]) -> Message:
    target, to = body.get("target"), str(body.get("to") or "")
    return Message(
        target,  # type: ignore[arg-type]  # it is checked there
        str(body.get("data", "")),
        str(body.get("event") or "message"),
        user_id=to if target == "user" else None,
        topic=to if target == "topic" else "",
        tenant_id=str(body["tenant"]) if body.get("tenant") else None,
    )


@functools.cache
def _file(name: str) -> bytes:
    return files("sse_broker.web.dashboard").joinpath(name).read_bytes()
