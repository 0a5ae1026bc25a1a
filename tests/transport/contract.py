"""What every host of streams promises; each host's test class runs all of this.

A bench drives one host by hand: nothing is written unless a test turns it or a
stream's own thread has something to say.  Tests look through ``broker.inspect()``.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from sse_broker import Broker, Identity
from sse_broker.testing import read_events
from sse_broker.transport import host as host_module
from sse_broker.transport.host import Host
from tests.core.streams import LIBRARY

MANY = 2 * host_module.TOGETHER


class Peer:
    """The far end of one stream."""

    def __init__(self, bench: Bench, sock: Any, client: Any, first: bytes, chunked: bool) -> None:
        self.bench, self.sock, self.client, self.chunked = bench, sock, client, chunked
        self.head, self.raw, self.closed = first, b"", False

    def read(self) -> Peer:
        """Read until the stream has nothing more to say."""
        idle = False
        while not self.closed:
            try:
                piece = self.sock.recv(65_536)
            except BlockingIOError:
                if idle:
                    break
                self.bench.turn()
                idle = self.bench.is_quiet(self)
                continue
            except ConnectionResetError:
                piece = b""
            idle, self.closed = False, not piece
            self.raw += piece
        return self

    @property
    def body(self) -> bytes:
        """What was read, out of its chunks."""
        if not self.chunked:
            return self.head + self.raw
        body, rest = self.head, self.raw
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:  # a connection that was cut within a frame
                return body + rest[:length]
            assert rest[length : length + 2] == b"\r\n"
            body, rest = body + rest[:length], rest[length + 2 :]
        return body

    @property
    def events(self) -> list[Any]:
        return read_events(self.body)

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events if event.event not in LIBRARY]

    @property
    def view(self) -> Any:
        """What ``broker.inspect()`` says of it."""
        streams = self.bench.broker.inspect().streams
        return next(one for one in streams if one.client_id == self.client.id)


class Bench:
    """One broker over a host that is turned by hand."""

    broker: Broker

    def open(self, user=1, *, topics=(), last_event_id="", chunked=False, small=False) -> Peer:
        """Open a stream, and turn until it has said what it begins with."""
        raise NotImplementedError

    def turn(self) -> None:
        """Have everything done that can be done."""
        raise NotImplementedError

    def is_quiet(self, peer: Peer) -> bool:
        """Whether a stream has nothing to say, or waits for its peer."""
        raise NotImplementedError

    def close(self) -> None:
        """End it all."""
        raise NotImplementedError

    def crowd(self, count: int = MANY) -> list[Peer]:
        """Open streams of one topic that have had a message, in either framing."""
        peers = [self.open(n + 1, topics=["t"], chunked=n % 2 == 0) for n in range(count)]
        self.broker.send_to_topic("t", "e", "first")
        self.turn()
        for peer in peers:
            peer.read()
        return peers


class HostContract:
    """Subclass it and say how a bench is made."""

    def make(self, **settings: Any) -> Bench:
        raise LookupError("say how the bench is made")

    @pytest.fixture
    def bench(self):
        made: list[Bench] = []

        def make(**settings: Any) -> Bench:
            made.append(self.make(**settings))
            return made[-1]

        yield make
        for one in made:
            one.close()

    @pytest.mark.parametrize("chunked", [False, True])
    def test_an_idle_stream_is_written_to_and_its_queue_stays_empty(self, bench, chunked) -> None:
        here = bench()
        peer = here.open(chunked=chunked)
        assert peer.view.transport == "idle"

        for n in range(3):
            here.broker.broadcast("e", str(n))
            here.turn()
            assert peer.view.transport == "idle"
            assert peer.view.waiting == 0

        assert peer.read().data == ["0", "1", "2"]
        here.broker.streams.here().delivery.settle([peer.client])
        assert peer.view.sent == 3

    def test_what_comes_together_leaves_together(self, bench, monkeypatch) -> None:
        here = bench()
        peer = here.open(chunked=True)
        monkeypatch.setattr(Host, "PAUSE", float("inf"))
        here.broker.broadcast("e", "before")  # under gevent the first of a turn goes at once
        for n in range(20):
            here.broker.broadcast("e", str(n))
        peer.read()

        assert peer.data == ["before", *map(str, range(20))]
        assert len(re.findall(rb"\r\n[0-9a-f]+\r\n", b"\r\n" + peer.raw)) <= 2

    def test_all_of_a_crowd_get_everything_and_their_share_of_the_counts(self, bench) -> None:
        here = bench()
        peers = here.crowd()
        before = here.broker.streams.counts().messages_sent

        for n in range(3):
            here.broker.send_to_topic("t", "e", str(n))
            here.turn()
        here.broker.send_to_user(1, "e", "alone")
        here.turn()

        for peer in peers:
            alone = ["alone"] if peer is peers[0] else []
            assert peer.read().data == ["first", "0", "1", "2", *alone]
        assert here.broker.streams.counts().messages_sent == before + 3 * MANY + 1
        assert {peer.view.transport for peer in peers} == {"idle"}

    def test_one_that_is_stuck_gets_everything_in_order_and_nobody_else_notices(self, bench):
        here = bench(client_buffer_size=10_000)
        peers = here.crowd(MANY - 1)
        slow = here.open(MANY, topics=["t"], small=True)
        sent = []
        for n in range(60):
            sent.append(f"{n} " + 1000 * "x")
            here.broker.send_to_topic("t", "e", sent[-1])
            here.turn()
            for peer in peers:
                peer.read()
        assert slow.view.transport in ("blocked", "serving")

        for peer in peers:
            assert peer.data == ["first", *sent]
        assert slow.read().data == sent
        here.broker.send_to_topic("t", "e", "after")
        assert slow.read().data == [*sent, "after"]
        assert slow.view.transport == "idle"

    def test_a_full_queue_is_gone_on_with_from_the_log(self, bench) -> None:
        here = bench(client_buffer_size=8, history_size=10_000, history_bytes=0)
        slow = here.open(small=True)
        for n in range(300):
            here.broker.broadcast("e", f"{n} {'x' * 500}")
            here.turn()
        assert slow.view.waiting <= 8

        assert [one.split()[0] for one in slow.read().data] == [str(n) for n in range(300)]
        assert slow.view.transport == "idle"

    @pytest.mark.parametrize(
        ("policy", "kept"), [("drop_oldest", "last"), ("drop_newest", "first")]
    )
    def test_what_was_dropped_is_said(self, bench, policy, kept) -> None:
        here = bench(client_buffer_size=4, overflow=policy)
        peer = here.open(small=True)
        for n in range(200):
            here.broker.broadcast("e", f"{n} {'x' * 500}")
            here.turn()
        peer.read()

        dropped = [event.data for event in peer.events if event.event == "dropped"]
        numbers = [int(one.split()[0]) for one in peer.data]
        assert numbers == sorted(numbers)
        assert len(numbers) + sum(int(re.sub(r"\D", "", one)) for one in dropped) == 200
        assert (199 in numbers) == (kept == "last")

    def test_replay_and_live_are_joined(self, bench) -> None:
        here = bench(history_size=1000)
        first = here.broker.broadcast("e", "0")
        for n in range(1, 700):
            here.broker.broadcast("e", str(n))

        peer = here.open(last_event_id=first)
        here.broker.broadcast("e", "700")

        assert peer.read().data == [str(n) for n in range(1, 701)]
        assert peer.view.transport == "idle"

    @pytest.mark.parametrize("many", [False, True])
    def test_who_is_told_to_end_gets_nothing_that_was_sent_after(self, bench, many) -> None:
        here = bench()
        peers = here.crowd(MANY if many else 2)
        here.broker.send_to_topic("t", "e", "before")
        here.broker.disconnect_user(1, "enough")
        here.broker.send_to_topic("t", "e", "after")
        here.turn()

        one, other = peers[0].read(), peers[1].read()
        assert one.data == ["first", "before"]
        assert one.events[-1].event == "close"
        assert "enough" in one.events[-1].data
        assert one.closed
        assert one.raw.endswith(b"0\r\n\r\n")
        assert other.data == ["first", "before", "after"]

    def test_who_may_read_no_more_gets_nothing_of_what_waits(self, bench) -> None:
        here = bench(client_buffer_size=10_000)
        peer = here.open(Identity(1, token_id="t"), small=True)
        for n in range(100):
            here.broker.broadcast("e", f"{n} {'x' * 500}")
            here.turn()
        taken = len(peer.data)

        here.broker.revoke("t")
        here.turn()
        peer.read()

        assert len(peer.data) - taken < 30  # what the socket had already, and the frame in it
        assert peer.events[-1].event == "close"
        assert peer.closed

    def test_a_cut_stream_is_not_flushed_and_ends_within_a_frame(self, bench) -> None:
        here = bench()
        peer = here.open(small=True, chunked=True)
        for n in range(100):
            here.broker.broadcast("e", f"{n} {'x' * 500}")
            here.turn()

        peer.client.cut("timeout")
        here.turn()

        assert peer.read().closed
        assert not peer.raw.endswith(b"0\r\n\r\n")
        assert not here.broker.inspect().streams

    def test_a_heartbeat_is_written_and_the_stream_is_idle_again(self, bench) -> None:
        here = bench()
        peers = here.crowd()
        peers[0].client.beat(here.broker.inspect().delivered)
        peers[0].read()
        here.broker.send_to_topic("t", "e", "next")

        assert [event.event for event in peers[0].read().events][-2:] == ["heartbeat", "e"]
        assert peers[0].view.transport == "idle"

    def test_who_comes_and_goes_meanwhile(self, bench) -> None:
        here = bench()
        peers = here.crowd()
        here.broker.disconnect_user(4)
        here.turn()
        peers.pop(3).read()
        late = here.open(99, topics=["t"])
        here.broker.send_to_topic("t", "e", "next")
        here.turn()

        assert late.read().data == ["next"]
        assert all(peer.read().data == ["first", "next"] for peer in peers)
        assert len(here.broker.inspect().streams) == MANY

    @pytest.mark.parametrize("many", [False, True])
    def test_an_interruption_between_a_write_and_its_note_cuts(
        self, bench, many, monkeypatch
    ) -> None:
        here = bench()
        peers = here.crowd(MANY if many else 1)
        monkeypatch.setattr(Host, "PAUSE", -1.0)
        monkeypatch.setattr(Host, "FEW", 10_000)
        send, asked = host_module.send, []

        def interrupted(*arguments: Any) -> int:
            asked.append(send(*arguments))
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(host_module, "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                here.broker.send_to_topic("t", "e", "once")
                here.turn()
        here.broker.send_to_topic("t", "e", "after")
        here.turn()

        for peer in peers:
            assert peer.read().closed
            assert peer.data in (["first"], ["first", "once"])

    def test_an_authorizer_that_raises_costs_one_record(self, bench) -> None:
        here = bench()

        def authorizer(identity: Identity, topic: str) -> bool:
            if topic == "a:2":
                raise LookupError("gone")
            return topic != "a:3"

        here.broker.streams.access.authorizer = authorizer
        asking, plain = here.open(topics=["a:*"]), here.open(2, topics=["a:1", "a:2"])
        for n in range(1, 5):
            here.broker.send_to_topic(f"a:{n}", "e", str(n))
        here.turn()

        assert asking.read().data == ["1", "4"]
        assert plain.read().data == ["1", "2"]
        assert here.broker.streams.counts().authorizer_failures == 1

    @pytest.mark.parametrize("seed", range(4))
    def test_whatever_happens_each_gets_what_is_for_it_in_order(
        self, bench, seed, monkeypatch
    ) -> None:
        chance = random.Random(seed)
        if seed % 2:
            monkeypatch.setattr(Host, "PAUSE", -1.0)
        traffic = Traffic(bench(client_buffer_size=chance.choice([4, 10_000])), chance)
        weights = {"come": 8, "go": 4, "read": 8, "beat": 5, "turn": 10, "to_one": 10}
        weights |= {"to_topic": 40, "to_all": 15}
        for act in chance.choices(list(weights), list(weights.values()), k=250):
            getattr(traffic, act if len(traffic.peers) >= MANY else "come")()

        for peer in traffic.peers:
            assert peer.read().data == traffic.due[peer.client.user_id]


class Traffic:
    """Peers that come, go, read and get messages by chance, and what is due to each."""

    def __init__(self, bench: Bench, chance: random.Random) -> None:
        self.bench, self.broker, self.chance = bench, bench.broker, chance
        self.peers: list[Peer] = []
        self.due: dict[str, list[str]] = {}
        self.said = 0

    def come(self) -> None:
        self.bench.turn()  # what is on its way comes to newcomers too
        topics = self.chance.sample(["t", "u", "v"], self.chance.randint(1, 3))
        how = {"chunked": self.chance.random() < 0.5, "small": self.chance.random() < 0.2}
        self.peers.append(self.bench.open(len(self.due) + 1, topics=topics, **how))
        self.due[self.peers[-1].client.user_id] = []

    def go(self) -> None:
        peer = self.peers.pop(self.chance.randrange(len(self.peers)))
        self.broker.disconnect_user(peer.client.user_id)
        got = peer.read().data
        # One that is behind does not read the log any more: it is told to come back.
        assert got == self.due[peer.client.user_id][: len(got)]

    def read(self) -> None:
        for peer in self.chance.sample(self.peers, 5):
            peer.read()

    def beat(self) -> None:
        self.chance.choice(self.peers).client.beat(self.broker.inspect().delivered)

    def turn(self) -> None:
        self.bench.turn()

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
