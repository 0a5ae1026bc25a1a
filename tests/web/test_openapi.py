"""The description of the HTTP surface, and inputs made from it."""

from __future__ import annotations

import os
from typing import Any

import hypothesis.strategies as st
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, example, given, settings

from sse_broker import Broker, Identity, create_blueprint
from sse_broker.web.openapi import description

BEARER = {"Authorization": "Bearer secret"}


def app_of(broker: Broker) -> Flask:
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = False  # as a server has it
    blueprint = create_blueprint(
        broker, lambda request: Identity(7), publish_authenticator="secret", tickets=True
    )
    app.register_blueprint(blueprint, url_prefix="/sse")
    return app


FUZZES = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
FEW, MANY = (2_000, 20_000) if FUZZES else (25, 150)
HUB = Broker()
APP = app_of(HUB)
SCHEMA = schemathesis.openapi.from_wsgi("/sse/openapi.json", APP)


@pytest.fixture(autouse=True)
def running() -> Any:
    with HUB:
        yield


@SCHEMA.include(path_regex="publish|subscriptions|ticket|stats|online|healthz|readyz").parametrize()
@settings(max_examples=FEW, suppress_health_check=list(HealthCheck), derandomize=not FUZZES)
def test_what_the_description_allows_and_forbids_has_an_answer_it_names(case: Any) -> None:
    response = case.call(headers=BEARER)

    assert response.status_code < 500, response.text
    if response.status_code != 405:
        assert str(response.status_code) in case.operation.definition.raw["responses"]


def test_it_describes_the_routes_that_there_are(broker: Broker) -> None:
    client = app_of(broker).test_client()
    found = client.get("/sse/openapi.json").json
    rules = {
        rule.rule.removeprefix("/sse")
        for rule in client.application.url_map.iter_rules()
        if rule.endpoint.startswith("sse.")
    }

    assert found["servers"] == [{"url": "/sse"}]
    pages = {rule for rule in rules if rule.startswith("/dashboard")}  # for people
    assert set(found["paths"]) | {"/openapi.json"} >= rules - pages
    bare = Flask("bare")
    bare.register_blueprint(create_blueprint(broker), url_prefix="/x")
    assert "/publish" not in bare.test_client().get("/x/openapi.json").json["paths"]
    assert description(set(), "/")["paths"] == {}


TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "target",
        "user_id",
        "topic",
        "topics",
        "tenant_id",
        "all_tenants",
        "event",
        "data",
        "id",
        "retry",
        "retain",
        "retain_for",
        "messages",
        "outcome",
        "client_id",
        "add",
        "remove",
    ]
)
VALUES = JSON | st.sampled_from(["user", "topic", "broadcast", "a:*", "**", "", "7", "close"])


@given(st.sampled_from(["publish", "subscriptions"]), st.dictionaries(FIELDS, VALUES, max_size=8))
@settings(max_examples=MANY, suppress_health_check=list(HealthCheck))
def test_no_body_of_known_fields_is_our_fault(path: str, body: dict[str, Any]) -> None:
    response = APP.test_client().post(f"/sse/{path}", json=body, headers=BEARER)
    assert response.status_code < 500
    assert "Traceback" not in response.text


@given(st.binary(max_size=200))
@example(b'{"target":"broadcast","data":1e400}')
@example(b'{"a":' * 2000)
@settings(max_examples=MANY, suppress_health_check=list(HealthCheck))
def test_no_bytes_are_our_fault(raw: bytes) -> None:
    headers = {**BEARER, "Content-Type": "application/json"}
    for path in ("publish", "subscriptions"):
        assert APP.test_client().post(f"/sse/{path}", data=raw, headers=headers).status_code < 500


LATIN = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "Origin",
                "Host",
                "Last-Event-ID",
                "Accept",
                "Authorization",
                "Sec-Fetch-Site",
                "Sec-Fetch-Dest",
                "Sec-Fetch-Mode",
                "Cookie",
                "X-Forwarded-For",
            ]
        ),
        LATIN,
        max_size=6,
    ),
    st.dictionaries(
        st.sampled_from(["topics", "last_event_id", "since", "on_refuse", "ticket", "user_id"]),
        TEXT,
        max_size=4,
    ),
)
@settings(max_examples=MANY, suppress_health_check=list(HealthCheck))
def test_no_header_and_no_query_is_our_fault(
    headers: dict[str, str], query: dict[str, str]
) -> None:
    response = APP.test_client().head("/sse/stream", headers=headers, query_string=query)
    assert response.status_code < 500
    for name, value in response.headers:
        assert "\n" not in name + value
