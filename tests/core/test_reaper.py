"""Heartbeats, timeouts, expiry and ages, on a clock that stands still."""

from __future__ import annotations

import logging
import threading

import pytest

from sse_broker import BrokerConfig, Client, Identity, Message, Target
from sse_broker.core.client import State
from sse_broker.core.ports import Record
from sse_broker.core.reaper import Reaper
from sse_broker.testing import FakeClock


class Bench:
    def __init__(self, **settings: object) -> None:
        self.clock = FakeClock()
        self.clients: list[Client] = []
        self.forgotten: list[tuple[Client, str]] = []
        self.delivered, self.size = 7, 0
        self.reaper = Reaper(
            BrokerConfig(**settings),
            self.clock,
            lambda: tuple(self.clients),
            lambda: (self.delivered, self.size),
            lambda client, reason: self.forgotten.append((client, reason)),
        )

    def client(self, who: object = 1, **options: object) -> Client:
        client = Client(who, clock=self.clock, **options)
        self.clients.append(client)
        return client

    def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.reaper.sweep(self.clock.monotonic(), self.clock.time())


def test_a_quiet_client_gets_a_heartbeat_and_a_busy_one_none() -> None:
    bench = Bench(max_stream_age=0)
    quiet, busy = bench.client(), bench.client()

    bench.after(29)
    assert quiet.take(0).beat is None
    busy.last_seen = bench.clock.monotonic()
    bench.after(1)

    assert quiet.take(0).beat == 7
    assert busy.take(0).beat is None


def test_heartbeats_are_spread() -> None:
    bench = Bench()
    early, late = bench.client(spread=0.75), bench.client(spread=1.0)

    bench.after(23)

    assert early.take(0).beat == 7
    assert late.take(0).beat is None


def test_a_stuck_client_is_cut_and_its_thread_freed() -> None:
    bench, freed = Bench(max_stream_age=0), []
    stuck = bench.client()
    stuck.abort = lambda: freed.append(True)

    bench.after(300)
    assert not freed
    bench.after(1)

    assert freed == [True]
    assert stuck.state is State.CLOSED
    assert bench.forgotten == [(stuck, "timeout")]


def test_a_stream_ends_when_its_token_does() -> None:
    bench = Bench()
    client = bench.client(Identity(1, expires_at=bench.clock.time() + 10))

    bench.after(9)
    assert client.is_open
    bench.after(1)

    assert client.state is State.DRAINING
    assert client.reason == "expired"


@pytest.mark.parametrize(("spread", "age"), [(0.75, 480), (1.0, 600)])
def test_a_stream_ends_at_its_age_spread_by_a_fifth(spread: float, age: float) -> None:
    bench = Bench()
    client = bench.client(spread=spread)

    for due in (age - 1, 1):
        assert client.is_open
        client.last_seen = bench.clock.monotonic() + due
        bench.after(due)

    assert client.reason == "max_age"


def test_age_zero_is_never() -> None:
    bench = Bench(max_stream_age=0)
    client = bench.client()
    client.last_seen += 1e6

    bench.after(1e6)

    assert client.is_open


def test_a_sweep_that_raises_is_logged_once_a_minute_and_the_next_one_works(caplog) -> None:
    bench = Bench()
    client = bench.client()
    client.spread = None  # type: ignore[assignment]

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            bench.clock.advance(1)
            bench.reaper.guarded_sweep()
        assert len(caplog.records) == 1
        bench.clock.advance(60)
        bench.reaper.guarded_sweep()
        assert len(caplog.records) == 2
    stale = bench.reaper.last_tick
    client.spread = 1.0
    bench.reaper.guarded_sweep()

    assert bench.reaper.last_tick > stale
    assert client.take(0).beat == 7


def test_health_is_a_living_thread_with_a_recent_sweep() -> None:
    bench = Bench()
    assert not bench.reaper.is_healthy

    bench.reaper.start()
    try:
        assert bench.reaper.is_healthy
        bench.reaper._stop.set()  # so that only the clock moves from here on
        bench.reaper._thread.join()
        assert not bench.reaper.is_healthy
    finally:
        bench.reaper.stop()
    assert not bench.reaper.is_healthy


def test_a_stream_that_was_told_to_end_has_the_timeout_for_it_however_much_it_takes() -> None:
    bench, freed = Bench(), []
    client = bench.client()
    client.abort = lambda: freed.append(True)
    client.close("revoked")
    for _ in range(10):
        client.last_seen = bench.clock.monotonic() + 30  # it takes a little now and then
        bench.after(30)
        assert not freed

    client.last_seen = bench.clock.monotonic() + 31
    bench.after(31)

    assert freed == [True]
    assert bench.forgotten == [(client, "timeout")]
    assert client.reason == "revoked"


def test_a_client_that_takes_nothing_keeps_a_megabyte_at_most() -> None:
    bench = Bench()
    stuck, slow = bench.client(), bench.client()
    for client in (stuck, slow):
        for n in range(5):
            client.offer(Record(n, f"e-{n}", Message(Target.BROADCAST, "x" * 250_000)))

    slow.last_seen += 1
    bench.after(5)

    assert stuck.state is State.BEHIND
    assert stuck.queue.empty()
    assert slow.queue.qsize() == 5


def test_a_quiet_client_is_told_its_place_when_others_have_got_much() -> None:
    bench = Bench()
    quiet, busy = bench.client(), bench.client()
    bench.size = 3 * 1024 * 1024
    bench.after(1)
    assert quiet.take(0).beat is None

    bench.size = 5 * 1024 * 1024
    busy.last_seen = bench.clock.monotonic() + 1
    bench.after(1)
    assert quiet.take(0).beat == 7
    assert busy.take(0).beat is None
    bench.after(1)
    assert quiet.take(0).beat is None


def test_a_close_tells_the_place_up_to_which_everything_was_delivered() -> None:
    bench = Bench(max_stream_age=60)
    client = bench.client()

    bench.after(61)

    assert client.take(0).beat == 7


def test_no_sweep_waits_for_a_report(monkeypatch) -> None:
    """Gate: a report stands still, as behind a locked file, until many sweeps are done."""
    monkeypatch.setattr("sse_broker.core.reaper.TICK", 0.01)
    inside, go, swept = threading.Event(), threading.Event(), threading.Event()
    sweeps: list[int] = []

    def report(now: float) -> None:
        inside.set()
        assert go.wait(10)

    def tick() -> None:
        if inside.is_set():
            sweeps.append(1)
        if len(sweeps) >= 5:
            swept.set()

    reaper = Reaper(
        BrokerConfig(),
        FakeClock(),
        tuple,
        lambda: (0, 0),
        lambda client, reason: None,
        tick,
        report,
        reports_apart=True,
    )
    reaper.start()
    try:
        assert inside.wait(10)
        assert swept.wait(10)
    finally:
        go.set()
        reaper.stop()
