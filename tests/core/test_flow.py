"""A sender and streams that are behind it, in a world that moves when the sender pauses."""

from __future__ import annotations

import threading

import pytest

from sse_broker import BrokerConfig, Client
from sse_broker.core import flow as flow_module
from sse_broker.core.flow import Flow, kept_bytes
from sse_broker.core.ports import LogLimits
from sse_broker.errors import QueueFull
from sse_broker.testing import FakeClock
from sse_broker.transport import hosts
from tests.core.streams import Hub, Tab

KIB, MIB = 1024, 1024 * 1024


class Stream:
    """What a flow sees of a client."""

    def __init__(self, name: str, pace: float = 0.0) -> None:
        self.id, self.pace, self.at = name, pace, 0
        self.waits_from: int | None = 0


class World:
    """Positions are bytes: what is sent takes a position for each KiB."""

    def __init__(self, *streams: Stream, patience: float = 10.0) -> None:
        self.streams, self.clock = streams, FakeClock()
        self.delivered: int | None = None  # by default all that was sent
        self.sent = self.pauses = 0
        self.flow = Flow(
            LogLimits(),
            patience,
            lambda: self.streams,
            lambda: self.sent if self.delivered is None else self.delivered,
            lambda: True,
            self.clock.monotonic,
        )
        self.flow._overhead = 0
        self.flow._pause = self.pause

    def pause(self) -> None:
        self.pauses += 1
        self.clock.advance(flow_module.STEP)
        for one in self.streams:
            one.at = min(self.sent, one.at + one.pace * flow_module.STEP / KIB)
            one.waits_from = int(one.at) if one.at < self.sent else None

    def send(self, size: int = 64 * KIB) -> None:
        self.flow.wait()
        self.sent += size // KIB
        self.flow.sent(self.sent, size)
        for one in self.streams:
            one.waits_from = int(one.at)

    def behind(self) -> float:
        return max(self.sent - one.at for one in self.streams) * KIB


def test_a_sender_never_gets_further_ahead_of_a_reader_than_the_log_keeps() -> None:
    world = World(Stream("reads", pace=5 * MIB))
    most = 0.0
    for _ in range(2_000):
        world.send()
        most = max(most, world.behind())

    assert world.pauses
    assert most < LogLimits().resume_bytes * 0.75


def test_a_stuck_reader_is_waited_for_once_and_a_dripping_one_as_little() -> None:
    stuck, drips = Stream("stuck"), Stream("drips", pace=10 * KIB)
    world = World(stuck, drips, Stream("reads", pace=50 * MIB))
    for _ in range(4_000):
        world.send()

    watched = world.flow._watched
    assert watched["stuck"].given_up
    assert watched["drips"].given_up
    ahead = 4_000 * 64 * KIB / (50 * MIB)  # seconds that the one which reads takes
    assert world.pauses * flow_module.STEP < ahead + 2 * flow_module.WINDOW


def test_a_reader_that_was_given_up_and_has_caught_up_is_waited_for_again() -> None:
    one = Stream("one")
    world = World(one)
    while not any(watched.given_up for watched in world.flow._watched.values()):
        world.send()
    one.pace, one.at = 50 * MIB, world.sent
    for _ in range(1_000):
        world.send()

    assert world.behind() < LogLimits().resume_bytes * 0.75


def test_a_delivery_that_stands_still_is_a_clear_error_after_the_time_for_it() -> None:
    world = World(patience=2.0)
    world.delivered = 0
    with pytest.raises(QueueFull, match="on their way to the streams of this process"):
        while True:
            world.send()

    assert world.sent * KIB < LogLimits().resume_bytes
    assert world.pauses == pytest.approx(2.0 / flow_module.STEP, abs=2)


def test_a_sender_with_no_patience_never_waits() -> None:
    world = World(Stream("stuck"), patience=0.0)
    world.delivered = 0
    for _ in range(1_000):
        world.send()

    assert not world.pauses


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (LogLimits(), (16 * MIB, 512)),
        (LogLimits(resume_window=0), (0, 0)),
        (LogLimits(resume_window=0, history_size=100, history_bytes=MIB), (MIB, MIB // 100)),
        (LogLimits(resume_window=0, history_size=10, history_bytes=0), (64 * MIB, 64 * MIB // 10)),
    ],
)
def test_what_a_log_keeps_for_sure_is_read_off_its_limits(limits, kept) -> None:
    assert kept_bytes(limits) == kept


def test_a_client_says_from_where_on_something_waits_for_it() -> None:
    with Hub(BrokerConfig(client_buffer_size=2)) as broker:
        tab = Tab(broker).connect().read_on()
        client = tab.reader.client
        assert client.waits_from is None
        broker.broadcast("e", "1")
        first = broker.log.tail()
        assert client.waits_from == first - 1
        for n in range(5):
            broker.broadcast("e", str(n))
        assert client.waits_from == first - 1
        tab.step()  # the queue, after which it goes on from the log
        assert client.waits_from == first + 1
        tab.read_on()
        assert client.waits_from is None


class Stalled(hosts.Threads):
    """A host that never takes its turn."""

    def hand_out(self, act, clients) -> None:
        pass


def test_a_broker_slows_its_senders_and_says_how_many_wait(monkeypatch) -> None:
    monkeypatch.setitem(hosts._hosts, __import__("os").getpid(), Stalled())
    with Hub(BrokerConfig(send_timeout=300)) as broker:
        broker.register(Client(1))
        flow, seen, failed = broker.streams.here().flow, threading.Event(), []

        def send() -> None:
            try:
                for _ in range(200):
                    broker.broadcast("e", "x" * 100_000)
            except QueueFull as err:
                failed.append(err)

        pause = flow._pause
        monkeypatch.setattr(flow, "_pause", lambda: (seen.set(), pause()))
        sender = threading.Thread(target=send)
        sender.start()
        assert seen.wait(10)
        assert broker.inspect().senders_waiting == 1
        assert broker.inspect().waiting_bytes < LogLimits().resume_bytes * 0.75
        monkeypatch.setattr(flow, "_patience", 0.0)
        sender.join(10)

        assert failed
        assert broker.inspect().senders_waiting == 0
