"""The retained messages that a stream begins with, as its reader writes them."""

from __future__ import annotations

import pytest

from sse_broker import BrokerConfig, InvalidMessage, InvalidTopic, InvalidUserID, MessageTooLarge
from sse_broker.core import state
from sse_broker.core.ports import PositionLost
from tests.core.streams import Hub, Tab


@pytest.fixture
def broker():
    with Hub(BrokerConfig(history_size=99)) as broker:
        yield broker


def tab_of(broker: Hub, *topics: str, after: str = "") -> Tab:
    tab = Tab(broker, 1, topics)
    tab.last_event_id = after
    return tab.connect()


def test_a_mark_is_taken_off_and_only_from_an_id_of_the_log(broker: Hub) -> None:
    at = broker.last_event_id()

    assert state.unmarked(state.marked(at, 7)) == (at, 7)
    assert state.unmarked(at) == (at, 0)
    assert state.unmarked("order.r7") == ("order.r7", 0)


def test_each_tells_how_many_follow_and_the_last_id_stands_for_all(broker: Hub) -> None:
    for topic in "abc":
        broker.send_to_topic(topic, "e", topic, retain=True)
    at = broker.last_event_id()

    tab = tab_of(broker, "*").read_on()

    assert [event.id for event in tab.events] == [f"{at}.r{n}" for n in (3, 2, 1, 0)]
    again = tab_of(broker, "*", after=tab.last_event_id).read_on()
    assert again.data == []
    assert again.count("reset") == 0


def test_a_stream_without_state_is_not_marked(broker: Hub) -> None:
    broker.send_to_topic("a", "e", "x", retain=True)
    tab = tab_of(broker, "b").read_on()

    assert tab.events[0].id == broker.last_event_id()
    assert "retained" not in tab.events[0].data


def test_live_messages_come_after_the_state_however_long_that_is(broker: Hub) -> None:
    for number in range(40):
        broker.send_to_topic(f"t:{number}", "e", str(number) + " " * 10_000, retain=True)
    tab = tab_of(broker, "t:*")
    broker.send_to_topic("t:0", "e", "live")
    chunks = []
    while chunk := tab.reader.next(0):
        chunks.append(chunk)

    assert max(map(len, chunks)) <= state.CHUNK_BYTES
    events = tab.parser.feed(b"".join(chunks))
    assert [event.data.strip() for event in events[1:]] == [*map(str, range(40)), "live"]


def test_a_stream_that_is_closed_meanwhile_says_the_state_and_then_its_end(broker: Hub) -> None:
    for number in range(20):
        broker.send_to_topic(f"t:{number}", "e", str(number) + " " * 10_000, retain=True)
    tab = tab_of(broker, "t:*")
    tab.reader.client.close("test")
    tab.read_on()

    assert len(tab.data) == 20
    assert tab.events[-1].event == "close"


def test_a_stream_that_is_told_to_start_anew_gets_the_state(broker: Hub) -> None:
    broker.send_to_topic("a", "e", "state", retain=True)
    at_connect = tab_of(broker, "a", after="nobody-knows-it").read_on()
    assert [event.event for event in at_connect.events] == ["reset", "welcome", "e"]

    tab = tab_of(broker, "a", after=broker.last_event_id())
    tab.read_on()
    read = broker.log.read

    def lost(after: int, limit: int):
        broker.log.read = read
        raise PositionLost("trimmed")

    broker.log.read = lost
    tab.reader.client.fall_behind()
    tab.read_on()
    assert [event.event for event in tab.events] == ["welcome", "reset", "e"]
    assert tab.events[1].id == f"{broker.last_event_id()}.r1"


def test_an_authorizer_decides_of_the_state_that_a_pattern_finds() -> None:
    with Hub(authorizer=lambda identity, topic: topic != "t:secret") as broker:
        for topic in ("t:1", "t:secret", "t:2"):
            broker.send_to_topic(topic, "e", topic, retain=True)
        tab = tab_of(broker, "t:*").read_on()

    assert tab.data == ["t:1", "t:2"]
    assert '"retained":2' in tab.events[0].data


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), True, "5", 1e10])
def test_a_time_that_is_none_is_refused(broker: Hub, bad) -> None:
    with pytest.raises(InvalidMessage) as caught:
        broker.send_to_topic("a", "e", "x", retain_for=bad)
    assert caught.value.field == "retain_for"


def test_what_cannot_be_retained_is_refused(broker: Hub) -> None:
    with pytest.raises(InvalidMessage, match="retain is true or false"):
        broker.send_to_topic("a", "e", "x", retain="yes")  # type: ignore[arg-type]
    with Hub(BrokerConfig(retained_bytes=1000)) as small, pytest.raises(MessageTooLarge) as caught:
        small.send_to_topic("a", "e", "x" * 1001, retain=True)
    assert caught.value.field == "retain"
    assert broker.log.tail() == 0


def test_what_is_cleared_is_said_whole(broker: Hub) -> None:
    with pytest.raises(InvalidMessage, match="one of user_id and topic"):
        broker.clear_retained()
    with pytest.raises(InvalidMessage, match="one of user_id and topic"):
        broker.clear_retained(user_id=1, topic="a")
    with pytest.raises(InvalidTopic):
        broker.clear_retained(topic="a:*")
    with pytest.raises(InvalidUserID):
        broker.clear_retained(user_id="")


def test_what_had_to_go_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with Hub(BrokerConfig(retained_size=2)) as broker:
        for number in range(6):
            broker.send_to_topic(f"t:{number}", "e", "x", retain=True)

        assert broker.log._here().evictions.count == 4
    assert sum("retained_size" in line for line in caplog.messages) == 1
