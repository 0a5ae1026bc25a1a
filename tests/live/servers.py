"""Servers as processes of their own, and a client for many streams at once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOKEN = "live-tests"
USER = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: Callable[[], Any], timeout: float = 10, pause: float = 0.02) -> Any:
    """Return the first true answer of *what*; fail if there is none for *timeout* seconds."""
    end = time.monotonic() + timeout
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, f"no true answer in {timeout} s; the last one: {answer!r}"
        time.sleep(pause)


def _hear_ctrl_c() -> None:
    """A shell has what it starts in the background ignore SIGINT, and all that this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """One server process group on a port."""

    def __init__(
        self,
        command: list[str],
        port: int,
        path: str = "/healthz",
        tls: ssl.SSLContext | None = None,
        **env: str,
    ) -> None:
        self.port, self._command, self._path, self._tls = port, command, path, tls
        # A log of its own, where the test names none: else it is the instance folder's, for all.
        self._env = {**os.environ, "SSE_LOG_URL": "memory://", "PYTHONPATH": str(ROOT), **env}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, log: Path | None = None) -> Server:
        """Start it and wait until it answers; what it says goes into *log*, if that is given."""
        with contextlib.ExitStack() as stack:
            said = None if log is None else stack.enter_context(log.open("wb"))
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,
                stdout=said,
                stderr=said,
            )
        until(self._answers, 20)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server has ended"
        try:
            return self.ask("GET", self._path)[0] < 500
        except OSError:
            return False

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signum)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
        self.process = None

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        else:
            connection = http.client.HTTPSConnection(
                "localhost", self.port, timeout=30, context=self._tls
            )
        try:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            payload = None
            if body is not None:
                payload = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            return answer.status, answer.read() if method != "HEAD" else b"", answer.headers
        finally:
            connection.close()

    def publish(self, **message: object) -> str:
        status, body, _ = self.ask("POST", "/sse/publish", message, Authorization=f"Bearer {TOKEN}")
        assert status == 200, body
        return json.loads(body)["id"]

    def json(self, path: str, method: str = "GET") -> Any:
        status, body, _ = self.ask(method, path)
        assert status == 200, body
        return json.loads(body)

    def stream(self, query: str = "", headers: str = "", version: str = "1.1") -> socket.socket:
        """Open a stream and return its socket."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_hostname="localhost")
        sock.sendall(
            f"GET /sse/stream?user_id={USER}{query} HTTP/{version}\r\nHost: localhost\r\n"
            f"Accept: text/event-stream\r\n{headers}\r\n".encode()
        )
        return sock


def gunicorn(port: int, *options: str, app: str = "tests.live.app:create_app()") -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket"),
        *("--log-level", "warning", "--backlog", "2048", "--graceful-timeout", "2"),
        *options,
        app,
    ]


HOSTS: dict[str, Callable[[int], list[str]]] = {
    "gthread": lambda port: gunicorn(port, "-k", "gthread", "--threads", "230"),
    "gevent": lambda port: gunicorn(port, "-k", "gevent", "--worker-connections", "5000"),
    "handoff": lambda port: gunicorn(
        port,
        *("-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4"),
        *("--worker-connections", "5000"),
    ),
    "werkzeug": lambda port: [sys.executable, "-m", "tests.live.app", "werkzeug", str(port)],
    "waitress": lambda port: [sys.executable, "-m", "tests.live.app", "waitress", str(port)],
    "sync": lambda port: gunicorn(port, "-k", "sync"),
}


@contextlib.contextmanager
def serve(host: str, **env: str) -> Iterator[Server]:
    """Run the test app under one of HOSTS."""
    port = free_port()
    server = Server(HOSTS[host](port), port, SSE_PUBLISH_TOKEN=TOKEN, **env)
    try:
        yield server.start()
    finally:
        server.stop()


def read_until(sock: socket.socket, mark: bytes, timeout: float = 10) -> bytes:
    """Return what arrives, up to and with *mark*."""
    sock.settimeout(timeout)
    got = b""
    while mark not in got:
        piece = sock.recv(65_536)
        assert piece, f"the stream ended before {mark!r}: {got[-300:]!r}"
        got += piece
    return got


class Crowd:
    """Many streams read by one selector; what each got is kept as bytes without the chunking."""

    def __init__(self, server: Server, count: int, query: str = "&topics=crowd") -> None:
        self.selector = selectors.DefaultSelector()
        self.got: dict[socket.socket, bytearray] = {}
        for _ in range(count):
            sock = server.stream(query)
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)
            self.got[sock] = bytearray()
        self.wait_for(b"event: welcome")

    def wait_for(self, mark: bytes, times: int = 1, timeout: float = 60) -> None:
        """Read until every stream has *mark* so many times."""
        missing = {sock for sock, got in self.got.items() if got.count(mark) < times}
        end = time.monotonic() + timeout
        while missing:
            assert time.monotonic() < end, f"{len(missing)} streams lack {mark!r} x {times}"
            for key, _ in self.selector.select(1):
                sock: Any = key.fileobj
                piece = sock.recv(262_144)
                assert piece, "a stream ended"
                self.got[sock] += piece
                if sock in missing and self.got[sock].count(mark) >= times:
                    missing.discard(sock)

    def leave(self) -> None:
        for sock in self.got:
            self.selector.unregister(sock)
            sock.close()
        self.got.clear()
