"""From the log's record to the audience, with a host that takes its turns when told."""

from __future__ import annotations

import os

import pytest

from sse_broker import BrokerConfig, Client, Identity
from sse_broker.core import delivery as delivery_module
from sse_broker.core.client import State
from sse_broker.core.ports import PositionLost
from sse_broker.errors import LogUnavailable
from sse_broker.testing import FakeClock
from sse_broker.transport import hosts
from sse_broker.transport.threads import Threads
from tests.core.streams import Hub, Tab


class Turns(Threads):
    """A host that does what it was asked for when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []
        self.writes = []

    def call(self, act) -> None:
        self.asked.append(act)

    def hand_out(self, act, clients) -> None:
        self.asked.append(act)

    def write(self, clients, records) -> None:
        self.writes.append((clients, len(records)))
        super().write(clients, records)

    def turn(self) -> None:
        while self.asked:
            self.asked.pop(0)()


@pytest.fixture
def turns(monkeypatch):
    made = Turns()
    monkeypatch.setitem(hosts._hosts, os.getpid(), made)
    return made


def of_token(user: int, token: str = "t") -> Client:
    return Client(Identity(user, token_id=token))


def test_neighbours_for_one_audience_leave_together_also_where_a_pattern_matches(turns) -> None:
    with Hub() as broker:
        for n in range(3):
            broker.register(Client(n + 1, topics=["news"]))
        broker.register(Client(9, topics=["*"]))
        for n in range(5):
            broker.send_to_topic("news", "e", str(n))
        turns.turn()

    assert [(len(clients), count) for clients, count in turns.writes] == [(4, 5)]


def test_a_message_is_matched_once_and_never_for_who_comes_later(turns, monkeypatch) -> None:
    with Hub() as broker:
        early, late = Client(1, topics=["a"]), Client(2, topics=["a"])
        broker.register(early)
        registry, asked = broker.streams.here()._registry, []
        match = registry.match
        monkeypatch.setattr(registry, "match", lambda m: asked.append(m) or match(m))
        broker.send_to_topic("a", "e", "x")
        broker.register(late)
        turns.turn()

    assert len(asked) == 1
    assert (len(early.queue.queue), len(late.queue.queue)) == (0, 0)  # Hub has stopped by now
    assert turns.writes[0] == ((early,), 1)


def test_commands_outlive_the_skip_of_a_host_that_is_far_behind(turns, monkeypatch) -> None:
    monkeypatch.setattr(delivery_module, "MOST_WAITING", 5)
    with Hub() as broker:
        revoked, gone, other = of_token(1), Client(2), Client(3)
        for client in (revoked, gone, other):
            broker.register(client)
        broker.revoke("t")
        broker.disconnect_user(2)
        for _ in range(20):
            broker.broadcast("e", "x")
        turns.turn()

        assert (revoked.state, gone.state) == (State.DRAINING, State.DRAINING)
        assert other.is_open


def test_a_revoked_stream_does_not_wait_for_what_was_sent_before(turns) -> None:
    with Hub() as broker:
        client = of_token(1)
        broker.register(client)
        for n in range(3):
            broker.broadcast("e", str(n))
        broker.revoke("t")
        turns.turn()

        assert (client.state, client.reason) == (State.DRAINING, "revoked")
        assert not client.queue.queue


def missed(broker, *sends) -> int:
    """Have some calls' records in the log that never come to the process; return the tail."""
    life = broker.log._here()
    listeners, life.listeners = life.listeners, ()
    for send in sends:
        send()
    life.listeners = listeners
    return broker.log.tail()


def test_commands_of_a_gap_are_read_from_the_log() -> None:
    with Hub() as broker:
        revoked, other = of_token(1), Client(2)
        broker.register(revoked)
        broker.register(other)
        position = missed(
            broker, *[lambda: broker.broadcast("e", "x")] * 600, lambda: broker.revoke("t")
        )
        broker.streams.here().delivery.lose(position)

        assert revoked.state is State.DRAINING
        assert other.is_open


def test_commands_of_a_gap_that_is_lost_are_remembered_by_the_roster(monkeypatch) -> None:
    with Hub() as broker:
        revoked, gone, one, other = of_token(1), Client(2), Client(3), of_token(4, "other")
        for client in (revoked, gone, one, other):
            broker.register(client)
        position = missed(
            broker,
            lambda: broker.revoke("t"),
            lambda: broker.disconnect_user(2),
            lambda: broker.disconnect_client(one.id),
        )
        here, roster = broker.streams.here(), broker.log.roster
        monkeypatch.setattr(broker.log, "read", lose)
        here.delivery.lose(position)
        with monkeypatch.context() as away:
            away.setattr(type(roster), "is_revoked", unavailable)
            here.reaper.guarded_report()
            assert revoked.is_open
        here.reaper.guarded_report()

        assert [c.state for c in (revoked, gone, one)] == [State.DRAINING] * 3
        assert other.is_open


def lose(after, limit):
    raise PositionLost("trimmed")


def unavailable(self, token):
    raise LogUnavailable("away")


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_that_may_read_no_more_drops_its_queue_and_is_cut_soon(how) -> None:
    clock = FakeClock()
    with Hub(BrokerConfig(drain_timeout=3), clock=clock) as broker:
        tab = Tab(broker)
        tab.identity = Identity(1, token_id="t", expires_at=clock.time() + 60)
        tab.connect().read_on()
        cut = []
        tab.reader.client.abort = lambda: cut.append(1)
        for n in range(100):
            broker.broadcast("e", str(n))
        here = broker.streams.here()
        if how == "revoked":
            broker.revoke("t")
        else:
            clock.advance(61)
            here.reaper.sweep(clock.monotonic(), clock.time())
        before = tab.last_event_id
        broker.broadcast("e", "after")
        tab.read_on()

        assert tab.data == []
        assert tab.events[-1].data == f'{{"reason":"{how}"}}'
        assert tab.last_event_id == before  # so that nothing is lost if it comes back
        here.reaper.sweep(clock.monotonic(), clock.time())
        clock.advance(3.1)
        here.reaper.sweep(clock.monotonic(), clock.time())
        assert cut
        assert broker.get_stats().total_clients == 0


def test_frames_that_were_read_and_not_written_are_dropped_with_the_queue() -> None:
    with Hub() as broker:
        tab = Tab(broker)
        tab.identity = Identity(1, token_id="t")
        tab.connect().read_on()
        for _ in range(40):
            broker.broadcast("e", "x" * 10_000)
        tab.step()  # one chunk is written, the others wait in the reader
        written = len(tab.data)
        broker.revoke("t")
        before = tab.last_event_id
        tab.read_on()

        assert len(tab.data) == written < 40
        assert tab.events[-1].event == "close"
        assert tab.last_event_id == before


def test_a_disconnected_user_gets_what_waits_and_is_cut_soon() -> None:
    clock = FakeClock()
    with Hub(BrokerConfig(drain_timeout=3), clock=clock) as broker:
        slow = Client(1, clock=clock)
        broker.register(slow)
        tab = Tab(broker).connect().read_on()
        broker.send_to_user(1, "e", "goodbye")
        broker.disconnect_user(1)
        tab.read_on()

        assert tab.data == ["goodbye"]
        here = broker.streams.here()
        here.reaper.sweep(clock.monotonic(), clock.time())
        clock.advance(3.1)
        here.reaper.sweep(clock.monotonic(), clock.time())
        assert slow.state is State.CLOSED
