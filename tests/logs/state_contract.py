"""What every log promises of where a stream begins: retained messages, and ``since``."""

from __future__ import annotations

import json

import pytest

from sse_broker import ALL_TENANTS, Broker, BrokerConfig, Message, Target
from sse_broker.core.client import Client
from sse_broker.core.ports import Log, LogLimits
from sse_broker.core.since import parse_since
from sse_broker.testing import FakeClock
from tests.core.streams import Hub, Tab

KEEP = LogLimits(resume_window=0, history_size=1000)


def reading(
    broker: Broker, *topics: str, user: object = 1, tenant=None, after: str = "", since: str = ""
) -> Tab:
    """Return a tab that has connected and got what there was at once."""
    tab = Tab(broker, user, topics, tenant, parse_since(since))
    tab.last_event_id = after
    return tab.connect().read_on()


def got(tab: Tab, count: int) -> list[str]:
    """Wait for as many messages; return what came."""
    while len(tab.data) < count:
        assert tab.step(10)
    return tab.read_on().data


def is_state(tab: Tab) -> list[bool]:
    """Say of each message whether it is marked as retained."""
    return [".r" in event.id for event in tab.events if event.event == "e"]


class StateContract:
    """Part of :class:`tests.logs.contract.LogContract`."""

    log: Log
    clock: FakeClock

    @pytest.fixture
    def broker(self):
        with Hub(BrokerConfig(history_size=1000), log=self.log, clock=self.clock) as broker:
            yield broker

    def test_a_fresh_stream_begins_with_the_newest_of_each_event(self, broker: Hub) -> None:
        for event, data in [("e", "old"), ("f", "other event"), ("e", "new")]:
            broker.send_to_topic("a", event, data, retain=True)
        broker.send_to_topic("a", "e", "not retained")
        broker.send_to_topic("b", "e", "another topic", retain=True)
        self.follow(broker, broker.last_event_id())

        tab = reading(broker, "a")
        assert tab.data == ["other event", "new"]
        assert json.loads(tab.events[0].data)["retained"] == 2
        assert is_state(tab) == [True]

    def test_retained_messages_go_beyond_the_history(self, broker: Hub) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=2), self.clock)
        broker.send_to_topic("a", "e", "state", retain=True)
        for number in range(300):
            broker.send_to_topic("b", "e", str(number))

        assert got(reading(broker, "a"), 1) == ["state"]

    def test_a_resumed_stream_gets_only_what_it_missed(self, broker: Hub) -> None:
        broker.send_to_topic("a", "e", "state", retain=True)
        self.follow(broker, broker.last_event_id())
        first = reading(broker, "a")
        assert got(first, 1) == ["state"]
        first.leave()
        broker.send_to_topic("a", "e", "news", retain=True)

        second = reading(broker, "a", after=first.last_event_id)
        assert got(second, 1) == ["news"]
        assert is_state(second) == [False]
        assert second.count("reset") == 0

    def test_who_was_cut_amid_the_state_gets_the_rest_of_it(self, broker: Hub) -> None:
        for topic in "abc":
            broker.send_to_topic(topic, "e", topic, retain=True)
        self.follow(broker, broker.last_event_id())
        whole = reading(broker, "*")
        assert got(whole, 3) == ["a", "b", "c"]
        marks = [event.id for event in whole.events if event.event in ("welcome", "e")]
        broker.send_to_topic("a", "e", "A", retain=True)

        for seen, mark in enumerate(marks):
            rest = ["a", "b", "c"][seen:]
            if seen == 0:
                rest = ["b", "c"]  # "a" has been replaced; its newest is replayed
            assert got(reading(broker, "*", after=mark), len(rest) + 1) == [*rest, "A"]

    def test_state_is_of_one_tenant_and_one_user(self, broker: Hub) -> None:
        broker.send_to_topic("a", "e", "t", tenant_id="t", retain=True)
        broker.send_to_topic("a", "e", "none", retain=True)
        broker.send_to_topic("a", "e", "all", tenant_id=ALL_TENANTS, retain=True)
        broker.send_to_user(1, "e", "1 anywhere", retain=True)
        broker.send_to_user(1, "e", "1 in t", tenant_id="t", retain=True)
        broker.send_to_user(2, "e", "2", tenant_id="t", retain=True)
        last = broker.last_event_id()
        self.follow(broker, last)

        assert reading(broker, "a").data == ["none", "all", "1 anywhere"]
        assert reading(broker, "a", tenant="t").data == ["t", "all", "1 anywhere", "1 in t"]
        assert reading(broker, "a", user=2, tenant="t").data == ["t", "all", "2"]
        assert reading(broker, "**", user=3, tenant="u").data == ["all"]
        assert reading(broker, user=3).data == []

    def follow(self, broker: Hub, last: str) -> None:
        """Wait until the process has been told of everything up to an id."""
        tab = Tab(broker, "nobody")
        tab.last_event_id = last
        tab.connect()
        while broker.log.locate(last) > broker.streams.here().register(Client("looks")):
            tab.step(0.01)

    def test_state_goes_when_its_time_is_over(self, broker: Hub) -> None:
        broker.send_to_topic("a", "e", "short", retain_for=10)
        broker.send_to_topic("a", "f", "long", retain_for=100)
        self.follow(broker, broker.last_event_id())

        self.clock.advance(9)
        assert reading(broker, "a").data == ["short", "long"]
        self.clock.advance(2)
        assert reading(broker, "a").data == ["long"]

    def test_state_can_be_cleared_by_event_or_whole(self, broker: Hub) -> None:
        for event in ("e", "f", "g"):
            broker.send_to_topic("a", event, event, retain=True)
        broker.send_to_topic("b", "e", "b", retain=True)
        broker.send_to_topic("a", "e", "t", tenant_id="t", retain=True)
        broker.send_to_user(7, "e", "user", retain=True)
        self.follow(broker, broker.last_event_id())

        assert broker.clear_retained(topic="a", event="f") == 1
        assert reading(broker, "a", "b").data == ["e", "g", "b"]
        assert broker.clear_retained(topic="a") == 2
        assert broker.clear_retained(topic="a") == 0
        assert reading(broker, "a", "b").data == ["b"]
        assert reading(broker, "a", tenant="t").data == ["t"]
        assert broker.clear_retained(user_id=7) == 1
        assert reading(broker, user=7).data == []

    def test_state_of_several_topics_is_each_ones_and_comes_once(self, broker: Hub) -> None:
        broker.send_to_topic(["a", "b"], "e", "both", retain=True)
        broker.send_to_topic("a", "e", "a alone", retain=True)
        self.follow(broker, broker.last_event_id())

        assert reading(broker, "a").data == ["a alone"]
        assert reading(broker, "b").data == ["both"]
        assert reading(broker, "a", "b").data == ["both", "a alone"]
        assert reading(broker, "*").data == ["both", "a alone"]

    def test_state_is_bounded_by_count_and_bytes_oldest_first(self) -> None:
        self.log.bind(
            LogLimits(resume_window=60, retained_size=3, retained_bytes=100_000), self.clock
        )
        everything = Client(1, topics=["**"])
        for number in range(10):
            self.retain(f"t:{number}", str(number))
        assert [one.message.data for one in self.log.retained(everything)] == ["7", "8", "9"]

        self.retain("t:7", "7 again")
        self.retain("t:10", "10")
        kept = [one.message.data for one in self.log.retained(everything)]
        assert kept == ["9", "7 again", "10"]

        for number in range(3):
            self.retain(f"large:{number}", "x" * 45_000)
        assert [one.message.topic for one in self.log.retained(everything)] == [
            "large:1",
            "large:2",
        ]

    def retain(self, topic: str, data: str, **options) -> None:
        self.log.append(Message(Target.TOPIC, data, "e", topic=topic, retain=True, **options))

    def test_what_has_expired_makes_room_before_what_has_not(self) -> None:
        self.log.bind(LogLimits(resume_window=60, retained_size=3), self.clock)
        self.retain("old", "old")
        for number in range(2):
            self.retain(f"short:{number}", "x", retain_for=5)
        self.clock.advance(6)
        self.retain("new", "new")

        kept = [one.message.data for one in self.log.retained(Client(1, topics=["**"]))]
        assert kept == ["old", "new"]

    def test_an_own_id_that_is_known_already_changes_no_state(self, broker: Hub) -> None:
        message = Message(Target.TOPIC, "1", "e", topic="a", id="order-7", retain=True)
        broker.publish(message)
        broker.send_to_topic("a", "e", "2", retain=True)
        broker.publish(message)
        self.follow(broker, broker.last_event_id())

        assert reading(broker, "a").data == ["2"]

    def test_state_that_is_replaced_while_a_stream_begins_comes_once(self, broker: Hub) -> None:
        """The log is asked for state after the client was registered: in between it is replaced."""
        broker.send_to_topic("a", "e", "1", retain=True)
        self.follow(broker, broker.last_event_id())
        retained = self.log.retained

        def replaced_meanwhile(interest):
            self.log.retained = retained  # type: ignore[method-assign]
            broker.send_to_topic("a", "e", "2", retain=True)
            return retained(interest)

        self.log.retained = replaced_meanwhile  # type: ignore[method-assign]
        tab = Tab(broker, 1, ("a",)).connect()

        assert got(tab, 1) == ["2"]
        assert is_state(tab) == [False]

    def say(self, broker: Hub, *said: str, topic: str = "a") -> None:
        for data in said:
            broker.send_to_topic(topic, "e", data)

    def test_a_stream_can_begin_with_the_last_messages_of_its_topics(self, broker: Hub) -> None:
        for number in range(5):
            self.say(broker, str(number))
            self.say(broker, "other", "other", topic="b")
        broker.send_to_topic(["b", "a"], "e", "5")
        self.follow(broker, broker.last_event_id())

        assert reading(broker, "a", since="3").data == ["3", "4", "5"]
        assert reading(broker, "a", since="1").data == ["5"]
        assert reading(broker, "a", since="6").data == ["0", "1", "2", "3", "4", "5"]
        everything = reading(broker, "a", since="100")
        assert everything.data == ["0", "1", "2", "3", "4", "5"]
        assert everything.count("reset") == 0
        assert len(reading(broker, "*", since="7").data) == 7
        assert reading(broker, "c", since="7").data == []

    def test_a_stream_can_begin_with_the_last_seconds(self, broker: Hub) -> None:
        for number in range(5):
            self.say(broker, str(number))
            self.clock.advance(10)
        self.follow(broker, broker.last_event_id())

        assert reading(broker, "a", since="25s").data == ["3", "4"]
        assert reading(broker, "a", since="5s").data == []
        assert reading(broker, "a", since="1h").data == ["0", "1", "2", "3", "4"]
        for since in ("25s", "5s", "1h", "earliest"):
            assert reading(broker, "a", since=since).count("reset") == 0
        assert reading(broker, "a", since="earliest").data == ["0", "1", "2", "3", "4"]

    def test_after_since_come_the_live_ones_without_hole_or_double(self, broker: Hub) -> None:
        self.say(broker, "1", "2")
        tab = reading(broker, "a", since="earliest")
        self.say(broker, "3")
        assert got(tab, 3) == ["1", "2", "3"]
        tab.leave()
        self.say(broker, "4")

        tab.connect()  # its last id goes before since, as that of a browser does
        assert got(tab, 4) == ["1", "2", "3", "4"]

    def test_a_log_that_returns_too_much_tells_nobody_what_is_not_theirs(self, broker: Hub) -> None:
        broker.send_to_topic("a", "e", "theirs", tenant_id="t", retain=True)
        broker.send_to_topic("a", "e", "mine", retain=True)
        self.follow(broker, broker.last_event_id())
        retained, theirs = self.log.retained, Client(1, "t", topics=["a"])

        self.log.retained = lambda interest: [  # type: ignore[method-assign]
            *retained(theirs),
            *retained(interest),
        ]
        assert reading(broker, "a").data == ["mine"]

    def test_since_tells_nobody_what_is_not_theirs(self, broker: Hub) -> None:
        for tenant in ("t", "u", None):
            broker.send_to_topic("a", "e", f"topic of {tenant}", tenant_id=tenant)
            broker.broadcast("e", f"all of {tenant}", tenant_id=tenant)
        broker.send_to_user(1, "e", "user 1")
        broker.send_to_user(2, "e", "user 2 in t", tenant_id="t")
        self.follow(broker, broker.last_event_id())

        for since in ("earliest", "100", "1h"):
            mine = reading(broker, "a", user=2, tenant="t", since=since)
            assert mine.data == ["topic of t", "all of t", "user 2 in t"]
            assert reading(broker, user=1, since=since).data == ["all of None", "user 1"]
        assert reading(broker, "a", user=2, tenant="t", since="2").data == [
            "all of t",
            "user 2 in t",
        ]

    def test_what_is_no_longer_there_is_said_once_and_what_there_is_comes(
        self, broker: Hub
    ) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=10), self.clock)
        for number in range(300):
            self.clock.advance(1)
            self.say(broker, str(number))
        self.follow(broker, broker.last_event_id())
        kept = [str(number) for number in range(290, 300)]

        for since in ("100", "1h", "earliest"):
            tab = reading(broker, "a", since=since)
            assert tab.data == kept
            assert tab.count("reset") == 1
            said = json.loads(tab.events[0].data)
            assert said["reason"] == "trimmed"
            assert isinstance(said["from"], int)
            again = reading(broker, "a", after=tab.events[0].id)
            assert again.data == kept
            assert again.count("reset") == 0
        for since, count in (("5", 5), ("10", 10), ("5s", 6)):
            tab = reading(broker, "a", since=since)
            assert tab.data == kept[-count:]
            assert tab.count("reset") == 0

    def test_since_and_state_go_together(self, broker: Hub) -> None:
        broker.send_to_topic("a", "e", "state", retain=True)
        broker.send_to_topic("a", "f", "old")
        broker.send_to_topic("a", "g", "newer state", retain=True)
        self.follow(broker, broker.last_event_id())

        assert reading(broker, "a", since="2").data == ["state", "old", "newer state"]
        assert reading(broker, "a", since="earliest").data == ["state", "old", "newer state"]

    def test_the_records_before_a_position_are_told_oldest_first(self) -> None:
        positions = [
            self.log.append(Message(Target.BROADCAST, str(number))).position for number in range(9)
        ]

        assert [one.position for one in self.log.before(positions[6], 3)] == positions[4:7]
        assert [one.position for one in self.log.before(positions[1], 99)] == positions[:2]
        assert not self.log.before(positions[0] - 1, 5)
        assert [one.message.data for one in self.log.before(self.log.tail(), 2)] == ["7", "8"]
