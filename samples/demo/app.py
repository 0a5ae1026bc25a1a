"""The six samples as one application with a page.

Made for one person on one machine: it believes ``?user_id=``.  So it answers to
local host names only (no foreign page reaches it by DNS rebinding), and takes
orders from its own page only (none by a form on a foreign one).
"""

from __future__ import annotations

import os
import signal
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, abort, jsonify, request

from samples import announcement, approval, dashboard, logstream, notifications, progress
from samples.common import field, refuse_bad_messages, wrong
from sse_broker import SSE, default_authenticator

USERS = [
    {"id": "11111111-1111-4111-8111-111111111111", "name": "Ada", "role": "Employee"},
    {"id": "22222222-2222-4222-8222-222222222222", "name": "Grace", "role": "Manager"},
    {"id": "33333333-3333-4333-8333-333333333333", "name": "Linus", "role": "Operations"},
    {"id": "44444444-4444-4444-8444-444444444444", "name": "Margaret", "role": "Audit"},
]
SAMPLES = (notifications, approval, progress, announcement, dashboard, logstream)
MESSAGES = 3  # that each of the first two users is sent while the server is away
LOCAL = "localhost,127.0.0.1,[::1]"
POLICY = "default-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"


def create_app() -> Flask:
    """Return the demo.  ``DEMO_ALLOWED_HOSTS`` replaces the local host names, with commas."""
    app = Flask(__name__, static_folder="static", static_url_path="/static")
    app.config.update({key: value for key, value in os.environ.items() if key.startswith("SSE_")})
    sse = SSE(app, authenticator=default_authenticator, dashboard_authorizer=lambda _: True)
    for sample in SAMPLES:
        app.register_blueprint(sample.make_blueprint(sse))
    refuse_bad_messages(app)
    add_guards(app, os.environ.get("DEMO_ALLOWED_HOSTS", LOCAL))

    @app.get("/")
    def page() -> Response:
        return app.send_static_file("index.html")

    @app.get("/person")
    def person() -> Response:
        return app.send_static_file("person.html")

    @app.post("/demo/stop")
    def stop() -> Any:
        """Have the server stopped and started again by the process that watches it, if there is."""
        watcher = os.environ.get("DEMO_WATCHER")
        if not watcher:
            return jsonify(error="nobody would start this server again"), 409
        os.kill(int(watcher), signal.SIGUSR1)
        return jsonify(messages=MESSAGES)

    @app.get("/api/users")
    def users() -> Response:
        return jsonify(USERS)

    @app.post("/api/test/send")
    def send() -> Any:
        """Send what a terminal asks for: ``{"user_id", "event", "data"}``."""
        user_id, event = field("user_id", force=True), field("event", force=True)
        body = request.get_json(force=True)
        if "data" not in body:
            return wrong("data", "data is required")
        return jsonify(id=sse.send_to_user(user_id, event, body["data"]))

    return app


def add_guards(app: Flask, names: str) -> None:
    """Refuse foreign hosts and origins; forbid the page whatever is not its own."""
    allowed = {name.strip().lower() for name in names.split(",") if name.strip()}

    def is_local(authority: str) -> bool:
        name, _, port = authority.lower().rpartition(":")
        return (name if name and port.isdigit() else authority.lower()) in allowed

    @app.before_request
    def check_host() -> None:
        origin = request.headers.get("Origin")
        if not is_local(request.host):
            abort(403, "this demo answers to local host names only")
        if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
            abort(403, "this demo answers to its own page only")

    @app.after_request
    def add_policy(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers["X-Content-Type-Options"] = "nosniff"
        if not request.path.startswith("/sse/"):
            response.headers["Cache-Control"] = "no-cache"  # a new version shows at once
        return response
