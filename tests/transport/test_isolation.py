"""The pump with its own threads: what is slow for one client is not the others'."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sse_broker import Broker, Identity, LogUnavailable, signals
from sse_broker.logs import MemoryLog
from sse_broker.transport import hosts
from sse_broker.transport.pump import Pump

PATIENCE = 20  # seconds; nothing is decided by it but a failure
pytestmark = pytest.mark.slow


class Hanging(MemoryLog):
    """A log whose reads wait, as those of a server that is away do."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def read(self, after: int, limit: int) -> Any:
        if not self.gate.is_set():
            self.gate.wait(PATIENCE)
            raise LogUnavailable("timed out")
        return super().read(after, limit)


class Served:
    """A broker whose streams a pump serves."""

    def __init__(self, **how: Any) -> None:
        self.pump = Pump()
        self.pump.start()
        hosts._hosts[os.getpid()] = self.pump
        self.broker = Broker(**how)
        self.broker.start()
        del hosts._hosts[os.getpid()]
        self.theirs: list[socket.socket] = []
        self.ended: list[threading.Event] = []

    def open(self, user: int, topics: list[str]) -> tuple[socket.socket, Any, threading.Event]:
        ours, theirs = socket.socketpair()
        theirs.settimeout(PATIENCE)
        reader = self.broker.streams.open(Identity(user), topics)
        reader.next(0)
        ended = threading.Event()

        def on_end(_: int) -> None:
            self.broker.streams.forget(reader.client, "client_gone")
            ended.set()

        self.pump.adopt(reader, ours, False, on_end)
        self.theirs.append(theirs)
        return theirs, reader.client, ended

    def close(self) -> None:
        self.broker.stop(timeout=0)
        self.pump.stop()
        for sock in self.theirs:
            sock.close()


@pytest.fixture
def served() -> Iterator[Any]:
    made: list[Served] = []

    def make(**how: Any) -> Served:
        made.append(Served(**how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_end_does_not_wait_for_reads_of_a_log_that_hangs(served) -> None:
    log = Hanging()
    here = served(log=log)
    behind = [here.open(n + 2, ["t"])[1] for n in range(40)]
    leaving, _, ended = here.open(1, ["t"])
    log.gate.clear()
    for client in behind:
        client.fall_behind()

    leaving.close()

    assert ended.wait(PATIENCE / 4)
    log.gate.set()


def test_a_stranger_does_not_wait_for_an_authorizer_that_hangs_for_others(served) -> None:
    gate = threading.Event()

    def authorizer(identity: Identity, topic: str) -> bool:
        return not topic.startswith("slow:") or topic == "slow:*" or gate.wait(PATIENCE)

    here = served(authorizer=authorizer)
    for n in range(30):
        here.open(n + 2, ["slow:*"])
    stranger, _, _ = here.open(1, ["quick:*"])
    here.broker.send_to_topic("slow:1", "e", "x")
    here.broker.send_to_topic("quick:1", "e", "here")

    got = b""
    while b"here" not in got:
        piece = stranger.recv(4096)
        assert piece
        got += piece
    gate.set()


def test_an_end_does_not_wait_for_a_receiver_that_hangs_for_others(served) -> None:
    gate, hung = threading.Event(), threading.Semaphore(0)
    here = served()

    def receiver(sender: object, client: Any, reason: str) -> None:
        if client.user_id != "1":
            hung.release()
            gate.wait(PATIENCE)

    with signals.client_disconnected.connected_to(receiver, here.broker):
        others = [here.open(n + 2, []) for n in range(10)]
        leaving, _, ended = here.open(1, [])
        for theirs, _, _ in others:
            theirs.close()
        for _ in range(4):
            assert hung.acquire(timeout=PATIENCE)

        leaving.close()

        assert ended.wait(PATIENCE)
        gate.set()
        assert all(end.wait(PATIENCE) for _, _, end in others)
