"""``POST subscriptions``: the topics of one's own live stream, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask, current_app, g

from sse_broker import Broker, Identity, create_blueprint
from sse_broker.core import signals
from sse_broker.testing import read_events


def who(request: Any) -> Identity:
    return Identity(request.headers["X-User"], request.headers.get("X-Tenant"))


def client_of(broker: Broker):
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, who), url_prefix="/sse")
    return app.test_client()


def test_topics_are_changed_over_http(broker: Broker) -> None:
    client = client_of(broker)
    me = {"X-User": "7"}
    stream = client.get("/sse/stream?topics=a", headers=me)
    chunks = iter(stream.response)
    (welcome,) = read_events(next(chunks))
    client_id = json.loads(welcome.data)["client_id"]

    def change(headers: dict[str, str] = me, **body: Any) -> Any:
        return client.post("/sse/subscriptions", json=body, headers=headers)

    answer = change(client_id=client_id, add=["b", "c:*"], remove=["a"])
    broker.send_to_topic("b", "e", "new")

    assert answer.status_code == 200
    assert answer.json == {"client_id": client_id, "topics": ["b", "c:*"]}
    assert [event.data for event in read_events(chunks, 1)] == ["new"]
    assert change(client_id=client_id, add=[]).json["topics"] == ["b", "c:*"]
    for headers in ({"X-User": "8"}, {"X-User": "7", "X-Tenant": "t"}):
        foreign = change(headers, client_id=client_id, add=["x"])
        assert (foreign.status_code, foreign.json["field"]) == (404, "client_id")
    for body, field in [
        ({}, "client_id"),
        ({"client_id": 7}, "client_id"),
        ({"client_id": ""}, "client_id"),
        ({"client_id": client_id, "add": "b"}, "add"),
        ({"client_id": client_id, "remove": [1]}, "remove"),
        ({"client_id": client_id, "add": ["a::b"]}, "topic"),
        ({"client_id": client_id, "topics": ["a"]}, "topics"),
    ]:
        wrong = change(**body)
        assert (wrong.status_code, wrong.json["field"]) == (400, field), body
    foreign_page = {"X-User": "7", "Sec-Fetch-Site": "cross-site"}
    assert change(foreign_page, client_id=client_id, add=["x"]).status_code == 403
    stream.close()


@pytest.mark.parametrize("in_request", [True, False])
def test_an_authorizer_and_a_receiver_have_an_app_context(in_request: bool) -> None:
    seen: list[str] = []

    def authorizer(identity: Identity, topic: str) -> bool:
        g.asked = True  # a context that is not there raises
        seen.append(current_app.name)
        return True

    with Broker(authorizer=authorizer) as broker:
        client = client_of(broker)

        def receiver(sender: Any, **facts: Any) -> None:
            seen.append(f"signal in {current_app.name}")

        signals.client_connected.connect(receiver, broker)
        if in_request:
            response = client.get("/sse/stream?topics=a", headers={"X-User": "7"})
            next(iter(response.response))
            response.close()
        else:
            reader = broker.streams.open(
                Identity(7), broker.streams.check_topics(Identity(7), ["a"])
            )
            broker.streams.forget(reader.client, "test")
    assert seen == [__name__, f"signal in {__name__}"]
