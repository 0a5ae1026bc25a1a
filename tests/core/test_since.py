"""How far back ``since`` goes, and what it costs."""

from __future__ import annotations

import pytest

from sse_broker import BrokerConfig, InvalidSince, Subscription
from sse_broker.core import since as since_module
from sse_broker.core.since import Since, begin_at, parse_since
from tests.core.streams import Hub, Tab


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", None),
        ("30s", Since(seconds=30)),
        ("1.5s", Since(seconds=1.5)),
        ("5m", Since(seconds=300)),
        ("2h", Since(seconds=7200)),
        ("1d", Since(seconds=86_400)),
        ("100", Since(messages=100)),
        ("10000", Since(messages=10_000)),
        ("earliest", Since()),
    ],
)
def test_what_may_be_said(text: str, meant: Since | None) -> None:
    assert parse_since(text) == meant


@pytest.mark.parametrize("bad", ["0", "10001", "0s", "99999999d", "Earliest", "all", " 5", "5s "])
def test_what_may_not(bad: str) -> None:
    with pytest.raises(InvalidSince, match="earliest") as caught:
        parse_since(bad)
    assert caught.value.field == "since"


def test_how_much_is_looked_at_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(since_module, "MOST_LOOKED_AT", 512)
    with Hub(BrokerConfig(history_size=5000)) as broker:
        broker.send_to_topic("a", "e", "far back")
        for number in range(1000):
            broker.send_to_topic("b", "e", str(number))
        broker.send_to_topic("a", "e", "near")

        begin = begin_at(broker.log, Since(messages=2), lambda one: one.message.topic == "a")
        assert not begin.is_whole
        assert 400 < begin.position < 600
        tab = Tab(broker, 1, ("a",), since=Since(messages=2)).connect().read_on()
    assert tab.data == ["near"]
    assert tab.count("reset") == 1


def test_what_a_pattern_finds_and_the_authorizer_refuses_does_not_count() -> None:
    def authorizer(identity, topic: str) -> bool:
        if topic == "t:broken":
            raise RuntimeError("not today")
        return topic != "t:secret"

    with Hub(BrokerConfig(history_size=99), authorizer=authorizer) as broker:
        for number in range(4):
            broker.send_to_topic("t:open", "e", str(number))
            broker.send_to_topic("t:secret", "e", "secret")
            broker.send_to_topic("t:broken", "e", "broken")

        tab = Tab(broker, 1, ("t:*",), since=Since(messages=3)).connect().read_on()
    assert tab.data == ["1", "2", "3"]
    assert tab.count("reset") == 0


def test_a_place_that_is_lost_is_said_and_since_counts_from_there() -> None:
    with Hub(BrokerConfig(history_size=99)) as broker:
        for number in range(4):
            broker.send_to_topic("a", "e", str(number))
        tab = Tab(broker, 1, ("a",), since=Since(messages=2))
        tab.last_event_id = "nobody-knows-it"
        tab.connect().read_on()

    assert [event.event for event in tab.events] == ["reset", "welcome", "e", "e"]
    assert tab.data == ["2", "3"]


def test_a_subscription_is_topics_and_since_when() -> None:
    assert Subscription(["a"]).since == ""
    assert Subscription(["a"], "30s").topics == ["a"]
