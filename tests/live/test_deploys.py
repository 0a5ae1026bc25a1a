"""Deploys: every stream ends in order, soon, and comes back to find that nothing was missed."""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live import torture
from tests.live.servers import HOSTS, TOKEN, Server, free_port, read_until, until

pytestmark = pytest.mark.live

GUNICORNS = ["gthread", "gevent", "handoff"]
GRACEFUL = 30  # seconds that gunicorn would wait; every bound below is far from it


def server_for(host: str, *options: str, **env: str) -> Server:
    port = free_port()
    command = HOSTS[host](port)
    command[-1:-1] = [*options, "--graceful-timeout", str(GRACEFUL)]
    return Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, **env)


@pytest.fixture(params=GUNICORNS)
def host(request) -> str:
    return request.param


@pytest.fixture
def running(host: str) -> Iterator[Any]:
    servers: list[Server] = []

    def start(*options: str, **env: str) -> Server:
        servers.append(server_for(host, *options, **env).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop(signal.SIGKILL)


def read_to_the_end(sock: socket.socket) -> bytes:
    sock.settimeout(15)
    got = b""
    while piece := sock.recv(65_536):
        got += piece
    return got


def test_sigterm_ends_every_stream_in_order_and_the_worker_soon(host, running) -> None:
    server = running(SSE_RECONNECT_WINDOW="20")
    socks = [server.stream("&topics=a") for _ in range(40)]
    stalled = server.stream("&topics=a")
    for sock in socks:
        read_until(sock, b"event: welcome")
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)

    ends = [read_to_the_end(sock) for sock in socks]
    server.process.wait(GRACEFUL - 15)
    took = time.monotonic() - began

    retries = []
    for got in ends:
        assert b"event: close\n" in got
        assert b'{"reason":"shutdown"}' in got
        assert got.endswith(b"0\r\n\r\n")
        retries.append(int(re.findall(rb"retry: (\d+)", got)[-1]))
    assert min(retries) >= 1000
    assert max(retries) <= 20_000
    assert max(retries) - min(retries) > 8_000  # spread, and not all at once
    print(f"{host}: SIGTERM with 40 open streams took {took:.1f} s")
    stalled.close()


@pytest.mark.parametrize("how", ["HUP", "max_requests"])
def test_a_worker_that_is_replaced_ends_its_streams_and_the_next_one_goes_on(
    how: str, running, tmp_path
) -> None:
    options = ["--max-requests", "12"] if how == "max_requests" else []
    server = running(*options, SSE_LOG_URL=f"sqlite:///{tmp_path}/log.db")
    sock = server.stream("&topics=a")
    read_until(sock, b"event: welcome")
    first = server.publish(target="topic", topic="a", data="one")
    read_until(sock, b"data: one\n\n")

    if how == "HUP":
        server.process.send_signal(signal.SIGHUP)
    else:
        for _ in range(14):
            server.ask("GET", "/healthz")
    end = read_to_the_end(sock)

    assert b"event: close\n" in end
    for _ in range(40):  # whichever worker takes it
        try:
            server.publish(target="topic", topic="a", data="two")
            break
        except OSError:
            time.sleep(0.1)
    # A worker on its way out may take the connection once more: it says "come back" then.
    got = until(lambda: _resumed(server, first), 15, 0.2)
    assert b"data: one" not in got


def _resumed(server: Server, last: str) -> bytes:
    """Return what a client that comes back gets; nothing where it is told to come again."""
    again = server.stream("&topics=a", headers=f"Last-Event-ID: {last}\r\n")
    got = b""
    with again:
        while b"data: two\n\n" not in got:
            piece = again.recv(65_536)
            got += piece
            if not piece:
                assert b"event: error\n" in got, got
                return b""
    return got


def test_a_broker_on_another_server_ends_its_streams_at_exit() -> None:
    port = free_port()
    server = Server(HOSTS["werkzeug"](port), port, SSE_PUBLISH_TOKEN=TOKEN).start()
    try:
        sock = server.stream("&topics=a")
        read_until(sock, b"event: welcome")
        server.process.send_signal(signal.SIGINT)

        assert b'{"reason":"shutdown"}' in read_to_the_end(sock)
        server.process.wait(10)
    finally:
        server.stop(signal.SIGKILL)


def test_new_code_is_there_soon_although_a_stream_is_open(running, tmp_path, monkeypatch) -> None:
    watched = tmp_path / "watched.txt"
    watched.write_text("old")
    server = running("--reload", "--reload-extra-file", str(watched), "--reload-engine", "poll")
    sock = server.stream("&topics=a")
    read_until(sock, b"event: welcome")
    old = server.json("/numbers")["pid"]

    watched.write_text("new")

    assert b"event: close\n" in read_to_the_end(sock)
    until(lambda: _pid(server) not in (0, old), 15, 0.1)


def _pid(server: Server) -> int:
    try:
        return server.json("/numbers")["pid"]
    except OSError:
        return 0


def test_ten_restarts_under_load_lose_and_double_nothing(running, tmp_path) -> None:
    """A restart costs each client one reconnect, and one more where it met a worker on its way out."""
    url, clients, restarts = f"sqlite:///{tmp_path}/log.db", 100, 10
    env = {"SSE_LOG_URL": url, "SSE_HISTORY_SIZE": "20000", "SSE_RECONNECT_WINDOW": "1"}
    server = running("--workers", "2", **env)
    torture.measure_with(url)
    crowd = torture.Crowd(server.port, clients, random.Random(1))
    crowd.restless = False
    publishers = torture.Publishers(url, tmp_path, 2, 20)
    try:
        for _ in range(restarts):
            step_for(crowd, 0.9)
            server.process.send_signal(signal.SIGHUP)
        step_for(crowd, 2)
        publishers.stop()
        last = torture._say_last(url)
        end = time.monotonic() + 30
        while any(last not in c.seen for c in crowd.clients) and time.monotonic() < end:
            crowd.step()
        counts = torture.check(crowd, publishers.outcomes(), last)
    finally:
        for process in publishers.running:
            process.kill()
            process.wait()

    print(f"{restarts} restarts: {dict(counts)}")
    assert counts["resets"] == 0
    assert counts["connects"] <= clients * (1 + 2 * restarts)


def step_for(crowd: torture.Crowd, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        crowd.step()
