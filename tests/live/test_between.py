"""What is put between streams and their server, on the three hosts under gunicorn."""

from __future__ import annotations

import re
import signal
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.between import TRACERS, WRAPPERS
from tests.live.servers import TOKEN, Server, free_port, gunicorn, read_until, until

pytestmark = pytest.mark.live

APP = "tests.live.between:create_app()"
WORKERS = {
    "gthread": ("-k", "gthread", "--threads", "8"),
    "gevent": ("-k", "gevent"),
    "handoff": ("-k", "sse_broker.gunicorn.StreamWorker", "--threads", "8"),
}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    made = []

    def start(host: str, how: str, **env: str) -> tuple[Server, Path]:
        port, said = free_port(), tmp_path / "said.txt"
        command = gunicorn(port, *WORKERS[host], app=APP)
        env.setdefault("SSE_LOG_URL", "memory://")
        server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, SSE_DEV_AUTH="1", HOW=how, **env)
        made.append(server)
        return server.start(said), said

    yield start
    for server in made:
        server.stop()


def body_of(raw: bytes) -> bytes:
    """Return a body out of its chunks."""
    rest, body = raw.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        body, rest = body + rest[:count], rest[count + 2 :]
    return body


def read_to_the_end(sock: socket.socket) -> bytes:
    sock.settimeout(10)
    got = b""
    while piece := sock.recv(65_536):
        got += piece
    return got


@pytest.mark.parametrize("how", [*WRAPPERS, "after_request"])
@pytest.mark.parametrize("host", WORKERS)
def test_every_byte_passes_it_and_so_does_the_true_end(serve, host: str, how: str) -> None:
    server, _ = serve(host, how)
    sock = server.stream("&topics=a")
    got = b""

    def shown() -> bytes:
        return zlib.decompressobj().decompress(body_of(got)) if how == "deflate" else got

    def read(mark: bytes) -> None:
        nonlocal got
        while mark not in shown():
            sock.settimeout(10)
            piece = sock.recv(65_536)
            assert piece, got
            got += piece
            while not got.endswith(b"\r\n"):
                got += sock.recv(65_536)

    read(b"event: welcome")
    for n in range(3):
        server.publish(target="topic", topic="a", data=f"secret {n}")
        read(f"{'secret' if how == 'deflate' else 'XXXXXX'} {n}\n\n".encode())
    seen = server.json("/seen")
    assert (seen["ended"], seen["closed"]) == (0, 0)

    server.process.send_signal(signal.SIGTERM)
    got += read_to_the_end(sock)
    sock.close()
    server.process.wait(8)

    assert b"event: close" in shown()
    assert got.endswith(b"0\r\n\r\n")
    if how == "chain":
        assert b": the end\n\n" in body_of(got)
    if how != "deflate":
        assert b"secret" not in got


@pytest.mark.parametrize("how", TRACERS)
@pytest.mark.parametrize("host", WORKERS)
def test_streams_live_on_under_tracers(serve, host: str, how: str) -> None:
    pytest.importorskip(
        {"elastic": "elasticapm", "sentry": "sentry_sdk", "otel": "opentelemetry"}.get(how, how)
    )
    server, said = serve(host, how)
    sock = server.stream("&topics=a")
    read_until(sock, b"event: welcome")
    for n in range(3):
        server.publish(target="topic", topic="a", data=f"number {n}")
        read_until(sock, f"number {n}\n\n".encode())
    assert server.json("/seen")["clients"] == 1

    sock.close()

    until(lambda: server.json("/seen")["clients"] == 0, 5)
    assert "Traceback" not in re.sub(r"(?s)Connection refused.*", "", said.read_text())


def test_streams_that_keep_their_threads_leave_some_to_requests(serve) -> None:
    server, said = serve("handoff", "generator", SSE_RESERVE_THREADS="4")
    socks = [server.stream() for _ in range(6)]
    heard = [read_until(sock, b"\n\n\r\n") for sock in socks]

    assert sum(b"event: welcome" in one for one in heard) == 4
    assert sum(b"event: error" in one for one in heard) == 2
    assert server.ask("GET", "/healthz")[0] == 200
    assert said.read_text().count("keep their threads") == 1
    for sock in socks:
        sock.close()
    until(lambda: server.json("/seen")["clients"] == 0, 5)
    again = server.stream()
    read_until(again, b"event: welcome")
    again.close()
