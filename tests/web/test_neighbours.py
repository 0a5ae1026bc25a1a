"""Other extensions over the whole app, set up as docs/extensions.md shows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, session
from flask_cors import CORS
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_talisman import Talisman
from flask_wtf.csrf import CSRFProtect, generate_csrf

from sse_broker import SSE, Broker, session_authenticator
from sse_broker.testing import read_events

PLAIN = {"Accept": "text/event-stream"}
BEARER = {"Authorization": "Bearer secret"}
MESSAGE = {"target": "user", "user_id": 7, "data": "x"}


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "k" * 32

    @app.post("/login")
    def login() -> str:
        session["user_id"] = 7
        return "ok"

    @app.get("/")
    def page() -> str:
        return generate_csrf()

    return app


def serve(app: Flask, broker: Broker, **options: Any) -> Any:
    SSE(
        app,
        broker=broker,
        authenticator=session_authenticator(),
        publish_authenticator="secret",
        **options,
    )
    return app.test_client()


def begins(response: Any) -> bool:
    first = read_events(response.response, 1)[0].event
    response.close()
    return bool(first == "welcome")


def test_a_rate_limit_of_the_whole_app_is_come_back_for_a_browser(
    app: Flask, broker: Broker
) -> None:
    client = serve(app, broker)
    Limiter(get_remote_address, app=app, default_limits=["3 per minute"], storage_uri="memory://")
    client.post("/login")

    assert [begins(client.get("/sse/stream", headers=PLAIN)) for _ in range(3)] == [True] * 3
    limited = client.get("/sse/stream", headers=PLAIN)
    (event,) = read_events(limited.data)

    assert (limited.status_code, event.event) == (200, "error")
    assert client.get("/sse/stream").status_code == 429


def test_a_rate_limit_can_leave_the_library_to_its_own_limits(app: Flask, broker: Broker) -> None:
    client = serve(app, broker)
    limiter = Limiter(
        get_remote_address, app=app, default_limits=["1 per minute"], storage_uri="memory://"
    )
    limiter.exempt(app.blueprints["sse"])
    client.post("/login")
    assert all(begins(client.get("/sse/stream", headers=PLAIN)) for _ in range(5))


def test_csrf_protection_is_asked_for_where_cookies_count(app: Flask, broker: Broker) -> None:
    app.config["WTF_CSRF_CHECK_DEFAULT"] = True
    client = serve(app, broker)
    csrf = CSRFProtect(app)
    client.post("/login", headers={"X-CSRFToken": client.get("/").text})
    token = client.get("/").text
    stream = client.get("/sse/stream", headers=PLAIN)
    (welcome,) = read_events(stream.response, 1)
    body = {"client_id": json.loads(welcome.data)["client_id"], "add": ["a"]}

    refused = client.post("/sse/publish", json=MESSAGE, headers=BEARER)
    changed = client.post("/sse/subscriptions", json=body, headers={"X-CSRFToken": token})
    assert refused.status_code == 400
    assert changed.status_code == 200
    csrf.exempt(app.view_functions["sse.publish"])
    assert client.post("/sse/publish", json=MESSAGE, headers=BEARER).status_code == 200
    stream.close()


def test_talisman_forces_https_and_leaves_the_stream_alone(app: Flask, broker: Broker) -> None:
    client = serve(app, broker)
    Talisman(app, content_security_policy={"default-src": "'self'", "connect-src": "'self'"})
    client.post("/login", base_url="https://localhost")

    plain = client.get("/sse/stream", headers=PLAIN)
    stream = client.get("/sse/stream", headers=PLAIN, base_url="https://localhost")

    assert plain.status_code == 302
    assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["X-Content-Type-Options"] == "nosniff"
    assert "Strict-Transport-Security" in stream.headers
    assert begins(stream)


def test_flask_cors_beside_the_librarys_own_list(app: Flask, broker: Broker) -> None:
    origin = "https://app.example.com"
    app.config["SSE_CORS_ORIGINS"] = origin
    client = serve(app, broker)
    CORS(app, resources={r"/api/*": {"origins": origin}}, supports_credentials=True)
    client.post("/login")
    headers = {**PLAIN, "Origin": origin, "Sec-Fetch-Site": "cross-site"}

    stream = client.get("/sse/stream", headers=headers)

    assert stream.headers.getlist("Access-Control-Allow-Origin") == [origin]
    assert begins(stream)
    foreign = {**headers, "Origin": "https://evil.example.com"}
    assert client.get("/sse/stream", headers=foreign).status_code == 403


def test_flask_cors_that_lets_everybody_in_opens_no_stream_for_them(
    app: Flask, broker: Broker
) -> None:
    client = serve(app, broker)
    CORS(app, origins="*", supports_credentials=True)
    client.post("/login")
    foreign = {**PLAIN, "Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site"}
    assert client.get("/sse/stream", headers=foreign).status_code == 403
    assert broker.get_stats().client_connects == 0
