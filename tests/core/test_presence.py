"""Who is online, in one process and over several that share a log; commands to all of them."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from sse_broker import (
    AuthenticationFailed,
    BrokerConfig,
    Identity,
    InvalidMessage,
    InvalidUserID,
    LogUnavailable,
)
from sse_broker.core.presence import REPORT_EVERY
from sse_broker.core.roster import MemoryRoster
from sse_broker.signals import user_offline, user_online
from sse_broker.testing import FakeClock
from tests.core.streams import Hub, Tab


class Said:
    """What the signals of some brokers said."""

    def __init__(self, *brokers: Hub) -> None:
        self.heard: list[str] = []
        for broker in brokers:
            user_online.connect(self._came, sender=broker)
            user_offline.connect(self._left, sender=broker)

    def _came(self, sender, user_id: str) -> None:
        self.heard.append(f"+{user_id}")

    def _left(self, sender, user_id: str) -> None:
        self.heard.append(f"-{user_id}")


@contextlib.contextmanager
def hubs(url: str, count: int, **settings: float):
    """Brokers that share a log and a clock; reports are made by hand."""
    clock = FakeClock()
    config = BrokerConfig(**settings)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(Hub(config, log=url, clock=clock)) for _ in range(count)]
        for broker in made:
            broker.streams.here().reaper.stop()
        yield clock, made


def report(*brokers: Hub) -> None:
    for broker in brokers:
        broker.streams.here().presence.report(broker.streams.clock.monotonic())


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_first_stream_makes_a_user_online_and_the_grace_after_the_last_offline(
    kind: str, url: str
) -> None:
    with hubs(url if kind == "sqlite" else "memory://", 1) as (clock, [broker]):
        said = Said(broker)
        tabs = [Tab(broker, user=7).connect() for _ in range(3)]
        report(broker)
        tabs[0].leave()
        report(broker)
        assert broker.is_user_online(7)
        for tab in tabs[1:]:
            tab.leave()
        report(broker)
        assert not broker.is_user_online(7)
        assert said.heard == ["+7"]

        clock.advance(9)
        report(broker)
        assert said.heard == ["+7"]
        clock.advance(2)
        report(broker)
        assert said.heard == ["+7", "-7"]


def test_coming_back_within_the_grace_says_nothing(url: str) -> None:
    with hubs(url, 1) as (clock, [broker]):
        said = Said(broker)
        for _ in range(5):
            tab = Tab(broker, user=7).connect()
            report(broker)
            tab.leave()
            report(broker)
            clock.advance(5)
        report(broker)

        assert said.heard == ["+7"]


def test_a_user_is_online_in_all_processes(url: str) -> None:
    with hubs(url, 2) as (_, [one, two]):
        tab = Tab(one, user=7).connect()
        Tab(two, user=8).connect()
        report(one, two)

        assert one.is_user_online(8)
        assert two.is_user_online(7)
        assert one.get_online_users() == two.get_online_users() == ["7", "8"]
        report(one)
        stats = two.get_stats()
        assert (stats.processes, stats.cluster_clients, stats.cluster_users) == (2, 2, 2)
        assert stats.total_clients == 1
        tab.leave()
        assert not one.is_user_online(7)
        report(one)
        assert not two.is_user_online(7)


def test_moving_to_another_process_is_neither_coming_nor_going(url: str) -> None:
    with hubs(url, 2) as (clock, [one, two]):
        said = Said(one, two)
        tab = Tab(one, user=7).connect()
        report(one, two)
        tab.leave()
        Tab(two, user=7).connect()
        report(one, two)
        clock.advance(11)
        report(one, two)

        assert said.heard == ["+7"]


def test_a_process_that_stops_leaves_its_users_away_for_the_grace(url: str) -> None:
    with hubs(url, 2) as (clock, [one, two]):
        said = Said(one, two)
        for user in (7, 8):
            Tab(one, user=user).connect()
        report(one, two)
        one.stop(timeout=0)
        Tab(two, user=7).connect()
        report(two)
        assert not two.is_user_online(8)

        for _ in range(2):
            clock.advance(5.5)
            report(two)
        assert said.heard == ["+7", "+8", "-8"]


def test_the_users_of_a_process_that_died_are_gone_within_its_lifetime(url: str) -> None:
    with hubs(url, 2) as (clock, [one, two]):
        said = Said(two)
        Tab(one, user=7).connect()
        report(one, two)

        for _ in range(3):  # process one says no more
            clock.advance(REPORT_EVERY)
            report(two)
        assert two.is_user_online(7)
        clock.advance(1)
        assert not two.is_user_online(7)
        clock.advance(REPORT_EVERY)
        report(two)
        assert said.heard == ["-7"]
        # it was only asleep: what it reports next is all it has
        clock.advance(REPORT_EVERY)
        report(one)
        report(one)
        assert two.is_user_online(7)


def test_who_only_publishes_sees_who_is_online_and_is_no_process(url: str) -> None:
    with hubs(url, 1) as (clock, [broker]):
        Tab(broker, user=7).connect()
        report(broker)
        script = Hub(log=url, clock=clock)

        assert script.is_user_online(7)
        assert script.get_online_users() == ["7"]
        stats = script.get_stats()
        assert (stats.processes, stats.cluster_clients, stats.is_running) == (1, 1, False)


def test_a_log_that_is_away_loses_no_report(url: str, monkeypatch) -> None:
    with hubs(url, 2) as (clock, [one, two]):
        roster = type(one.log.roster)
        sync = roster.sync

        def refuse(*args):
            raise LogUnavailable

        Tab(one, user=7).connect()
        report(one)
        monkeypatch.setattr(roster, "sync", refuse)
        Tab(one, user=8).connect()
        with pytest.raises(LogUnavailable):
            report(one)
        monkeypatch.setattr(roster, "sync", sync)
        clock.advance(REPORT_EVERY)
        report(one)

        assert two.get_online_users() == ["7", "8"]


def test_who_left_while_the_log_was_away_is_gone_when_it_is_back(url: str, monkeypatch) -> None:
    with hubs(url, 1) as (clock, [broker]):
        said = Said(broker)
        tab = Tab(broker, user=7).connect()
        report(broker)
        tab.leave()
        report(broker)
        clock.advance(11)
        roster = type(broker.log.roster)
        with monkeypatch.context() as away:
            away.setattr(roster, "sync", lambda *_: (_ for _ in ()).throw(LogUnavailable()))
            with pytest.raises(LogUnavailable):
                report(broker)
        clock.advance(REPORT_EVERY)
        report(broker)

        assert said.heard == ["+7", "-7"]


def test_the_reaper_reports_soon_after_a_user_came(url: str) -> None:
    with Hub(log=url) as one, Hub(log=url) as two:
        reported = threading.Event()
        user_online.connect(lambda sender, **_: reported.set(), sender=one, weak=False)
        Tab(one, user=7).connect()

        assert reported.wait(5)
        assert two.is_user_online(7)


def reasons(tab: Tab) -> list[str]:
    for _ in range(100):
        if not tab.reader.client.is_open:
            break
        tab.step(0.1)
    tab.read_on()
    return [event.data for event in tab.events if event.event == "close"]


def test_disconnecting_a_user_ends_streams_in_every_process_after_what_was_sent(url: str) -> None:
    with hubs(url, 2) as (_, [one, two]):
        tabs = [Tab(broker, user=7).connect() for broker in (one, one, two)]
        other = Tab(two, user=8).connect().read_on()
        one.send_to_user(7, "e", "last words")
        two.disconnect_user(7, "logout")

        for tab in tabs:
            assert reasons(tab) == ['{"reason":"logout"}']
            assert tab.data == ["last words"]
        assert other.read_on().reader.client.is_open


def test_disconnecting_one_client_leaves_the_others(url: str) -> None:
    with hubs(url, 2) as (_, [one, two]):
        tabs = [Tab(one, user=7).connect() for _ in range(2)]
        two.disconnect_client(tabs[0].reader.client.id)

        assert reasons(tabs[0]) == ['{"reason":"disconnected"}']
        assert tabs[1].reader.client.is_open


def test_a_revoked_token_ends_its_streams_and_is_refused_until_it_expires(url: str) -> None:
    with hubs(url, 2) as (clock, [one, two]):
        tab = Tab(one)
        tab.identity = Identity(7, token_id="t1")
        tab.connect()
        other = Tab(one, user=7).connect()
        two.revoke("t1", expires_at=clock.time() + 60)

        assert reasons(tab) == ['{"reason":"revoked"}']
        assert other.reader.client.is_open
        for broker in (one, two):
            with pytest.raises(AuthenticationFailed):
                broker.streams.check_token(tab.identity)
        clock.advance(61)
        one.streams.check_token(tab.identity)


def test_a_stream_that_opens_while_its_token_is_revoked_ends(url: str, monkeypatch) -> None:
    """Gate: revoked after the request was checked and the command has come by already."""
    with hubs(url, 1) as (_, [broker]):
        broker.revoke("t1")
        tab = Tab(broker)
        tab.identity = Identity(7, token_id="t1")

        assert reasons(tab.connect()) == ['{"reason":"revoked"}']


def test_commands_are_never_replayed_to_clients(url: str) -> None:
    with hubs(url, 1) as (_, [broker]):
        tab = Tab(broker, user=7).connect().read_on().leave()
        witness = Tab(broker, user=8).connect().read_on()
        broker.disconnect_user(7)
        broker.send_to_user(7, "e", "after")
        broker.send_to_user(8, "e", "the command was heard before this")
        while not witness.data:
            assert witness.step(10)

        assert tab.connect().read_on().data == ["after"]
        assert tab.count("close") == 0


def test_a_command_that_says_nothing_sensible_is_refused(url: str) -> None:
    broker = Hub(log=url)
    for call, error in [
        (lambda: broker.disconnect_user(""), InvalidUserID),
        (lambda: broker.disconnect_user(7, "a\nb"), InvalidMessage),
        (lambda: broker.disconnect_client(""), InvalidMessage),
        (lambda: broker.revoke("x" * 300), InvalidMessage),
    ]:
        with pytest.raises(error):
            call()
    assert broker.log.tail() == 0


def test_the_memory_roster_counts_as_it_would_by_looking_at_all() -> None:
    chance, clock = random.Random(1), FakeClock()
    roster = MemoryRoster(clock)
    for _ in range(500):
        users = {
            str(chance.randrange(6)): chance.choice([True, False, None])
            for _ in range(chance.randrange(3))
        }
        process = chance.choice("abc")
        census = roster.sync(process, chance.randrange(5), users, ttl=10)
        assert census.census.users == len(roster.online())
        clock.advance(chance.choice([0, 0, 1, 6, 15]))
        assert roster.census().users == len(roster.online())
