"""The kit for the tests of applications."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask import Flask

from sse_broker import SSE, Broker, BrokerConfig, Message, default_authenticator
from sse_broker.errors import InvalidUserID
from sse_broker.testing import NothingCame, SSEClient, capture

USER = "5b0f1c52-8f0e-4c4e-9d4a-0d3f6f1c7a11"
PLUGIN_TEST = """
import pytest
from flask import Flask
from sse_broker import SSE, default_authenticator

@pytest.fixture
def app():
    app = Flask("shop")
    app.config["SSE_LOG_URL"] = "memory://"
    SSE(app, authenticator=default_authenticator)
    return app

def test_all(app, sse_client, sse_capture, sse_clock):
    sse = app.extensions["sse"]
    tab = sse_client.stream("/sse/stream?user_id=USER")
    sse.broadcast("hello", "world")
    assert tab.next("hello").data == "world"
    sse_capture.assert_pushed(event="hello")
    assert sse_clock.monotonic() == sse_clock.monotonic()
"""
STREAM = f"/sse/stream?user_id={USER}&topics=news"


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.config.update(TESTING=True, SSE_LOG_URL="memory://")
    app.sse = SSE(app, authenticator=default_authenticator)  # type: ignore[attr-defined]

    @app.post("/orders/<int:number>/paid")
    def paid(number: int) -> str:
        return app.sse.send_to_user(USER, "paid", {"order": number})  # type: ignore[attr-defined]

    return app


@pytest.fixture
def client(app: Flask) -> Iterator[SSEClient]:
    client = SSEClient(app, app.response_class)
    yield client
    client.close_streams()
    app.sse.broker.stop(timeout=0)


def test_what_a_view_sends_is_captured(app: Flask, client: SSEClient) -> None:
    with capture(app) as sent:
        client.post("/orders/7/paid")

    assert len(sent) == 1
    assert sent.assert_pushed(user=USER, event="paid", data={"order": 7}).id == ""


def test_a_failure_shows_what_was_sent_instead(app: Flask) -> None:
    with capture(app.sse) as sent:
        app.sse.send_to_topic("news", "headline", "text", tenant_id=3)
        app.sse.broadcast("notice", [1])

    with pytest.raises(AssertionError) as failure:
        sent.assert_pushed(user=USER, event="paid")
    assert f"no message with user='{USER}', event='paid'" in str(failure.value)
    assert "headline to topic news of tenant 3: text" in str(failure.value)
    assert "notice to all: [1]" in str(failure.value)


@pytest.mark.parametrize(
    "wanted",
    [
        {"topic": "other"},
        {"event": "other"},
        {"data": {"a": 2}},
        {"data": '{"a": 1}'},
        {"tenant": 2},
        {"tenant": None},
        {"user": USER},
        {"topic": "news", "times": 2},
    ],
    ids=str,
)
def test_what_does_not_fit_is_not_there(app: Flask, wanted: dict) -> None:
    with capture(app.sse) as sent:
        app.sse.send_to_topic("news", "headline", {"a": 1}, tenant_id=1)

    with pytest.raises(AssertionError, match="what was sent"):
        sent.assert_pushed(**wanted)


def test_nothing_is_a_claim_too(app: Flask) -> None:
    with capture(app.sse) as sent:
        app.sse.broadcast("notice", "x")

    sent.assert_nothing_pushed(event="paid")
    with pytest.raises(AssertionError, match="notice to all: x"):
        sent.assert_nothing_pushed()


def test_what_is_refused_was_not_sent_and_the_broker_is_as_before() -> None:
    broker = Broker()
    with capture(broker) as sent, pytest.raises(InvalidUserID):
        broker.send_to_user("", "e", "x")
    broker.broadcast("e", "after")

    assert len(sent) == 0
    assert "publish" not in vars(broker)


def test_captures_lie_within_one_another() -> None:
    broker = Broker()
    with capture(broker) as outer:
        with capture(broker) as inner:
            broker.broadcast("e", "1")
        broker.broadcast("e", "2")

    assert (len(inner), len(outer)) == (1, 2)


def test_after_commit_is_captured_when_it_has_committed(app: Flask) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.orm import Session

    with capture(app.sse) as sent, Session(sqlalchemy.create_engine("sqlite://")) as session:
        app.sse.after_commit(session).send_to_user(USER, "paid", 1)
        session.execute(sqlalchemy.text("select 1"))
        assert len(sent) == 0
        session.commit()
        sent.assert_pushed(user=USER, event="paid", data=1, times=1)


def test_the_outbox_is_captured_when_it_sends(app: Flask, tmp_path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.orm import Session

    from sse_broker.outbox import Outbox

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/app.db")
    outbox = Outbox(app.sse.broker, engine)
    outbox.create()
    with capture(app) as sent:
        with Session(engine) as session, session.begin():
            outbox.within(session).send_to_user(USER, "paid", 1)
        assert len(sent) == 0
        outbox.drain()
        sent.assert_pushed(user=USER, event="paid", data=1)
    engine.dispose()


def test_a_tab_gets_what_is_sent_to_its_user(client: SSEClient) -> None:
    with client.stream(STREAM) as tab:
        client.post("/orders/7/paid")
        came = tab.next("paid")

    assert came.json == {"order": 7}
    assert [one.event for one in tab.events] == ["welcome", "paid"]


def test_a_tab_never_hangs_and_says_what_had_come(app: Flask, client: SSEClient) -> None:
    with client.stream(STREAM, timeout=0.05) as tab:
        app.sse.send_to_topic("news", "headline", "one")
        with pytest.raises(NothingCame, match=r"(?s)no event 'paid' in 0.05 s.*headline: one"):
            tab.next("paid")


def test_a_refused_tab_says_why(client: SSEClient) -> None:
    with pytest.raises(NothingCame, match="answered 400 BAD REQUEST"):
        client.stream("/sse/stream")


def test_no_thread_is_left_of_a_tab(client: SSEClient) -> None:
    with client.stream(STREAM):
        pass

    assert not [t for t in threading.enumerate() if "tab" in t.name]


def test_a_tab_that_lost_its_connection_gets_what_it_missed(app: Flask, client: SSEClient) -> None:
    tab = client.stream(STREAM)
    app.sse.send_to_topic("news", "headline", "one")
    tab.next("headline")
    tab.drop()
    app.sse.send_to_topic("news", "headline", "two")

    assert tab.reconnect().next("headline").data == "two"


def test_a_server_that_restarts_ends_its_tabs_which_come_back(app: Flask, client) -> None:
    tab = client.stream(STREAM)
    app.sse.broker.stop()
    assert tab.next("close").json["reason"] == "shutdown"
    with pytest.raises(NothingCame, match="has ended"):
        tab.next()
    app.sse.send_to_topic("news", "headline", "meanwhile")
    app.sse.broker.start()

    assert tab.reconnect().next("headline").data == "meanwhile"


def test_a_reset_can_be_made(client: SSEClient) -> None:
    tab = client.stream(STREAM)

    assert tab.reconnect(last_event_id="gone").next("reset").json == {"reason": "unknown"}


def test_a_tab_that_stalls_loses_what_the_policy_drops() -> None:
    app = Flask("shop")
    broker = Broker(BrokerConfig(client_buffer_size=2, overflow="drop_oldest"))
    SSE(app, broker=broker, authenticator=default_authenticator)
    client = SSEClient(app, app.response_class)
    tab = client.stream(STREAM)
    tab.next("welcome")
    tab.stall()
    broker.send_to_user(USER, "e", "read before the stop shows")
    tab.next("e")
    for number in range(5):
        broker.send_to_user(USER, "e", number)
    tab.resume()

    assert tab.next("dropped").json == {"count": 3}
    assert [one.json for one in tab.take(2)] == [3, 4]
    client.close_streams()
    broker.stop()


def test_nothing_can_be_expected(app: Flask, client: SSEClient) -> None:
    with client.stream(STREAM) as tab:
        tab.expect_nothing(0.01)
        app.sse.send_to_topic("news", "headline", "one")
        with pytest.raises(AssertionError, match="headline: one"):
            tab.expect_nothing(2)


def test_the_plugin_has_its_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TEST.replace("USER", USER))

    result = pytester.runpytest_inprocess("-p", "sse_broker.testing.plugin", "-p", "no:sse_broker")
    result.assert_outcomes(passed=1)


def test_a_message_is_not_changed_by_being_captured(app: Flask) -> None:
    message = Message("broadcast", "x", "e")
    with capture(app) as sent:
        app.sse.publish(message)

    assert list(sent) == [message]
