"""The pump, turned by hand: what a stream's peer reads, whatever its socket takes."""

from __future__ import annotations

import re
import socket
import sys
import threading

import pytest

from sse_broker import Identity, Message, Target
from sse_broker.core.client import State
from sse_broker.core.ports import Record
from sse_broker.transport import host as host_module
from sse_broker.transport import pump as pump_module
from sse_broker.transport import sockets
from sse_broker.transport.host import Host
from tests.transport.rig import Peer


@pytest.mark.parametrize("send", ["c", "python"])
def test_an_idle_transport_is_written_to_at_once_and_its_queue_stays_empty(
    rig, monkeypatch, send
) -> None:
    if send == "python":
        for module in (host_module, pump_module):
            monkeypatch.setattr(module, "send", sockets._python_send)
    rig = rig()
    peer = rig.open()
    assert peer.transport.state.name == "IDLE"

    rig.broker.broadcast("e", "1")
    rig.broker.broadcast("e", "2")

    assert peer.read().data == ["1", "2"]
    assert peer.client.sent == 2
    assert not peer.client.queue.queue


def test_what_waits_together_is_one_chunk(rig, monkeypatch) -> None:
    monkeypatch.setattr(Host, "PAUSE", float("inf"))
    rig = rig()
    peer = rig.open(chunked=True)

    for n in range(20):
        rig.broker.broadcast("e", str(n))
    peer.read()

    body = peer.got.partition(b"}\n\n")[2]
    assert re.fullmatch(rb"[0-9a-f]+\r\n(id: .*\nevent: e\ndata: \d+\n\n){20}\r\n", body)


def test_a_burst_gathers_before_it_is_written(rig, monkeypatch) -> None:
    monkeypatch.setattr(Host, "PAUSE", float("inf"))
    rig = rig()
    peer = rig.open(chunked=True)

    class Patience:
        def acquire(self, timeout: float) -> None:
            rig.broker.broadcast("e", "second")

        def release(self) -> None:
            pass

    rig.pump._patience = Patience()
    rig.broker.broadcast("e", "first")
    rig.pump.turn()

    body = peer.sock.recv(1000)
    assert body.count(b"\r\n") == 2  # one chunk
    assert body.index(b"first") < body.index(b"second")


def test_a_blocked_transport_gets_everything_in_order_once_it_reads(rig) -> None:
    rig = rig(client_buffer_size=8, history_size=10_000, history_bytes=0)
    slow, quick = rig.open(small=True), rig.open(user=2)
    pad = "x" * 500

    for n in range(300):
        rig.broker.broadcast("e", f"{n} {pad}")
        quick.read()

    assert len(quick.data) == 300
    assert slow.client.state is State.BEHIND  # 8 frames wait, the rest is in the log
    assert len(slow.client.queue.queue) <= 8
    slow.read()
    assert [one.split()[0] for one in slow.data] == [str(n) for n in range(300)]
    assert slow.transport.state.name == "IDLE"


def test_what_comes_between_registering_and_the_hand_off_is_not_lost(rig) -> None:
    rig = rig()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader = rig.broker.streams.open(Identity(1))
    first = reader.next(0)
    rig.broker.broadcast("e", "between")
    rig.turn()
    rig.pump.adopt(reader, ours, False, rig.ended.append)

    assert Peer(rig, theirs, reader.client, first).read().data == ["between"]


def test_records_that_are_queued_for_an_idle_transport_are_not_passed_by_later_ones(rig) -> None:
    """A replay may have read the first of a batch already; the next batch is right behind it."""
    rig = rig()
    peer = rig.open()
    assert peer.transport.state.name == "IDLE"
    records = [Record(n, f"e-{n}", Message(Target.BROADCAST, str(n))) for n in range(1, 5)]
    peer.transport.reader.cursor = 1

    rig.pump.write([peer.client], records[:3])
    rig.pump.write([peer.client], records[3:])

    assert peer.read().data == ["2", "3", "4"]
    assert peer.transport.state.name == "IDLE"


@pytest.mark.parametrize("moment", ["after reading aside", "at an event"])
def test_a_transport_that_cannot_be_served_is_ended_and_not_left_alone(
    rig, monkeypatch, moment
) -> None:
    rig = rig(history_size=10)
    first = rig.broker.broadcast("e", "0")
    rig.broker.broadcast("e", "1")
    peer = rig.open(last_event_id=first if moment == "at an event" else "")
    monkeypatch.setattr(rig.pump, "_write", _fail)
    monkeypatch.setattr(pump_module, "hear", _fail)

    if moment == "at an event":
        peer.sock.send(b"x")
    else:
        peer.client.fall_behind()
        peer.transport.reader.cursor = 0
    rig.turn()

    assert peer.client.state is State.CLOSED
    assert len(rig.ended) == 1


def _fail(*args: object) -> None:
    raise RuntimeError("on purpose")


def test_an_orderly_end_says_so_and_lets_the_peer_close_first(rig) -> None:
    rig = rig()
    peer = rig.open(chunked=True)
    rig.broker.broadcast("e", "1")
    rig.turn()

    peer.client.close("expired")
    peer.read()

    assert peer.got.endswith(b"0\r\n\r\n")
    assert peer.got.index(b"data: 1\n") < peer.got.index(b'{"reason":"expired"}')
    assert peer.closed
    assert len(rig.ended) == 1
    assert len(rig.pump._by_fd) == 1  # the socket that lingers
    peer.sock.close()
    rig.turn()
    assert not rig.pump._by_fd


def test_stopping_comes_after_what_was_sent_before(rig) -> None:
    rig = rig()
    peer = rig.open()
    rig.broker.broadcast("e", "the last word")

    stopping = threading.Thread(target=rig.broker.stop, args=(10,))
    stopping.start()
    while stopping.is_alive():
        rig.turn(1)

    assert peer.client.state is State.CLOSED
    assert peer.read().data == ["the last word"]


def test_a_cut_transport_is_not_flushed(rig) -> None:
    rig = rig()
    peer = rig.open(small=True, chunked=True)
    for n in range(100):
        rig.broker.broadcast("e", f"{n} {'x' * 500}")
    rig.turn()
    assert peer.transport.rest is not None

    peer.client.cut("timeout")
    rig.turn()

    assert not rig.pump._by_fd
    assert len(rig.ended) == 1
    assert not peer.read().got.endswith(b"0\r\n\r\n")


def test_a_peer_that_closes_is_noticed_without_a_write(rig) -> None:
    rig = rig()
    peer = rig.open()

    peer.sock.close()
    rig.turn()

    assert peer.client.state is State.CLOSED
    assert peer.client.reason == "client_gone"
    assert len(rig.ended) == 1


def test_what_a_peer_says_after_its_request_is_dropped(rig) -> None:
    rig = rig()
    peer = rig.open()

    peer.sock.send(b"GET /again HTTP/1.1\r\n\r\n" * 100)
    rig.turn()
    rig.broker.broadcast("e", "1")

    assert peer.read().data == ["1"]


def test_an_authorizer_is_asked_at_the_side_and_never_by_the_pump(rig, monkeypatch) -> None:
    rig, asked = rig(), []
    calls: list = []
    rig.side.submit = calls.append
    rig.broker.streams.access.authorizer = lambda identity, topic: (
        asked.append(topic) or topic == "a:1"
    )
    peer = rig.open(topics=["a:*"])
    asked.clear()

    rig.broker.send_to_topic("a:1", "e", "yes")
    rig.broker.send_to_topic("a:2", "e", "no")
    rig.turn()
    assert not asked
    while calls:
        calls.pop(0)()
        rig.turn()

    assert peer.read().data == ["yes"]
    assert asked == ["a:1", "a:2"]


def test_a_host_that_is_far_behind_sends_its_streams_to_the_log(rig, monkeypatch) -> None:
    from sse_broker.core import delivery

    monkeypatch.setattr(delivery, "MOST_WAITING", 50)
    rig = rig(history_size=1000)
    peer = rig.open()

    for n in range(200):  # the pump does not turn meanwhile
        rig.broker.broadcast("e", str(n))

    assert len(rig.broker.streams.here().delivery._incoming) <= 51
    assert peer.read().data == [str(n) for n in range(200)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_pump_is_reported_and_can_be_started_again(rig, monkeypatch) -> None:
    rig = rig()
    peer = rig.open()
    monkeypatch.setattr(rig.pump, "turn", lambda: sys.exit())  # no Exception, so nothing stops it
    rig.pump.start()
    rig.pump._thread.join(5)
    assert not rig.broker.health()["streams"]
    monkeypatch.undo()

    rig.pump.start()

    assert rig.broker.health()["streams"]
    rig.broker.broadcast("e", "1")
    peer.sock.settimeout(5)
    assert b"data: 1\n" in peer.sock.recv(1000)
    rig.pump.stop()


def test_a_trouble_with_one_stream_is_not_the_others(rig, monkeypatch) -> None:
    rig = rig()
    bad, good = rig.open(), rig.open(user=2)
    monkeypatch.setattr(type(bad.client.transport.reader), "next", _raise_for(bad.client))
    bad.client.beat(0)
    rig.turn()

    rig.broker.broadcast("e", "1")

    assert good.read().data == ["1"]
    assert bad.client.state is State.CLOSED


def _raise_for(client):
    from sse_broker.core.reader import Reader

    real = Reader.next

    def next_(self, timeout):
        if self.client is client:
            raise RuntimeError("on purpose")
        return real(self, timeout)

    return next_


def test_a_client_that_sends_and_sends_is_cut(rig) -> None:
    rig = rig()
    loud, other = rig.open(), rig.open(user=2)
    for _ in range(20):
        try:
            loud.sock.send(b"x" * 4096)
        except BrokenPipeError:
            break
        rig.turn(1)
    rig.broker.broadcast("e", "1")

    assert loud.client.reason == "flood"
    assert loud.read().closed
    assert other.read().data == ["1"]


def test_to_look_at_a_broker_never_waits_for_the_pump(rig) -> None:
    made = rig()
    made.open()
    done = threading.Event()

    def look() -> None:
        repr(made.broker)
        made.broker.get_stats()
        made.broker.streams.counts()
        done.set()

    with made.pump.lock:
        threading.Thread(target=look).start()
        assert done.wait(0.5)
