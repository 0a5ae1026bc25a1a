"""What one client can make a process remember."""

from __future__ import annotations

import flask
import pytest

from sse_broker import Broker, BrokerConfig, Client, Identity, create_blueprint
from sse_broker.core.grants import MEMO, Memo
from sse_broker.errors import InvalidTopic
from tests.core.streams import Hub, Tab

CONFIG = BrokerConfig(max_topics=4, max_patterns=2, max_topic_segments=3)


@pytest.mark.parametrize(
    ("topics", "setting"),
    [
        (["a", "b", "c", "d", "e"], "max_topics is 4"),
        (["a:*", "b:*", "c:*"], "max_patterns is 2"),
        (["a:b:c:d"], "max_topic_segments is 3"),
        (["a:b:c:**"], "max_topic_segments is 3"),
    ],
)
def test_a_client_that_wants_too_much_is_refused_with_the_limit_named(topics, setting) -> None:
    asked = []
    broker = Broker(CONFIG, authorizer=lambda identity, topic: asked.append(topic) or True)
    app = flask.Flask(__name__)
    app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
    with broker:
        with pytest.raises(InvalidTopic, match=setting):
            broker.streams.check_topics(Identity(1), topics)
        with pytest.raises(InvalidTopic, match=setting):
            broker.register(Client(1, topics=topics))
        user = "6f1c8a2e-0000-4000-8000-000000000001"
        query = {"user_id": user, "topics": ",".join(topics)}
        answer = app.test_client().get("/sse/stream", query_string=query)

        assert not asked
        assert answer.status_code == 400
        assert setting in answer.json["error"]
        assert broker.get_stats().total_clients == 0


def test_what_is_within_the_limits_is_let_in() -> None:
    with Hub(CONFIG) as broker:
        client = Client(1, topics=["a", "a:b:c", "x:*", "y:**"])
        broker.register(client)
        broker.unregister(client)


def test_nobody_sends_to_a_name_that_nobody_can_subscribe_to() -> None:
    broker = Broker(CONFIG)
    with pytest.raises(InvalidTopic, match="max_topic_segments is 3") as caught:
        broker.send_to_topic("a:b:c:d", "e", "x")

    assert caught.value.field == "topic"


def test_what_authorizers_said_is_bounded_for_the_whole_process(monkeypatch) -> None:
    monkeypatch.setattr(MEMO, "_most", 50)
    with Hub(authorizer=lambda identity, topic: True) as broker:
        tabs = [Tab(broker, n + 1, ["order:*"]).connect() for n in range(5)]
        for n in range(100):
            broker.send_to_topic(f"order:{n}", "e", "x")
        for tab in tabs:
            assert len(tab.read_on().data) == 100

    assert len(MEMO) <= 50


def test_a_memo_keeps_askers_apart() -> None:
    memo, one, other = Memo(10), object(), object()
    memo.put(one, "a", True)

    assert memo.get(one, "a") is True
    assert memo.get(other, "a") is None
