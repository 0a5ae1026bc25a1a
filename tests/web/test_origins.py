"""What a page of another site may do, as its browser tells of it."""

from __future__ import annotations

import uuid

import pytest
from flask import Flask

from sse_broker import Broker, Identity, InvalidConfig, create_blueprint

STREAM = f"/sse/stream?user_id={uuid.uuid4()}"
LISTED = "https://app.example.com"


def client_of(broker: Broker, **options: object):
    app = Flask(__name__)
    blueprint = create_blueprint(broker, lambda request: Identity(1), **options)
    app.register_blueprint(blueprint, url_prefix="/sse")
    return app.test_client()


def fetch(site: str = "", dest: str = "", mode: str = "", origin: str = "") -> dict[str, str]:
    said = {
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Dest": dest,
        "Sec-Fetch-Mode": mode,
        "Origin": origin,
    }
    return {name: value for name, value in said.items() if value}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        fetch("cross-site"),
        fetch("same-site", "empty", "no-cors"),
        fetch("cross-site", "iframe", "navigate"),
        fetch("same-site", "iframe", "navigate"),
        fetch("same-origin", "iframe", "navigate"),
        fetch("none", "frame", "navigate"),
        fetch("cross-site", "document", "navigate"),
        fetch("cross-site", "image", "no-cors"),
        fetch("same-origin", "image", "no-cors"),
        fetch("same-origin", "script", "no-cors"),
        fetch("same-origin", "audio", "no-cors"),
        fetch("same-origin", "video", "no-cors"),
        fetch("same-origin", "object", "navigate"),
        fetch("same-origin", "embed", "navigate"),
        fetch("same-origin", "", "navigate"),
        fetch("cross-site", "empty", "cors", "https://evil.example.com"),
        fetch("cross-site", "iframe", "navigate", LISTED),
        fetch("", "", "", "https://evil.example.com"),
        fetch("", "", "", "null"),
        fetch("", "", "", "http://localhost:8001"),
        fetch("", "", "", "http://localhost:99999"),
        fetch("", "", "", "http://[::1"),
    ],
)
def test_a_foreign_page_or_a_part_of_a_page_opens_no_stream(
    broker: Broker, headers: dict[str, str], method: str
) -> None:
    response = client_of(broker, cors_origins=[LISTED]).open(STREAM, method=method, headers=headers)

    assert response.status_code == 403
    assert broker.get_stats().client_connects == 0
    response.close()


@pytest.mark.parametrize(
    "headers",
    [
        fetch(),
        fetch("same-origin", "empty", "cors"),
        fetch("same-origin", "empty", "cors", "null"),
        fetch("none", "document", "navigate"),
        fetch("same-origin", "document", "navigate"),
        fetch("cross-site", "empty", "cors", LISTED),
        fetch("", "", "", "http://localhost"),
        fetch("", "", "", "https://LOCALHOST:443"),
    ],
)
def test_its_own_pages_listed_ones_and_programs_may(
    broker: Broker, headers: dict[str, str]
) -> None:
    response = client_of(broker, cors_origins=[LISTED]).head(STREAM, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("https://app.example.com:8443", "app.example.com:8443", 200),  # TLS ended before us
        ("https://app.example.com", "app.example.com", 200),
        ("https://app.example.com", "app.example.com:443", 200),
        ("https://app.example.com:8443", "app.example.com", 403),  # the proxy dropped the port
        ("https://app.example.com:8443", "app.example.com:9443", 403),
        ("http://app.example.com", "app.example.com:443", 403),
    ],
)
def test_an_origin_is_compared_with_the_host_and_its_port(
    broker: Broker, origin: str, host: str, status: int
) -> None:
    response = client_of(broker).head(STREAM, headers={"Origin": origin, "Host": host})
    assert response.status_code == status


def test_what_is_no_stream_may_be_linked_to_and_the_script_is_for_everybody(
    broker: Broker,
) -> None:
    client = client_of(broker)
    link = fetch("cross-site", "document", "navigate")
    script = fetch("cross-site", "script", "no-cors")

    assert client.get("/sse/readyz", headers=link).status_code == 200
    loaded = client.get("/sse/client.js", headers=script)
    assert loaded.status_code == 200
    assert loaded.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert client.get("/sse/readyz", headers=script).status_code == 403


def test_a_refusal_names_its_setting_in_the_log_once_a_minute(broker: Broker, caplog) -> None:
    client = client_of(broker)
    for _ in range(5):
        client.get(STREAM, headers=fetch("cross-site", origin="https://evil.example.com"))

    (line,) = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert "SSE_CORS_ORIGINS" in line
    assert "https://evil.example.com" in line


def test_what_a_page_writes_forges_no_line_in_the_log(broker: Broker, caplog) -> None:
    client = client_of(broker)
    client.get(STREAM, headers={"Origin": "https://evil.example.com\x1b[31m\x85forged"})

    assert not any("\x1b" in r.getMessage() or "\x85" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize(
    "wanted",
    [
        "authorization,last-event-id",
        "baggage,sentry-trace",
        "traceparent,tracestate",
        "x-requested-with",
        "x-csrf-token",
        "idempotency-key",
    ],
)
def test_tracing_and_csrf_headers_are_allowed_by_default(broker: Broker, wanted: str) -> None:
    client = client_of(broker, cors_origins=LISTED)
    headers = {
        "Origin": LISTED,
        "Sec-Fetch-Site": "cross-site",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": wanted,
    }

    answer = client.options(STREAM, headers=headers)

    allowed = {
        name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")
    }
    assert set(wanted.split(",")) <= allowed


def test_the_allowed_headers_are_a_setting(broker: Broker) -> None:
    client = client_of(broker, cors_origins=LISTED, cors_headers="X-Own, Last-Event-ID")
    answer = client.options(STREAM, headers={"Origin": LISTED})

    assert answer.headers["Access-Control-Allow-Headers"] == "X-Own, Last-Event-ID"
    with pytest.raises(InvalidConfig, match="no header name"):
        create_blueprint(broker, cors_headers=["X Own"])


def test_what_is_served_says_how_browsers_must_take_it(broker: Broker) -> None:
    client = client_of(broker, publish_authenticator="secret")
    for path in ("/sse/stream", "/sse/healthz", "/sse/stats", "/sse/none"):
        response = client.get(path, headers={"Accept": "*/*"})
        if path != "/sse/none":
            assert response.headers["X-Content-Type-Options"] == "nosniff", path
            assert response.headers["X-Frame-Options"] == "DENY"
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        response.close()
