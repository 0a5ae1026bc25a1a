"""A restart brings everybody back in one second: how long until all have what they missed."""

from __future__ import annotations

import re
import selectors
import signal
import socket
import threading
import time
from typing import Any

import pytest

from tests.live.servers import TOKEN, Server, free_port, gunicorn, read_until

pytestmark = pytest.mark.live

CLIENTS, MISSED = 2000, 200


def test_2000_reconnects_at_once_are_caught_up_and_hinder_no_ordinary_request(tmp_path) -> None:
    port = free_port()
    kind = ["-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4", "--workers", "2"]
    command = gunicorn(port, *kind, "--worker-connections", "5000")
    env = {"SSE_LOG_URL": f"sqlite:///{tmp_path}/log.db", "SSE_PUBLISH_TOKEN": TOKEN}
    server = Server(command, port, **env).start()
    try:
        sock = server.stream("&topics=a")
        read_until(sock, b"event: welcome")
        first = server.publish(target="topic", topic="a", data="0")
        sock.close()
        server.ask("POST", f"/burst?n={MISSED}&size=100&topic=a")
        server.stop(signal.SIGKILL)
        server.start()

        waits: list[float] = []
        done = threading.Event()
        asking = threading.Thread(target=ask_meanwhile, args=(server, waits, done))
        asking.start()
        began = time.monotonic()
        got = come_back(server, first)
        took = time.monotonic() - began
        done.set()
        asking.join()

        for body in got:
            numbers = [int(n) for n in re.findall(rb"^data: (\d+);", bytes(body), re.MULTILINE)]
            assert numbers == list(range(MISSED))
            assert b"event: reset" not in body
        rss = max(server.json("/numbers")["rss"] for _ in range(8)) / 2**20
        print(
            f"\n{CLIENTS} reconnects, {MISSED} missed each: {took:.1f} s until all are caught up,"
            f" {rss:.0f} MiB resident in a worker, ordinary requests: median"
            f" {1000 * sorted(waits)[len(waits) // 2]:.0f} ms, worst {1000 * max(waits):.0f} ms"
        )
        assert max(waits) < 15
        assert rss < 300
    finally:
        server.stop(signal.SIGKILL)


def ask_meanwhile(server: Server, waits: list[float], done: threading.Event) -> None:
    while not done.wait(0.05):
        began = time.monotonic()
        assert server.ask("GET", "/healthz")[0] == 200
        waits.append(time.monotonic() - began)


def come_back(server: Server, first: str) -> list[bytearray]:
    """Open all streams at once; return what each got, up to the last message that it missed."""
    selector = selectors.DefaultSelector()
    got = {}
    for _ in range(CLIENTS):
        sock = server.stream("&topics=a", headers=f"Last-Event-ID: {first}\r\n")
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        got[sock] = bytearray()
    missing, mark, end = set(got), b"data: %d;" % (MISSED - 1), time.monotonic() + 90
    while missing:
        assert time.monotonic() < end, f"{len(missing)} streams are not caught up"
        for key, _ in selector.select(1):
            sock: Any = key.fileobj
            got[sock] += _take(sock)
            if mark in got[sock]:
                missing.discard(sock)
    for sock in got:
        sock.close()
    return list(got.values())


def _take(sock: socket.socket) -> bytes:
    piece = sock.recv(262_144)
    assert piece, "a stream was refused, or ended"
    return piece
