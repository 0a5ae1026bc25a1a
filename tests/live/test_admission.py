"""Floods of streams, and what is left for ordinary requests; addresses and rates over real parts."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import need
from tests.live.redis_server import RedisServer
from tests.live.servers import (
    TOKEN,
    USER,
    Crowd,
    Server,
    free_port,
    gunicorn,
    read_until,
    serve,
    until,
)
from tests.live.test_nginx import CONFIG, answers

pytestmark = pytest.mark.live

HUB = "sse_broker.app:create_app()"
BROWSER, SCRIPT = "text/event-stream", "*/*"


@contextlib.contextmanager
def worker(*options: str, app: str = "tests.live.app:create_app()", **env: str) -> Iterator[Server]:
    port = free_port()
    env = {"SSE_PUBLISH_TOKEN": TOKEN, "SSE_DEV_AUTH": "1", **env}
    server = Server(gunicorn(port, *options, app=app), port, **env)
    try:
        yield server.start()
    finally:
        server.stop()


class Flood:
    """Many requests for streams at once; what each was answered, and the connections left open."""

    def __init__(self, server: Server, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.got: dict[socket.socket, bytearray] = {}
        self.took: dict[socket.socket, float] = {}
        self.started = time.monotonic()
        for n in range(count):
            accept = BROWSER if n % 2 else SCRIPT
            sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            sock.sendall(
                f"GET /sse/stream?user_id={USER} HTTP/1.1\r\nHost: localhost\r\n"
                f"Accept: {accept}\r\n\r\n".encode()
            )
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, accept)
            self.got[sock] = bytearray()

    def read(self, timeout: float = 30) -> Flood:
        """Read until each has an answer: a welcome, an error or a status.  None is closed here."""
        missing, end = set(self.got), time.monotonic() + timeout
        while missing:
            assert time.monotonic() < end, f"{len(missing)} of {len(self.got)} got no answer"
            for key, _ in self.selector.select(1):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                piece = sock.recv(65_536)
                self.got[sock] += piece
                if not piece:
                    self.selector.unregister(sock)
                if sock in missing and self.kind(sock):
                    self.took[sock] = time.monotonic() - self.started
                    missing.discard(sock)
        return self

    def kind(self, sock: socket.socket) -> str:
        got = bytes(self.got[sock])
        if b"event: welcome" in got:
            return "in"
        if b" 503 " in got.partition(b"\r\n")[0] and b'"error"' in got:
            return "status"
        return "busy" if b"}\n\n" in got.partition(b"event: error")[2] else ""

    def of(self, kind: str) -> list[socket.socket]:
        return [sock for sock in self.got if self.kind(sock) == kind]

    def leave(self) -> None:
        for sock in self.got:
            sock.close()


class Pings:
    """Ordinary requests, one after another on a thread, and how long each took."""

    def __init__(self, server: Server, path: str = "/healthz") -> None:
        self.times: list[float] = []
        self._server, self._path = server, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            status = self._server.ask("GET", self._path)[0]
            self.times.append(time.monotonic() - start)
            assert status == 200

    def __enter__(self) -> Pings:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def __str__(self) -> str:
        took = sorted(self.times)
        middle, last = took[len(took) // 2], took[-1]
        return f"{len(took)} requests, median {1000 * middle:.1f} ms, worst {1000 * last:.1f} ms"


KINDS = [
    (("-k", "gthread", "--threads", "8"), 6),
    (("-k", "gevent", "--worker-connections", "20"), 18),
]


@pytest.mark.parametrize(("options", "room"), KINDS, ids=["gthread", "gevent"])
def test_a_flood_of_streams_leaves_ordinary_requests_their_time(
    options: tuple[str, ...], room: int
) -> None:
    with worker(*options) as server:
        with Pings(server) as usual:
            until(lambda: len(usual.times) > 100)
        early = Crowd(server, room - 2)

        with Pings(server) as meanwhile:
            flood = Flood(server, 300).read()
            until(lambda: len(meanwhile.times) > 100)
        with Pings(server) as after:
            until(lambda: len(after.times) > 100)

        print(f"\n{options[1]} before: {usual}\nflooded: {meanwhile}\nfull: {after}")
        print(f"the last of 300 had its answer after {1000 * max(flood.took.values()):.0f} ms")
        assert (len(flood.of("in")), len(flood.got)) == (2, 300)
        assert abs(len(flood.of("busy")) - len(flood.of("status"))) <= 2
        assert max(meanwhile.times) < 2
        assert max(after.times) < 2
        retries = {bytes(flood.got[s]).partition(b"retry: ")[2][:6] for s in flood.of("busy")}
        assert len(retries) > 100
        start = time.monotonic()
        server.publish(target="topic", topic="crowd", data="to those who were here before")
        assert time.monotonic() - start < 2
        early.wait_for(b"data: to those who were here before", timeout=5)
        early.leave()
        flood.leave()


def test_a_place_that_is_free_again_is_given_to_the_next() -> None:
    with worker("-k", "gthread", "--threads", "3") as server:
        first = server.stream()
        read_until(first, b"event: welcome")
        refused = server.stream()
        read_until(refused, b"event: error")
        first.close()

        def came_in() -> bool:
            sock = server.stream()
            got = sock.recv(65_536)
            while b"event: " not in got:
                got += sock.recv(65_536)
            sock.close()
            return b"event: welcome" in got

        until(came_in)


def test_waitress_keeps_threads_too() -> None:
    with serve("waitress", SSE_RESERVE_THREADS="28") as server:  # of 32
        flood = Flood(server, 40).read()
        assert len(flood.of("in")) == 4
        assert server.ask("GET", "/healthz")[0] == 200
        flood.leave()


def test_werkzeugs_server_makes_a_thread_for_each() -> None:
    with serve("werkzeug") as server:
        Crowd(server, 40).leave()


def test_the_room_is_found_under_middleware_that_hides_what_gunicorn_passes() -> None:
    with worker("-k", "gthread", "--threads", "4", app="tests.live.wrapped:app") as server:
        flood = Flood(server, 10).read()
        assert len(flood.of("in")) == 2
        flood.leave()


def ask_from(address: str, port: int, headers: str = "") -> tuple[socket.socket, bool]:
    """Ask for a stream from one of the loopback addresses; return whether it was let in."""
    source = (address, 0)
    sock = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=source)
    sock.sendall(
        f"GET /sse/stream?user_id={USER} HTTP/1.1\r\nHost: localhost\r\n"
        f"Accept: text/event-stream\r\n{headers}\r\n".encode()
    )
    got = b""
    while b"event: welcome" not in got and b"event: error" not in got:
        piece = sock.recv(65_536)
        assert piece, got
        got += piece
    return sock, b"event: welcome" in got


def let_in(*asked: tuple[socket.socket, bool]) -> list[bool]:
    for sock, _ in asked:
        sock.close()
    return [answer for _, answer in asked]


def test_a_forged_header_changes_nothing_where_no_proxy_is_configured() -> None:
    limit = {"SSE_MAX_CONNECTIONS_PER_ADDRESS": "1"}
    with worker("-k", "gthread", "--threads", "16", app=HUB, **limit) as server:
        asked = [
            ask_from("127.0.0.2", server.port),
            ask_from("127.0.0.2", server.port, "X-Forwarded-For: 192.0.2.9\r\n"),
            ask_from("127.0.0.2", server.port, "Forwarded: for=192.0.2.9\r\n"),
            ask_from("127.0.0.3", server.port),
        ]
        assert let_in(*asked) == [True, False, False, True]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can look into: nginx's workers may be one."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("bind", ["tcp", "unix"])
def test_behind_nginx_each_client_has_its_own_address(
    bind: str, tmp_path: Path, shared: Path
) -> None:
    nginx = need("nginx", "nginx-light")
    page = (Path(__file__).parents[2] / "docs/deploying.md").read_text()
    location = page.partition("```nginx\n")[2].partition("```")[0]
    limit = {"SSE_MAX_CONNECTIONS_PER_ADDRESS": "1", "SSE_PROXIES": "1"}
    shared.chmod(0o755)
    unix = ("-b", f"unix:{shared}/app.sock", "--umask", "0") if bind == "unix" else ()
    port = free_port()
    with worker("-k", "gthread", "--threads", "16", *unix, app=HUB, **limit) as server:
        text = CONFIG.format(folder=tmp_path, upstream=server.port, port=port, location=location)
        if unix:
            text = text.replace(f"server 127.0.0.1:{server.port};", f"server {unix[1]};")
            assert unix[1] in text
        (tmp_path / "nginx.conf").write_text(text)
        process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
        try:
            until(lambda: answers(Server([], port)))
            asked = [
                ask_from("127.0.0.2", port),
                ask_from("127.0.0.3", port),
                ask_from("127.0.0.2", port),
                ask_from("127.0.0.2", port, "X-Forwarded-For: 192.0.2.9\r\n"),
            ]
            assert let_in(*asked) == [True, True, False, False]
        finally:
            process.terminate()
            process.wait(5)


def test_on_a_unix_socket_a_limit_per_address_says_what_is_missing(tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/app.sock"
    limit = {"SSE_MAX_CONNECTIONS_PER_ADDRESS": "1"}
    request = f"GET /sse/stream?user_id={USER} HTTP/1.0\r\nHost: localhost\r\n\r\n"
    options = ("-k", "gthread", "--threads", "4", "-b", bind)
    with worker(*options, app=HUB, **limit), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(bind.removeprefix("unix:"))
        sock.sendall(request.encode())
        got = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert b" 500 " in got.partition(b"\r\n")[0]
    body = json.loads(got.partition(b"\r\n\r\n")[2])
    assert body["field"] == "max_connections_per_address"
    assert "ProxyFix" in body["error"]


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_a_rate_in_redis_is_of_all_workers_and_stops_nobody_without_it(
    kind: str, tmp_path: Path
) -> None:
    redis = RedisServer(need("redis-server", "redis-server"), tmp_path).start()
    try:
        options = ("-k", kind, "--threads", "8", "--workers", "2")
        rate = {"SSE_PUBLISH_RATE": "20/day", "SSE_RATE_STORAGE": redis.url}
        with worker(*options, app=HUB, **rate) as server:
            statuses = [publish(server) for _ in range(60)]
            assert statuses == [200] * 20 + [429] * 40

            redis.kill()
            times = []
            for _ in range(20):
                start = time.monotonic()
                assert publish(server) == 200
                times.append(time.monotonic() - start)
            print(f"\n{kind} without Redis: worst {1000 * max(times):.0f} ms")
            redis.start()
            redis.pause()  # it accepts and says nothing
            start = time.monotonic()
            assert [publish(server) for _ in range(20)] == [200] * 20
            assert time.monotonic() - start < 8
            redis.go_on()
            until(lambda: publish(server) == 200 and rates_are_counted(server), 15, 0.1)
    finally:
        redis.stop()


def publish(server: Server) -> int:
    body = {"target": "broadcast", "data": "x"}
    return server.ask("POST", "/sse/publish", body, Authorization=f"Bearer {TOKEN}")[0]


def rates_are_counted(server: Server) -> bool:
    """Whether the restarted, empty Redis refuses again."""
    return 429 in {publish(server) for _ in range(30)}


def test_a_rate_in_memory_is_of_each_worker() -> None:
    rate = {"SSE_CONNECT_RATE": "3/day"}
    with worker("-k", "gevent", app=HUB, **rate) as server:
        asked = [ask_from("127.0.0.2", server.port) for _ in range(5)]
        assert let_in(*asked) == [True, True, True, False, False]
