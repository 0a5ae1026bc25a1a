"""The six samples as one application with a page.

Made for one person on one machine: it believes ``?user_id=`` and answers to
local host names only, so that no foreign page can reach it by DNS rebinding.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Response, abort, jsonify, request

from samples import announcement, approval, dashboard, logstream, notifications, progress
from samples.common import field, wrong
from sse_broker import SSE, BrokerError
from sse_broker.web.refusal import refuse

USERS = [
    {"id": "11111111-1111-4111-8111-111111111111", "name": "Ada", "role": "Employee"},
    {"id": "22222222-2222-4222-8222-222222222222", "name": "Grace", "role": "Manager"},
    {"id": "33333333-3333-4333-8333-333333333333", "name": "Linus", "role": "Operations"},
]
SAMPLES = (notifications, approval, progress, announcement, dashboard, logstream)
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def create_app() -> Flask:
    """Return the demo."""
    app = Flask(__name__, static_folder="static", static_url_path="/static")
    app.config.update({key: value for key, value in os.environ.items() if key.startswith("SSE_")})
    sse = SSE(app)
    for sample in SAMPLES:
        app.register_blueprint(sample.make_blueprint(sse))
    app.register_error_handler(BrokerError, refuse)
    allowed = os.environ.get("DEMO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

    @app.before_request
    def check_host() -> None:
        if request.host.rpartition(":")[0] not in allowed and request.host not in allowed:
            abort(403, "this demo answers to local host names only")

    @app.after_request
    def add_policy(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/")
    def page() -> Response:
        return app.send_static_file("index.html")

    @app.get("/api/users")
    def users() -> Response:
        return jsonify(USERS)

    @app.post("/api/test/send")
    def send() -> Any:
        """Send as the seed's integration test does: ``{"user_id", "event", "data"}``."""
        user_id, event = field("user_id"), field("event")
        body = request.get_json()
        if "data" not in body:
            return wrong("data", "data is required")
        return jsonify(id=sse.send_to_user(user_id, event, body["data"]))

    return app
