"""One message to several topics: once per client, authorised and replayed by any of them."""

from __future__ import annotations

import pytest

from sse_broker import ALL_TENANTS, BrokerConfig, InvalidMessage, InvalidTopic, Message, Target
from sse_broker.wire.envelope import pack, unpack
from tests.core.streams import Hub, Tab


@pytest.fixture
def broker():
    with Hub(BrokerConfig(history_size=99)) as broker:
        yield broker


def test_a_client_of_several_of_the_topics_gets_the_message_once(broker: Hub) -> None:
    subscriptions = [("a",), ("b:1",), ("a", "b:1"), ("b:*",), ("**", "a"), ("c",), ()]
    tabs = [Tab(broker, n + 1, topics).connect() for n, topics in enumerate(subscriptions)]

    own = broker.send_to_topic(["a", "b:1", "a"], "e", "x")
    broker.send_to_topic("a", "e", "y")

    assert [tab.read_on().data for tab in tabs] == [
        *(["x", "y"], ["x"], ["x", "y"], ["x"], ["x", "y"], [], []),
    ]
    assert tabs[0].events[-2].id == own
    assert broker.log.tail() == 2


def test_it_is_replayed_by_any_of_its_topics(broker: Hub) -> None:
    begin = broker.last_event_id()
    broker.send_to_topic(("project:7", "user:3"), "e", "x")

    for topics in (("project:7",), ("user:*",), ("user:3", "project:**")):
        tab = Tab(broker, 1, topics)
        tab.last_event_id = begin
        assert tab.connect().read_on().data == ["x"]
    tab = Tab(broker, 1, ("project:8",))
    tab.last_event_id = begin
    assert tab.connect().read_on().data == []


def test_it_stays_in_its_tenant_or_reaches_all(broker: Hub) -> None:
    mine, other, none = (Tab(broker, 1, ("a", "b"), tenant) for tenant in ("t", "u", None))
    for tab in (mine, other, none):
        tab.connect()

    broker.send_to_topic(["a", "b"], "e", "to t", tenant_id="t")
    broker.send_to_topic(["a", "b"], "e", "to all", tenant_id=ALL_TENANTS)

    assert mine.read_on().data == ["to t", "to all"]
    assert other.read_on().data == ["to all"]
    assert none.read_on().data == ["to all"]


def test_a_pattern_lets_in_what_the_authorizer_allows_of_the_topics_it_takes() -> None:
    allowed = {"public:*", "secret:1", "public:yes"}
    asked: list[str] = []

    def authorizer(identity, topic: str) -> bool:
        asked.append(topic)
        return topic in allowed

    with Hub(authorizer=authorizer) as broker:
        tab = Tab(broker, 1, ("public:*",)).connect()
        broker.send_to_topic(["secret:1", "public:no"], "e", "not subscribed, not allowed")
        broker.send_to_topic(["secret:1", "public:no", "public:yes"], "e", "allowed by one")

        assert tab.read_on().data == ["allowed by one"]
    assert "secret:1" not in asked


def test_nothing_of_the_other_topics_is_said_to_a_client(broker: Hub) -> None:
    tab = Tab(broker, 1, ("a",)).connect()
    chunk = b""
    broker.send_to_topic(["a", "secret-name"], "e", "x")
    broker.send_to_topic(["secret-name", "a"], "e", "x")
    while piece := tab.reader.next(0):
        chunk += piece

    assert b"x" in chunk
    assert b"secret-name" not in chunk


@pytest.mark.parametrize("bad", [[], ["a", ""], ["a", "b:*"], ["a", 7], 7, None, {"a": 1}, b"a"])
def test_topics_that_no_message_can_have_are_refused(broker: Hub, bad) -> None:
    with pytest.raises(InvalidTopic):
        broker.send_to_topic(bad, "e", "x")
    assert broker.log.tail() == 0


def test_there_is_a_bound_and_the_error_names_it(broker: Hub) -> None:
    broker.send_to_topic([f"t:{n}" for n in range(64)], "e", "x")
    with pytest.raises(InvalidTopic, match="at most 64 topics"):
        broker.send_to_topic((f"t:{n}" for n in range(10**9)), "e", "x")


def test_a_message_has_one_list_of_topics() -> None:
    several = Message(Target.TOPIC, "x", topics=["a", "b"])

    assert (several.topic, several.topics) == ("a", ("a", "b"))
    assert Message(Target.TOPIC, "x", topic="a").topics == ("a",)
    with pytest.raises(InvalidMessage, match="not both"):
        Message(Target.TOPIC, "x", topic="c", topics=["a", "b"])
    with pytest.raises(InvalidMessage, match="takes no topic"):
        Message(Target.BROADCAST, "x", topics=["a"])
    with pytest.raises(InvalidTopic):
        Message(Target.TOPIC, "x", topic=["a"])  # type: ignore[arg-type]


def test_it_is_stored_so_that_a_release_without_several_topics_leaves_it_out() -> None:
    several = Message(Target.TOPIC, "x", topics=["a", "b"])

    assert unpack(pack(several)) == several
    assert b'"topic":' not in pack(several)
    assert b'"topics":' not in pack(Message(Target.TOPIC, "x", topic="a"))
