"""Sinks that are written to together, turned by hand: each gets what it would get alone."""

from __future__ import annotations

import gc

import pytest

from sse_broker import Client
from sse_broker.core.client import State
from sse_broker.transport import host as host_module
from sse_broker.transport.host import Host
from sse_broker.transport.rows import Row
from sse_broker.transport.transport import Transport
from tests.transport.rig import Peer, Rig

MANY = 2 * host_module.TOGETHER


@pytest.fixture(autouse=True)
def in_the_pump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is posted to the pump, but where a test says otherwise."""
    monkeypatch.setattr(Host, "PAUSE", float("inf"))


def row(peer: Peer):
    (joined,) = peer.transport.joined
    return joined.row


def crowd(rig: Rig, count: int = MANY, **how) -> list[Peer]:
    """Open streams of one topic that are in a row already."""
    peers = [rig.open(user=n + 1, topics=["t"], chunked=n % 2 == 0, **how) for n in range(count)]
    rig.broker.send_to_topic("t", "e", "first")
    rig.turn()
    assert all(peer.transport.joined for peer in peers)
    return peers


def test_a_bodys_bytes_are_those_that_were_read(rig) -> None:
    made = rig()
    peers = crowd(made)
    made.broker.send_to_topic("t", "e", "x")
    made.turn()
    read = []
    for peer in peers:
        made.broker.disconnect_client(peer.client.id)
        made.turn()
        peer.read()
        if peer.chunked:
            assert peer.got.endswith(b"0\r\n\r\n")
            peer.got = peer.got.removesuffix(b"0\r\n\r\n")
        read.append(len(peer.plain.got) - peer.head)
    made.turn()

    assert sorted(made.ended) == sorted(read)


def test_who_comes_and_goes_meanwhile(rig) -> None:
    made = rig()
    peers = crowd(made)
    gone = peers.pop(3)
    gone.sock.close()
    made.turn()
    assert not row(peers[0])._others
    late = made.open(user=99, topics=["t"])
    made.broker.send_to_topic("t", "e", "next")
    made.turn()

    assert late.read().data == ["next"]
    assert all(peer.read().plain.data == ["first", "next"] for peer in peers)
    here = row(peers[0])
    assert len(here.plain) + len(here.chunked) == MANY
    assert not here._others


def test_records_that_never_came_are_had_from_the_log_once(rig) -> None:
    made = rig()
    peers = crowd(made)
    process = made.broker.streams.here()
    listeners, made.broker.log._here().listeners = made.broker.log._here().listeners, ()
    made.broker.send_to_topic("t", "e", "lost")
    made.broker.log._here().listeners = listeners
    process.delivery.lose(made.broker.log.tail())
    made.broker.send_to_topic("t", "e", "next")
    made.turn(8)

    for peer in peers:
        assert peer.read().plain.data == ["first", "lost", "next"]
        assert peer.client.state is State.LIVE


def test_a_busy_client_is_not_taken_for_a_quiet_one(rig, monkeypatch) -> None:
    made = rig()
    peers = crowd(made)
    now = made.pump.now() + 1000
    monkeypatch.setattr(made.pump, "now", lambda: now)
    made.broker.send_to_topic("t", "e", "x")
    made.turn()

    process = made.broker.streams.here()
    process.reaper.sweep(now, 0.0)

    assert {peer.client.last_seen for peer in peers} == {now}
    assert all(peer.transport.joined for peer in peers)  # no heartbeat was asked for


def test_a_few_are_written_to_by_the_one_who_sends(rig, monkeypatch) -> None:
    made = rig()
    peers = crowd(made)
    monkeypatch.setattr(Host, "PAUSE", -1.0)

    made.broker.send_to_topic("t", "e", "here and now")
    assert all(b"here and now" in peer.sock.recv(1000) for peer in peers)

    with made.pump.lock:  # the pump is at something
        made.broker.send_to_topic("t", "e", "later")
        made.broker.send_to_topic("t", "e", "after that")
    monkeypatch.setattr(Host, "FEW", 0)
    made.turn()
    made.broker.send_to_topic("t", "e", "to too many")
    assert made.pump._todo
    for peer in peers:
        assert peer.read().plain.data[-2:] == ["after that", "to too many"] or peer.chunked


def test_who_is_forgotten_is_counted_with_all_that_was_written(rig) -> None:
    made = rig()
    peers = crowd(made)
    for _ in range(5):
        made.broker.send_to_topic("t", "e", "x")
        made.turn()
    for peer in peers:
        made.broker.unregister(peer.client)

    assert made.broker.streams.counts().messages_sent == 6 * MANY


def test_those_who_have_gone_are_let_go(rig) -> None:
    made = rig()
    peers = crowd(made)
    ids = {peer.client.id for peer in peers}
    for peer in peers[2:]:
        made.broker.disconnect_client(peer.client.id)
        made.turn()
        made.broker.unregister(peer.read().client)  # what the worker does at a stream's end
    made.broker.send_to_topic("t", "e", "to few")
    made.turn()
    assert all(peer.read().plain.data == ["first", "to few"] for peer in peers[:2])
    made.ended.clear()
    del peer, peers[2:]
    gc.collect()

    kept = [one for one in gc.get_objects() if isinstance(one, Client | Transport)]
    assert len([one for one in kept if isinstance(one, Client) and one.id in ids]) == 2
    assert len([one for one in kept if isinstance(one, Transport) and one.client.id in ids]) == 2


def test_a_client_that_is_registered_twice_gets_each_message_once(rig) -> None:
    made = rig()
    crowd(made)
    client = Client(500, topics=["t"])
    for text in "xy":
        made.broker.register(client)
        made.broker.send_to_topic("t", "e", text)
        made.turn()

    assert [record.message.data for record in client.queue.queue] == ["x", "y"]


def test_trouble_at_one_whose_socket_is_full_is_not_the_others(rig, monkeypatch) -> None:
    made = rig()
    peers = crowd(made, MANY - 2)
    slow = [made.open(user=200 + n, topics=["t"], small=True) for n in range(2)]
    made.broker.send_to_topic("t", "e", "x")
    made.turn()
    keep, fails = made.pump._keep_rest, [True]

    def failing(*arguments):
        if fails:
            fails.pop()
            raise RuntimeError("can't start new thread")
        return keep(*arguments)

    monkeypatch.setattr(made.pump, "_keep_rest", failing)
    made.broker.send_to_topic("t", "e", 50_000 * "y")
    made.broker.send_to_topic("t", "e", "z")
    made.turn()

    (well,) = [peer for peer in slow if not peer.read().closed]
    assert well.data == ["x", 50_000 * "y", "z"]
    assert all(peer.read().plain.data == ["first", "x", 50_000 * "y", "z"] for peer in peers)


@pytest.mark.parametrize("where", ["gather", "write"])
def test_what_could_not_be_handed_out_is_had_from_the_log(rig, monkeypatch, where) -> None:
    made = rig()
    peers = crowd(made)
    late = [made.open(user=100 + n, topics=["t"]) for n in range(3)]
    calls = []

    def fail_at_second(target, name):
        real = getattr(target, name)

        def failing(*arguments):
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError
            return real(*arguments)

        monkeypatch.setattr(target, name, failing)

    if where == "gather":
        fail_at_second(Row, "_take_in_or_offer")
    else:
        fail_at_second(host_module, "send")
    made.broker.send_to_topic("t", "e", "hard")
    made.turn(8)
    made.broker.send_to_topic("t", "e", "next")
    made.turn(8)

    for peer in [*peers, *late]:
        first = ["first"] if peer in peers else []
        got = peer.read().plain.data
        if where == "write" and peer.closed:  # its connection is cut; it comes back with its id
            assert got == [*first, "hard"][: len(got)]
        else:
            assert got == [*first, "hard", "next"]
    assert where == "write" or not any(peer.closed for peer in [*peers, *late])
