"""What a server has little of: descriptors, threads before a request is there, time to stop."""

from __future__ import annotations

import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.live.servers import HOSTS, TOKEN, Server, free_port, gunicorn, read_until, serve, until

pytestmark = pytest.mark.live

GUNICORN = ["gthread", "gevent", "handoff"]


class Bounded(Server):
    """A server whose process may open so many files."""

    def __init__(self, descriptors: int, command: list[str], port: int, **env: str) -> None:
        shell = f'ulimit -n {descriptors}; exec "$@"'
        super().__init__(["sh", "-c", shell, "sh", *command], port, **env)


@pytest.mark.parametrize("host", ["gevent", "handoff"])
def test_who_finds_no_descriptor_is_told_to_come_back(host: str, tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said.txt"
    server = Bounded(256, HOSTS[host](port), port, SSE_PUBLISH_TOKEN=TOKEN, SSE_LOG_URL="memory://")
    server.start(said)
    socks = []
    try:
        for _ in range(300):
            sock = server.stream("&topics=crowd")
            sock.settimeout(10)
            socks.append((sock, sock.recv(4096)))
            if b"\n\n" not in socks[-1][1]:
                socks[-1] = (sock, socks[-1][1] + read_until(sock, b"\n\n"))
        heads = [got + _rest(sock) for sock, got in socks]
        inside = [sock for (sock, _), got in zip(socks, heads, strict=True) if b"welcome" in got]
        refused = [got for got in heads if b"event: error" in got]

        assert len(inside) + len(refused) == 300
        assert 100 < len(inside) < 256
        assert server.ask("GET", "/healthz")[0] == 200
        server.publish(target="topic", topic="crowd", data="all of you")
        for sock in inside:
            read_until(sock, b"all of you")
    finally:
        for sock, _ in socks:
            sock.close()
        server.stop()
    assert "Errno 24" not in said.read_text()


def _rest(sock: socket.socket) -> bytes:
    """What has come already."""
    sock.setblocking(False)
    got = b""
    try:
        while piece := sock.recv(4096):
            got += piece
    except BlockingIOError:
        pass
    sock.setblocking(True)
    return got


def test_idle_connections_that_take_all_descriptors_end_no_stream(tmp_path: Path) -> None:
    port, said = free_port(), tmp_path / "said.txt"
    command = HOSTS["handoff"](port)
    server = Bounded(160, command, port, SSE_PUBLISH_TOKEN=TOKEN, SSE_LOG_URL="memory://")
    server.start(said)
    idle: list[socket.socket] = []
    try:
        stream = server.stream("&topics=a")
        read_until(stream, b"event: welcome")
        for _ in range(200):
            idle.append(socket.create_connection(("127.0.0.1", port)))
        for sock in idle:
            sock.close()

        until(lambda: server.ask("GET", "/healthz")[0] == 200)
        server.publish(target="topic", topic="a", data="still here")
        read_until(stream, b"still here")
        stream.close()
    finally:
        server.stop()


def test_the_soft_limit_is_raised_as_far_as_the_connections_need(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("the hard limit is low")
    port = free_port()
    options = ("-k", "sse_broker.gunicorn.StreamWorker", "--worker-connections", "500")
    command = ["sh", "-c", 'ulimit -S -n 100; exec "$@"', "sh", *gunicorn(port, *options)]
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, SSE_LOG_URL="memory://").start()
    try:
        socks = [server.stream() for _ in range(150)]
        for sock in socks:
            read_until(sock, b"event: welcome")
            sock.close()
    finally:
        server.stop()


def test_half_a_request_holds_no_thread() -> None:
    with serve("handoff") as server:
        stream = server.stream("&topics=a")
        read_until(stream, b"event: welcome")
        halves = []
        for n in range(30):
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"[: 5 + n])
            halves.append(sock)

        began = time.monotonic()
        assert server.ask("GET", "/healthz")[0] == 200
        server.publish(target="topic", topic="a", data="meanwhile")
        read_until(stream, b"meanwhile")
        assert time.monotonic() - began < 3
        halves[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"[34:] + b"\r\n")
        assert read_until(halves[-1], b"ok").startswith(b"HTTP/1.1 200")

        halves[0].settimeout(15)
        assert halves[0].recv(100) == b""  # at its deadline
        for sock in (*halves, stream):
            sock.close()


@pytest.mark.parametrize("host", GUNICORN)
def test_sixty_clients_that_never_close_do_not_hold_a_server_that_stops(host: str) -> None:
    with serve(host) as server:
        socks = [server.stream() for _ in range(60)]
        for sock in socks:
            read_until(sock, b"event: welcome")

        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)

        assert time.monotonic() - began < 5
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("host", [*GUNICORN, "waitress", "werkzeug"])
def test_the_end_of_a_stream_is_the_end_of_its_connection(host: str) -> None:
    with serve(host) as server:
        sock = server.stream()
        read_until(sock, b"event: welcome")
        assert server.ask("POST", "/leave")[0] == 200

        began = time.monotonic()
        sock.settimeout(10)
        got = b""
        while piece := sock.recv(65_536):
            got += piece

        assert b"event: close" in got
        assert time.monotonic() - began < 1.5
        sock.close()
