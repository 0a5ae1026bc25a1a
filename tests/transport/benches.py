"""The three hosts, driven by hand."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from typing import Any

from sse_broker import Broker, BrokerConfig, Identity
from sse_broker.core.client import State as ClientState
from sse_broker.transport import hosts
from sse_broker.transport.batch import as_chunk
from sse_broker.transport.hub import Hub
from sse_broker.transport.pump import Pump
from sse_broker.transport.threads import Threads, serve
from sse_broker.transport.transport import State
from tests.transport.contract import Bench, Peer
from tests.transport.rig import After

PATIENCE = 20  # seconds for what real threads do; nothing is decided by it but a failure


def pair(small: bool) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    if small:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    theirs.setblocking(False)
    return ours, theirs


def who(user: Any) -> Identity:
    return user if isinstance(user, Identity) else Identity(user)


class PumpBench(Bench):
    """The pump has no thread: a test turns it, and runs what it left to its lanes."""

    def __init__(self, **settings: Any) -> None:
        self.pump, self.lane, self.theirs = Pump(), After(), list[socket.socket]()
        self.pump.reads = self.pump.asks = self.pump.ends = self.lane  # type: ignore[assignment]
        self.pump.GATHER = 0
        hosts._hosts[os.getpid()] = self.pump
        self.broker = Broker(BrokerConfig(**settings))
        self.broker.start()
        del hosts._hosts[os.getpid()]

    def open(self, user=1, *, topics=(), last_event_id="", chunked=False, small=False) -> Peer:
        ours, theirs = pair(small)
        self.theirs.append(theirs)
        reader = self.broker.streams.open(who(user), topics, last_event_id)
        first = reader.next(0) or b""
        forget = self.broker.streams.forget
        self.pump.adopt(reader, ours, chunked, lambda _: forget(reader.client, "client_gone"))
        self.turn()
        return Peer(self, theirs, reader.client, first, chunked)

    def turn(self) -> None:
        for _ in range(4):
            self.pump.post(lambda: None)  # so that polling does not wait
            self.pump.turn()
            self.lane.run()

    def is_quiet(self, peer: Peer) -> bool:
        return True

    def close(self) -> None:
        self.broker.stop(timeout=0)
        self.turn()
        self.pump.stop()
        for one in list(self.pump._by_fd.values()):
            one.sock.close()
        for sock in self.theirs:
            sock.close()


class ByHand(Threads):
    """Its writer has no thread: a test turns it."""

    GATHER = 0.0

    def start(self) -> None:
        self._thread = threading.current_thread()

    def release(self) -> None:
        self._thread = None


class OwnBench(Bench):
    """Streams have threads, or greenlets, of their own, which iterate as a server does."""

    def __init__(self, host: Threads | Hub, **settings: Any) -> None:
        self.host, self.theirs = host, list[socket.socket]()
        self.threads: dict[str, threading.Thread] = {}
        hosts._hosts[os.getpid()] = self.host
        self.broker = Broker(BrokerConfig(**settings))
        self.broker.start()
        del hosts._hosts[os.getpid()]

    def open(self, user=1, *, topics=(), last_event_id="", chunked=False, small=False) -> Peer:
        ours, theirs = pair(small)
        self.theirs.append(theirs)
        reader = self.broker.streams.open(who(user), topics, last_event_id)
        client = reader.client
        first = reader.next(0) or b""
        peer = Peer(self, theirs, client, first, chunked)
        client.abort = lambda: shut(ours)

        def serve_it() -> None:
            served = serve(self.host, reader, ours, chunked)
            try:
                while True:
                    chunk = reader.next(60) if served is None else served.next(60)
                    if chunk is None:
                        break
                    if chunk:
                        ours.sendall(as_chunk(chunk) if chunked else chunk)
                        client.last_seen = time.monotonic()
                if chunked and client.reason != "timeout":
                    ours.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            finally:
                if served is not None:
                    served.leave()
                self.broker.streams.forget(client, "client_gone")
                ours.close()

        thread = threading.Thread(target=serve_it, daemon=True)
        self.threads[client.id] = thread
        thread.start()
        self.wait_for(lambda: self.is_quiet(peer) or self.has_output(peer))
        return peer

    @staticmethod
    def has_output(peer: Peer) -> bool:
        return bool(select.select([peer.sock], [], [], 0)[0])

    def turn(self) -> None:
        if isinstance(self.host, Threads):
            self.host.turn()
        else:
            time.sleep(0)  # patched: every greenlet and the hub have a turn
        self.wait_for(lambda: all(map(self.rests, self.clients())))

    def clients(self) -> list[Any]:
        return list(self.broker.streams.here()._registry.clients())

    def rests(self, client: Any) -> bool:
        """Whether a stream's thread waits: for its queue, or for its peer."""
        thread, transport = self.threads.get(client.id), client.transport
        if thread is None or not thread.is_alive():
            return True
        if client.state is ClientState.CLOSED:  # its thread is about to take it out
            return False
        if client.queue.armed or transport is None:
            return bool(client.queue.armed)
        return transport.state is State.BLOCKED or self.is_stuck(transport)

    @staticmethod
    def is_stuck(transport: Any) -> bool:
        try:
            return not select.select([], [transport.fd], [], 0)[1]
        except OSError:  # it has ended meanwhile
            return False

    def is_quiet(self, peer: Peer) -> bool:
        client = peer.client
        thread = self.threads.get(client.id)
        return thread is not None and (not thread.is_alive() or client.queue.armed)

    def wait_for(self, true) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "a stream's thread does not come to rest"
            time.sleep(0.0005)

    def close(self) -> None:
        for sock in self.theirs:
            sock.close()
        self.broker.stop(timeout=0)
        for thread in self.threads.values():
            thread.join(PATIENCE)
            assert not thread.is_alive()


def shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
