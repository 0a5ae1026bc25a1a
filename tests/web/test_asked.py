"""Where a stream begins, as its request or the page before it says."""

from __future__ import annotations

import pytest
from flask import Flask, render_template_string

from sse_broker import SSE, Broker, LogUnavailable, Subscription, create_blueprint
from sse_broker.testing import read_events

USER = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
STREAM = f"/sse/stream?user_id={USER}"


@pytest.fixture
def app():
    app = Flask(__name__)
    app.debug = True
    SSE(app)
    yield app
    app.extensions["sse"].stop(timeout=0)


def data_of(app: Flask, url: str, count: int, **headers: str) -> list[str]:
    """Return the name of the library's events and the data of the others."""
    response = app.test_client().get(url, headers=headers)
    events = read_events(response.response, count)
    response.close()
    return [one.data if one.event == "e" else one.event for one in events]


SPELLINGS = (
    *("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "last-event-id"),
    *("LAST_EVENT_ID", "last-event-Id"),
)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_last_id_in_the_url_resumes(app: Flask, name: str) -> None:
    broker: Broker = app.extensions["sse"]
    first = broker.broadcast("e", "1")
    broker.broadcast("e", "2")

    assert data_of(app, f"{STREAM}&{name}={first}", 2) == ["welcome", "2"]


def test_a_last_id_in_the_url_that_proves_nothing_is_no_fresh_start(app: Flask) -> None:
    for name in SPELLINGS:
        assert data_of(app, f"{STREAM}&{name}=whatever", 2) == ["reset", "welcome"]


def test_the_header_goes_before_every_spelling_and_an_empty_one_says_nothing(app: Flask) -> None:
    broker: Broker = app.extensions["sse"]
    ids = [broker.broadcast("e", str(n)) for n in range(3)]

    url = f"{STREAM}&lastEventId={ids[1]}"
    assert data_of(app, url, 3, **{"Last-Event-ID": ids[0]}) == ["welcome", "1", "2"]
    assert data_of(app, url, 2, **{"Last-Event-ID": ""}) == ["welcome", "2"]
    url = f"{STREAM}&last_event_id=&lastEventId={ids[1]}"
    assert data_of(app, url, 2) == ["welcome", "2"]


def test_a_page_that_renders_first_misses_nothing_of_what_follows(app: Flask) -> None:
    broker: Broker = app.extensions["sse"]
    broker.broadcast("e", "rendered")
    with app.test_request_context():
        moment = render_template_string("{{ sse_last_event_id() }}")
    assert moment == broker.last_event_id()
    broker.broadcast("e", "sent before the page connects")

    assert data_of(app, f"{STREAM}&last_event_id={moment}", 2) == [
        "welcome",
        "sent before the page connects",
    ]


def test_what_is_published_over_http_can_be_retained_and_for_several_topics(app: Flask) -> None:
    broker: Broker = app.extensions["sse"]
    app.register_blueprint(create_blueprint(broker, publish_authenticator="t", name="p"))
    headers = {"Authorization": "Bearer t"}

    def publish(**fields: object) -> tuple[int, dict]:
        body = {"target": "topic", "data": "x", "event": "e", **fields}
        answer = app.test_client().post("/publish", json=body, headers=headers)
        return answer.status_code, answer.json

    assert publish(topics=["a", "b"], retain=True)[0] == 200
    assert publish(topic="c", retain_for=60)[0] == 200
    assert data_of(app, f"{STREAM}&topics=b,c", 3) == ["welcome", "x", "x"]
    for bad, field in (
        ({"topic": "a", "retain": "yes"}, "retain"),
        ({"topic": "a", "retain_for": -1}, "retain_for"),
        ({"target": "broadcast", "retain": True}, "retain"),
        ({"topics": []}, "topic"),
    ):
        status, answer = publish(**bad)
        assert (status, answer["field"]) == (400, field)


def test_the_id_of_now_is_known_before_the_first_message(app: Flask) -> None:
    broker: Broker = app.extensions["sse"]
    moment = broker.last_event_id()
    broker.broadcast("e", "1")

    assert data_of(app, f"{STREAM}&last_event_id={moment}", 2) == ["welcome", "1"]


def test_a_page_is_rendered_while_the_log_is_away_and_its_stream_begins_with_reset(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker: Broker = app.extensions["sse"]

    def away() -> int:
        raise LogUnavailable("not now")

    with monkeypatch.context() as patch, app.test_request_context():
        patch.setattr(broker.log, "tail", away)
        moment = render_template_string("{{ sse_last_event_id() }}")

    assert data_of(app, f"{STREAM}&last_event_id={moment}", 2) == ["reset", "welcome"]


def test_since_in_the_url_begins_with_what_there_was(app: Flask) -> None:
    broker: Broker = app.extensions["sse"]
    ids = [broker.broadcast("e", str(n)) for n in range(3)]

    assert data_of(app, f"{STREAM}&since=2", 3) == ["welcome", "1", "2"]
    assert data_of(app, f"{STREAM}&since=30s", 4) == ["welcome", "0", "1", "2"]
    assert data_of(app, f"{STREAM}&since=earliest", 4) == ["welcome", "0", "1", "2"]
    resumed = data_of(app, f"{STREAM}&since=earliest", 2, **{"Last-Event-ID": ids[1]})
    assert resumed == ["welcome", "2"]


@pytest.mark.parametrize(
    "bad", ["0", "-1", "0s", "s", "5 s", "30x", "1e3", "10001", "latest", "9" * 99, "٣"]
)
def test_since_that_says_nothing_is_refused_with_what_it_may_be(app: Flask, bad: str) -> None:
    answer = app.test_client().get("/sse/stream", query_string={"since": bad, "user_id": USER})

    assert answer.status_code == 400
    assert answer.json["field"] == "since"
    assert "earliest" in answer.json["error"]


def test_a_topic_resolver_may_say_since_when() -> None:
    app = Flask(__name__)
    app.debug = True
    SSE(app, topic_resolver=lambda request: Subscription(["a"], since="1"))
    broker: Broker = app.extensions["sse"]
    for number in range(3):
        broker.send_to_topic("a", "e", str(number))

    assert data_of(app, STREAM, 2) == ["welcome", "2"]
    assert data_of(app, f"{STREAM}&since=3", 2) == ["welcome", "2"]  # the resolver's goes first
    broker.stop(timeout=0)
