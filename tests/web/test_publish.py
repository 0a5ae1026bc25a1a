"""Publishing over HTTP: strict bodies, batches, keys, and who may say what."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from flask import Flask

from sse_broker import ALL_TENANTS, Broker, BrokerConfig, Client, create_blueprint
from sse_broker.errors import InvalidConfig, InvalidUserID
from sse_broker.web.publisher import Publisher, jwt_publisher

BEARER = {"Authorization": "Bearer secret"}
ALL = {"target": "broadcast", "data": "x"}


def client_of(broker: Broker, authenticator: Any = "secret"):
    app = Flask(__name__)
    blueprint = create_blueprint(broker, publish_authenticator=authenticator)
    app.register_blueprint(blueprint, url_prefix="/sse")
    return app.test_client()


def post(client: Any, body: Any, **headers: str):
    raw = body if isinstance(body, str | bytes) else json.dumps(body)
    headers = {"Content-Type": "application/json", **BEARER, **headers}
    return client.post("/sse/publish", data=raw, headers=headers)


def taken(client: Client) -> list[str]:
    return [record.message.data for record in client.take(0).records]


@pytest.fixture
def me(broker: Broker):
    me = Client(7, "t1", ["a:b"])
    broker.register(me)
    yield me
    broker.unregister(me)


STRICT = [
    ('{"target":"broadcast","target":"user","data":"x"}', "target"),
    ('{"target":"broadcast","tenant_id":"a","tenant_id":null,"data":"x"}', "tenant_id"),
    ('{"target":"broadcast","data":{"a":1,"a":2}}', "a"),
    ('{"target":null,"data":"x"}', "target"),
    ('{"target":"user","user_id":"u","tenant_id":null,"data":"x"}', "tenant_id"),
    (
        '{"target":"broadcast","tenant_id":"00000000-0000-0000-0000-000000000000","data":"x"}',
        "tenant_id",
    ),
    ('{"target":"broadcast","all_tenants":"yes","data":"x"}', "all_tenants"),
    ('{"target":"broadcast","all_tenants":1,"data":"x"}', "all_tenants"),
    ('{"target":"broadcast","all_tenants":null,"data":"x"}', "all_tenants"),
    ('{"target":"broadcast","data":NaN}', "data"),
    ('{"target":"broadcast","data":[-Infinity]}', "data"),
    ('{"target":"broadcast","data":1e999}', "data"),
    ('{"target":"broadcast","data":' + "[" * 300 + "]" * 300 + "}", "data"),
    ('{"target":"broadcast","data":' + "[" * 100_000 + "]" * 100_000 + "}", "data"),
    ('{"target":"broadcast","data":"x","event":"open"}', "event"),
    ('{"target":"broadcast","data":"x","retry":1e400}', "data"),
    ('{"target":"broadcast","data":' + "9" * 5000 + "}", ""),
    ('{"target":"broadcast","data":"x"}x', ""),
    (json.dumps(ALL).encode("utf-16"), ""),
    (b"\xef\xbb\xbf" + json.dumps(ALL).encode(), ""),
    (b'{"target":"broadcast","data":"\xff"}', ""),
    ("", ""),
    ("[]", ""),
    ('"x"', ""),
]


@pytest.mark.parametrize(("body", "field"), STRICT)
def test_what_two_readers_could_read_in_two_ways_is_refused(
    broker: Broker, body: Any, field: str
) -> None:
    response = post(client_of(broker), body)

    assert response.status_code == 400
    assert response.json.get("field", "") == field
    assert broker.log.tail() == 0


def test_brackets_in_strings_are_no_depth(broker: Broker) -> None:
    body = {"target": "broadcast", "data": ["[" * 500, '\\"[[' * 200, {"{": "}"}]}
    assert post(client_of(broker), body).status_code == 200
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert post(client_of(broker), {"target": "broadcast", "data": deep}).status_code == 200


def test_a_batch_is_sent_in_order(broker: Broker, me: Client) -> None:
    messages = [
        {"target": "user", "user_id": 7, "data": str(n), "tenant_id": "t1"} for n in range(1000)
    ]

    response = post(client_of(broker), {"messages": messages[:200]})

    assert response.status_code == 200
    assert len(set(response.json["ids"])) == 200
    assert taken(me) == [str(n) for n in range(200)]
    assert post(client_of(broker), {"messages": messages}).status_code == 200


def test_all_of_a_batch_or_none_of_it(broker: Broker) -> None:
    for bad, field in [
        ({**ALL, "event": "close"}, "messages[1].event"),
        ({**ALL, "data": "x" * 300_000}, "messages[1].data"),
        ([], "messages[1]"),
        ({**ALL, "colour": 1}, "messages[1].colour"),
    ]:
        response = post(client_of(broker), {"messages": [ALL, bad, ALL]})
        assert response.status_code in (400, 413)
        assert response.json["field"] == field
    assert broker.log.tail() == 0


def test_each_of_a_batch_with_its_own_outcome(broker: Broker) -> None:
    bad = {**ALL, "event": "close"}
    response = post(client_of(broker), {"messages": [ALL, bad, ALL], "outcome": "each"})

    assert response.status_code == 200
    one, two, three = response.json["results"]
    assert one["id"] != three["id"]
    assert (two["field"], two["status"]) == ("event", 400)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [ALL] * 1001}, "messages"),
        ({"messages": [ALL], "outcome": "some"}, "outcome"),
        ({"messages": [ALL], "target": "broadcast"}, "target"),
    ],
)
def test_a_batch_that_is_none(broker: Broker, body: Any, field: str) -> None:
    response = post(client_of(broker), body)
    assert (response.status_code, response.json["field"]) == (400, field)
    assert broker.log.tail() == 0


def test_a_request_that_is_repeated_under_its_key_sends_once(broker: Broker, me: Client) -> None:
    client = client_of(broker)
    one = {"target": "user", "user_id": 7, "tenant_id": "t1", "data": "one"}
    two = {**one, "data": "two"}
    for body in (one, {"messages": [one, two]}):
        key = {"Idempotency-Key": f"key-of-{len(body)}"}
        first, again = post(client, body, **key), post(client, body, **key)
        assert first.json == again.json
        assert first.status_code == again.status_code == 200
    assert taken(me) == ["one", "one", "two"]
    assert post(client, one, **{"Idempotency-Key": "a b"}).json["field"] == "Idempotency-Key"
    assert post(client, one, **{"Idempotency-Key": "k" * 256}).status_code == 400


def test_a_publisher_of_one_tenant_speaks_in_no_other(broker: Broker, me: Client) -> None:
    client = client_of(broker, lambda request: Publisher("t1", ["a:*"], ["paid"]))
    good = {"target": "topic", "topic": "a:b", "event": "paid", "data": "mine"}

    assert post(client, good).status_code == 200
    assert post(client, {**good, "tenant_id": "t1"}).status_code == 200
    assert taken(me) == ["mine", "mine"]
    for bad, field in [
        ({**good, "tenant_id": "t2"}, "tenant_id"),
        ({**good, "all_tenants": True}, "tenant_id"),
        ({**good, "topic": "b:a"}, "topic"),
        ({**good, "event": "refunded"}, "event"),
        ({"target": "user", "user_id": 7, "event": "paid", "data": "x"}, "target"),
        ({"target": "broadcast", "event": "paid", "data": "x"}, "target"),
    ]:
        refused = post(client, bad)
        assert (refused.status_code, refused.json["field"]) == (403, field)
        refused = post(client, {"messages": [good, bad]})
        assert (refused.status_code, refused.json["field"]) == (403, f"messages[1].{field}")
    assert taken(me) == []
    for path in ("/sse/stats", "/sse/online"):
        assert client.get(path, headers=BEARER).status_code == 403


def test_a_publisher_whose_tenant_was_forgotten_is_an_error_and_not_everybody() -> None:
    for forgotten in ("", None):
        with pytest.raises((InvalidConfig, InvalidUserID)):
            Publisher(forgotten)  # type: ignore[arg-type]
    assert not Publisher().is_bound
    assert Publisher().tenant_id is ALL_TENANTS


KEY = "k" * 32


def test_a_token_says_what_may_be_published(broker: Broker, me: Client) -> None:
    client = client_of(broker, jwt_publisher(KEY))
    body = {"target": "user", "user_id": 7, "data": "x"}

    def publish(**claims: Any) -> int:
        token = jwt.encode({"exp": time.time() + 60, **claims}, KEY)
        return post(client, body, Authorization=f"Bearer {token}").status_code

    assert publish() == 401
    assert publish(publish=False) == 401
    assert publish(publish={"tenant": "t1"}) == 401  # a bound that is misspelt is none
    assert publish(publish={"tenant_id": None}) == 401
    assert publish(publish={"topics": "a"}) == 401
    assert publish(publish={"topics": ["a"]}) == 403
    assert publish(publish={"tenant_id": "t2"}) == 200
    assert taken(me) == []
    assert publish(publish={"tenant_id": "t1"}) == 200
    assert publish(publish=True) == 200
    assert taken(me) == ["x", "x"]


@pytest.mark.parametrize("value", [None, 1, "yes", object()])
def test_only_true_is_yes(broker: Broker, value: Any, caplog) -> None:
    client = client_of(broker, lambda request: value)
    assert post(client, ALL).status_code == 401
    assert "Publisher" in caplog.text


def test_a_failing_publish_authenticator_is_not_a_wrong_token(broker: Broker, caplog) -> None:
    def away(request: Any) -> bool:
        raise ConnectionRefusedError(111, "db.internal refused")

    response = post(client_of(broker, away), ALL)

    assert response.status_code == 503
    assert "internal" not in response.text


def test_each_message_of_a_batch_counts_for_the_rate() -> None:
    with Broker(BrokerConfig(publish_rate="10/hour")) as broker:
        client = client_of(broker)
        assert post(client, {"messages": [ALL] * 9}).status_code == 200
        assert post(client, {"messages": [ALL] * 9}).status_code == 429
        assert broker.log.tail() == 9
