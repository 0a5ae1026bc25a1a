"""A pump that is turned by hand, and its peers."""

from __future__ import annotations

import os
import socket

from sse_broker import Broker, BrokerConfig, Identity
from sse_broker.testing import read_events
from sse_broker.transport import hosts
from sse_broker.transport.pump import Pump
from tests.core.streams import LIBRARY


class After:
    """A side that does everything right after the turn, so that a test sees it in order."""

    def __init__(self) -> None:
        self.calls = []

    waits = False

    def look(self) -> None:
        pass

    def submit(self, call) -> None:
        self.calls.append(call)

    def run(self) -> None:
        while self.calls:
            self.calls.pop(0)()

    def stop(self) -> None:
        pass


class Rig:
    def __init__(self, monkeypatch, **settings) -> None:
        self.pump = Pump()
        self.pump.GATHER = 0
        self.side = self.pump.reads = self.pump.asks = self.pump.ends = After()
        monkeypatch.setitem(hosts._hosts, os.getpid(), self.pump)
        self.broker = Broker(BrokerConfig(**settings))
        self.ended: list[int] = []
        self.theirs: list[socket.socket] = []

    def open(self, *, user=1, topics=(), last_event_id="", chunked=False, small=False) -> Peer:
        ours, theirs = socket.socketpair()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.setblocking(False)
        self.theirs.append(theirs)
        reader = self.broker.streams.open(Identity(user), topics, last_event_id)
        first = reader.next(0)
        self.pump.adopt(reader, ours, chunked, self.ended.append)
        self.turn()
        return Peer(self, theirs, reader.client, first, chunked)

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.pump.post(lambda: None)  # so that polling does not wait
            self.pump.turn()
            self.side.run()


class Peer:
    def __init__(self, rig: Rig, sock: socket.socket, client, first: bytes, chunked=False) -> None:
        self.rig, self.sock, self.client, self.got = rig, sock, client, first
        self.head, self.chunked = len(first), chunked
        self.closed = False

    def read(self) -> Peer:
        """Read and turn until nothing comes."""
        idle = 0
        while idle < 3 and not self.closed:
            self.rig.turn(1)
            try:
                piece = self.sock.recv(65_536)
            except BlockingIOError:
                idle += 1
                continue
            except ConnectionResetError:
                piece = b""
            self.closed = not piece
            self.got += piece
            idle = 0
        return self

    @property
    def events(self):
        return read_events(self.got)

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events if event.event not in LIBRARY]

    @property
    def plain(self) -> Peer:
        """The same, with what was read out of its chunks."""
        rest, body = self.got[self.head :], self.got[: self.head]
        while self.chunked and rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        twin = Peer(self.rig, self.sock, self.client, body, False)
        twin.got += b"" if self.chunked else rest
        return twin

    @property
    def transport(self):
        return self.client.transport
