"""Peers that die, stop or vanish: each is gone within its bound, and nothing of it is left.

All hosts run at once and so do all peers, because each takes its time; every test
reads one number of that one run.  ``-s`` shows them all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from sse_broker.transport.sockets import USER_TIMEOUT
from tests.live.conftest import need
from tests.live.network import Firewall, firewall
from tests.live.servers import TOKEN, Server, free_port, gunicorn, read_until, until

pytestmark = pytest.mark.live

ROOM = 24  # connections that a server has threads, greenlets or places for
HOSTS = {
    "gthread": ("-k", "gthread", "--threads", str(ROOM)),
    "gevent": ("-k", "gevent", "--worker-connections", str(ROOM)),
    "handoff": (
        *("-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4"),
        *("--worker-connections", str(ROOM)),
    ),
}
HEARTBEAT, TIMEOUT, AGE = 5, 10, 12  # seconds; the first two are the least that is allowed
MARGIN = 8  # seconds; two cores for all this
ENV = {
    "SSE_PUBLISH_TOKEN": TOKEN,
    "SSE_HEARTBEAT_INTERVAL": str(HEARTBEAT),
    "SSE_CLIENT_TIMEOUT": str(TIMEOUT),
    "SSE_RESUME_WINDOW": "0",
    "SSE_HISTORY_SIZE": "1000",
    "SSE_HISTORY_BYTES": "4000000",
    # What is freed goes back to the system, so that resident memory shows what is held.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "32768",
}
FRAME = 60_000  # bytes of a message
EVERY = 0.25  # seconds between two


class Peer:
    """One client with a user of its own; ``born`` is when it was last well."""

    def __init__(self, server: Server, topics: str = "crowd", headers: str = "") -> None:
        self.user = str(uuid.uuid4())
        self.sock = socket.socket()
        self.sock.settimeout(10)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect(("127.0.0.1", server.port))
        if server._tls is not None:
            self.sock = server._tls.wrap_socket(self.sock, server_hostname="localhost")
        self.sock.sendall(
            f"GET /sse/stream?user_id={self.user}&topics={topics} HTTP/1.1\r\n"
            f"Host: localhost\r\n{headers}\r\n".encode()
        )
        self.head = read_until(self.sock, b"event: welcome")
        self.born = time.monotonic()

    def in_background(self, act: Callable[[], None]) -> None:
        def run() -> None:
            with contextlib.suppress(OSError):
                act()

        threading.Thread(target=run, daemon=True).start()


def never_reads(server: Server, wall: Firewall) -> Peer:
    return Peer(server)


def reads_a_byte_now_and_then(server: Server, wall: Firewall) -> Peer:
    peer = Peer(server)

    def trickle() -> None:
        while peer.sock.recv(1):
            time.sleep(1)

    peer.in_background(trickle)
    return peer


def stops_after_a_megabyte(server: Server, wall: Firewall) -> Peer:
    peer = Peer(server)
    peer.born += 60  # until it has stopped

    def read() -> None:
        got = 0
        while got < 1_000_000:
            got += len(peer.sock.recv(65_536))
        peer.born = time.monotonic()

    peer.in_background(read)
    return peer


def stops_in_a_long_replay(server: Server, wall: Firewall) -> Peer:
    first = Peer(server, "quiet")
    server.publish(target="topic", topic="quiet", data="x")
    last = read_until(first.sock, b"data: x\n\n").rpartition(b"id: ")[2].split(b"\n")[0]
    first.sock.close()
    server.ask("POST", f"/burst?n=40&size={FRAME}")
    return Peer(server, headers=f"Last-Event-ID: {last.decode()}\r\n")


def vanishes(server: Server, wall: Firewall) -> Peer:
    """Half-open: its packets are dropped, so that no FIN and no RST ever comes."""
    peer = Peer(server, "quiet")
    wall.cut(peer.sock)
    return peer


def is_killed(server: Server, wall: Firewall) -> Peer:
    peer = Peer.__new__(Peer)
    peer.user = str(uuid.uuid4())
    url = f"http://127.0.0.1:{server.port}/sse/stream?user_id={peer.user}"
    process = subprocess.Popen([need("curl", "curl"), "-sN", url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b": sse_broker\n"
    process.kill()
    process.wait()
    process.stdout.close()
    peer.born = time.monotonic()
    return peer


def is_a_proxy_without_a_browser(server: Server, wall: Firewall) -> Peer:
    """Takes everything for nobody: no heartbeat and no option of TCP can tell."""
    peer = Peer(server, "quiet")

    def take() -> None:
        while peer.sock.recv(65_536):
            pass

    peer.in_background(take)
    return peer


PLAIN: dict[Callable[[Server, Firewall], Peer], float] = {
    never_reads: TIMEOUT,
    reads_a_byte_now_and_then: TIMEOUT,
    stops_after_a_megabyte: TIMEOUT,
    stops_in_a_long_replay: TIMEOUT,
    vanishes: HEARTBEAT + USER_TIMEOUT,
    is_killed: 1,
}
SECURE: dict[Callable[[Server, Firewall], Peer], float] = {
    never_reads: TIMEOUT,
    is_a_proxy_without_a_browser: AGE,
}


WAITRESS = {  # it takes whatever is written, so that only the kernel can tell
    never_reads: USER_TIMEOUT,
    vanishes: HEARTBEAT + USER_TIMEOUT,
    is_killed: 5,
}


class Run:
    """One server with its peers; afterwards, what came of them."""

    def __init__(self, server: Server, cases: Any, wall: Firewall) -> None:
        self.server = server
        warm = [Peer(server) for _ in range(ROOM - 8)]  # as many threads as there will be
        for peer in warm:
            peer.sock.close()
        until(lambda: not self.online(), 2 * HEARTBEAT + MARGIN)  # TLS: at the second heartbeat
        server.ask("POST", f"/burst?n=70&size={FRAME}")  # the history is full from here on
        self.before = server.json("/numbers")
        self.well = Peer(server)
        self.delays: list[float] = []
        self.peers = {case: case(server, wall) for case in cases}
        self.gone: dict[Any, float] = {}
        self.bounds = dict(cases)

    def online(self) -> set[str]:
        answer = self.server.ask("GET", "/sse/online", Authorization=f"Bearer {TOKEN}")
        return set(json.loads(answer[1])["users"])

    def look(self) -> bool:
        """Publish, measure how long the one that is well waits, see who is gone."""
        now = time.monotonic()
        if now - self.began < 30:
            self.delays.append(self.publish())
        online = self.online()
        for case, peer in self.peers.items():
            if case not in self.gone and peer.user not in online:
                self.gone[case] = time.monotonic() - peer.born
        return len(self.gone) == len(self.peers)

    def publish(self) -> float:
        if time.monotonic() - self.well.born > AGE / 2:  # so that it never gets as old as that
            self.well.sock.close()
            self.well = Peer(self.server)
        mark = uuid.uuid4().hex
        began = time.monotonic()
        self.server.ask("POST", f"/burst?n=1&size={FRAME}")
        self.server.publish(target="topic", topic="crowd", event="mark", data=mark)
        read_until(self.well.sock, mark.encode(), 20)
        return time.monotonic() - began

    def watch(self) -> Run:
        self.publish()  # and have the one that is well read what there is already
        self.began = time.monotonic()
        longest = max(self.bounds.values()) + 2 * MARGIN
        for turn in itertools.count():
            if self.look() or time.monotonic() - self.began > longest:
                break
            time.sleep(max(0.0, self.began + (turn + 1) * EVERY - time.monotonic()))
        self.well.sock.close()
        with contextlib.suppress(AssertionError):
            until(self._settled, 2 * HEARTBEAT + MARGIN, 0.2)
        self.after = self.server.json("/numbers")
        self.users_after = self.online()
        self.again = [Peer(self.server, "quiet") for _ in range(ROOM - 4)]
        for peer in self.again:
            peer.sock.close()
        return self

    def _settled(self) -> bool:
        now = self.server.json("/numbers")
        return now["clients"] == 0 and now["fds"] <= self.before["fds"]


def certificate(folder: Path) -> tuple[Path, Path]:
    key, made = folder / "key.pem", folder / "certificate.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", str(key), "-out", str(made), "-days", "2"]
    openssl = need("openssl", "openssl")
    subprocess.run([openssl, *request, *files], check=True, capture_output=True)
    return key, made


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[dict[tuple[str, str], Future[Run]]]:
    key, made = certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.create_default_context(cafile=str(made))
    servers: dict[tuple[str, str], Server] = {}
    for host, kind in SERVED:
        port = free_port()
        if host not in HOSTS:
            command = [sys.executable, "-m", "tests.live.app", host, str(port)]
        else:
            files = ["--keyfile", str(key), "--certfile", str(made)] if kind == "secure" else []
            command = gunicorn(port, *HOSTS[host], *files)
        env = {"SSE_MAX_STREAM_AGE": str(AGE if kind == "secure" else 0), **ENV}
        tls = context if kind == "secure" else None
        servers[host, kind] = Server(command, port, tls=tls, **env)
    with firewall() as wall, ThreadPoolExecutor(len(servers)) as pool:

        def run(place: tuple[str, str]) -> Run:
            return Run(servers[place].start(), SERVED[place], wall).watch()

        try:
            running = {place: pool.submit(run, place) for place in servers}
            wait(running.values())
            yield running
        finally:
            for server in servers.values():
                server.stop()


SERVED = {
    **{(host, "plain"): PLAIN for host in (*HOSTS, "werkzeug")},
    **{(host, "secure"): SECURE for host in HOSTS},
    ("waitress", "plain"): WAITRESS,
}


def case_name(value: Any) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("host", "kind", "case"),
    [(*place, case) for place, cases in SERVED.items() for case in cases],
    ids=case_name,
)
def test_a_peer_is_gone_within_its_bound(runs, host: str, kind: str, case: Any) -> None:
    run = runs[host, kind].result()

    assert case in run.gone, "it is still there"
    print(f"{host}, {kind}, {case.__name__}: gone after {run.gone[case]:.1f} s")
    assert 0 < run.gone[case] < run.bounds[case] + MARGIN


@pytest.mark.parametrize(("host", "kind"), SERVED)
def test_those_that_read_do_not_notice(runs, host: str, kind: str) -> None:
    delays = sorted(runs[host, kind].result().delays)

    print(f"{host}, {kind}: median {delays[len(delays) // 2]:.3f} s, worst {delays[-1]:.3f} s")
    assert len(delays) > 20
    assert delays[len(delays) // 2] < 1
    assert delays[-1] < 5


@pytest.mark.parametrize(("host", "kind"), SERVED)
def test_nothing_is_left_of_them(runs, host: str, kind: str) -> None:
    run = runs[host, kind].result()
    before, after = run.before, run.after

    print(f"{host}, {kind}: before {before}, after {after}")
    assert not run.users_after
    assert after["clients"] == 0
    assert after["fds"] <= before["fds"] + 2
    assert after["threads"] <= before["threads"] + 2
    assert after["resident"] <= before["resident"] + 4 * 2**20
    assert len(run.again) == ROOM - 4  # the places of the dead can be had again
