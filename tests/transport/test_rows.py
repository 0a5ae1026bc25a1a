"""Sinks that are written to together, turned by hand: each gets what it would get alone."""

from __future__ import annotations

import gc
import random

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


def test_all_get_everything_in_either_framing_and_their_share_of_the_counts(rig) -> None:
    made = rig()
    peers = crowd(made)
    before = made.broker.streams.counts().messages_sent

    for n in range(3):
        made.broker.send_to_topic("t", "e", str(n))
        made.turn()
    made.broker.send_to_user(1, "e", "alone")
    made.turn()

    assert made.broker.streams.counts().messages_sent == before + 3 * MANY + 1
    assert peers[0].read().plain.data == ["first", "0", "1", "2", "alone"]
    for peer in peers[1:]:
        assert peer.read().plain.data == ["first", "0", "1", "2"]
        assert peer.client.sent == 4
        assert not peer.client.queue.queue
    made.pump.settle([peer.client for peer in peers])
    assert len({peer.transport.written for peer in peers[1::2]}) == 1


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


def test_one_that_is_stuck_leaves_and_comes_back_and_nobody_else_notices(rig) -> None:
    made = rig(client_buffer_size=10_000)
    peers = crowd(made, MANY - 1)
    slow = made.open(user=MANY, topics=["t"], small=True)
    sent = ["first"]
    for n in range(60):
        sent.append(f"{n} " + 1000 * "x")
        made.broker.send_to_topic("t", "e", sent[-1])
        made.turn(1)
        for peer in peers:
            peer.read()
    assert slow.transport.rest is not None
    assert not slow.transport.joined

    assert slow.read().data == sent[1:]
    for peer in peers:
        assert peer.plain.data == sent
    made.broker.send_to_topic("t", "e", "after")
    made.turn()
    assert slow.transport.joined
    assert slow.read().data == [*sent[1:], "after"]


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


def test_who_is_told_to_end_gets_nothing_that_was_sent_after(rig) -> None:
    made = rig()
    peers = crowd(made)
    made.broker.send_to_topic("t", "e", "before")
    made.broker.disconnect_user(1, "enough")
    made.broker.send_to_topic("t", "e", "after")
    made.turn()

    assert peers[0].read().plain.data == ["first", "before"]
    assert peers[0].client.reason == "enough"
    assert peers[1].read().plain.data == ["first", "before", "after"]


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


def test_a_heartbeat_does_not_take_anybody_out_for_good(rig) -> None:
    made = rig()
    peers = crowd(made)
    peers[0].client.beat(peers[0].transport.reader.cursor)
    made.turn()
    assert b": heartbeat" in peers[0].read().got or b"event: heartbeat" in peers[0].got
    made.broker.send_to_topic("t", "e", "next")
    made.turn()

    assert peers[0].transport.joined
    assert peers[0].read().plain.data == ["first", "next"]


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


class Traffic:
    """Peers that come, go, read and get messages by chance, and what is due to each."""

    def __init__(self, made: Rig, chance: random.Random) -> None:
        self.rig, self.broker, self.chance = made, made.broker, chance
        self.peers: list[Peer] = []
        self.due: dict[str, list[str]] = {}
        self.said = 0

    def come(self) -> None:
        self.rig.turn()  # what is on its way comes to newcomers too
        topics = self.chance.sample(["t", "u", "v"], self.chance.randint(1, 3))
        how = {"chunked": self.chance.random() < 0.5, "small": self.chance.random() < 0.2}
        self.peers.append(self.rig.open(user=len(self.due) + 1, topics=topics, **how))
        self.due[self.peers[-1].client.user_id] = []

    def go(self) -> None:
        peer = self.peers.pop(self.chance.randrange(len(self.peers)))
        self.broker.disconnect_user(peer.client.user_id)
        got = peer.read().plain.data
        # One that is behind does not read the log any more: it is told to come back.
        assert got == self.due[peer.client.user_id][: len(got)]

    def read(self) -> None:
        for peer in self.chance.sample(self.peers, 5):
            peer.read()

    def beat(self) -> None:
        self.chance.choice(self.peers).client.beat(self.broker.streams.here().delivery.delivered)

    def turn(self) -> None:
        self.rig.turn(1)

    def to_one(self) -> None:
        peer = self.chance.choice(self.peers)
        self.broker.send_to_user(peer.client.user_id, "e", self.text([peer]))

    def to_topic(self) -> None:
        topic = self.chance.choice(["t", "u", "v"])
        whom = [peer for peer in self.peers if topic in peer.client.topics]
        self.broker.send_to_topic(topic, "e", self.text(whom))

    def to_all(self) -> None:
        self.broker.broadcast("e", self.text(self.peers))

    def text(self, whom: list[Peer]) -> str:
        self.said += 1
        text = f"{self.said} " + self.chance.choice([10, 3000]) * "x"
        for peer in whom:
            self.due[peer.client.user_id].append(text)
        return text


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_each_gets_what_is_for_it_in_order(rig, seed, monkeypatch) -> None:
    chance = random.Random(seed)
    if seed % 2:
        monkeypatch.setattr(Host, "PAUSE", -1.0)
    traffic = Traffic(rig(client_buffer_size=chance.choice([4, 10_000])), chance)
    weights = {"come": 8, "go": 4, "read": 8, "beat": 5, "turn": 10, "to_one": 10}
    weights |= {"to_topic": 40, "to_all": 15}
    for act in chance.choices(list(weights), list(weights.values()), k=400):
        getattr(traffic, act if len(traffic.peers) >= MANY else "come")()

    for peer in traffic.peers:
        assert peer.read().plain.data == traffic.due[peer.client.user_id]
