"""What a real server says of itself in its own log, before or at the first refusal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.live.servers import Server, free_port, gunicorn, until

pytestmark = pytest.mark.live

KINDS = {
    "one thread": (("-k", "gthread"), "WARNING", "gthread worker has 1 thread"),
    "sync": (("-k", "sync"), "ERROR", "sync worker serves one request at a time"),
    "memory, two workers": (
        ("-k", "gevent", "-w", "2"),
        "WARNING",
        "2 processes serve this application and the log is memory://",
    ),
    "memory, preloaded": (
        ("-k", "gevent", "-w", "2", "--preload"),
        "WARNING",
        "2 processes serve this application and the log is memory://",
    ),
    "descriptors": (
        ("-k", "gevent", "--worker-connections", "99999999"),
        "WARNING",
        "worker_connections is 99999999",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_servers_log_names_the_mistake_and_its_cure_once(kind: str, tmp_path: Path) -> None:
    options, level, sentence = KINDS[kind]
    port = free_port()
    server = Server(
        gunicorn(port, *options, app="sse_broker.app:create_app()"),
        port,
        SSE_DEV_AUTH="1",
        SSE_LOG_URL="memory://",
    )
    written = tmp_path / "log"
    try:
        server.start(written)
        until(lambda: sentence in written.read_text(), 5)
        server.ask("GET", "/healthz")
        lines = [line for line in written.read_text().split("\n") if sentence in line]
        assert len(lines) == 1
        assert f"[{level}]" in lines[0]
    finally:
        server.stop()


def test_a_refused_stream_is_in_the_servers_log(tmp_path: Path) -> None:
    port = free_port()
    server = Server(
        gunicorn(port, "-k", "sync", app="sse_broker.app:create_app()"),
        port,
        SSE_DEV_AUTH="1",
        SSE_LOG_URL="memory://",
    )
    written = tmp_path / "log"
    try:
        server.start(written)
        assert server.ask("GET", "/sse/stream?user_id=" + "0" * 31 + "1")[0] == 500
        until(lambda: "was refused (500)" in written.read_text(), 5)
        assert "[WARNING] GET /sse/stream was refused" in written.read_text()
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["hub", "application"])
def test_serve_is_a_server_whose_streams_hold_no_thread(kind: str, tmp_path: Path) -> None:
    port = free_port()
    program, prefix = ["-m", "sse_broker"], []
    if kind == "application":
        (tmp_path / "shop.py").write_text(
            "from flask import Flask\nfrom sse_broker import SSE\n"
            "app = Flask('shop', root_path='.')\nSSE(app)\n"
        )
        program, prefix = ["-m", "flask"], ["--app", str(tmp_path / "shop.py"), "sse"]
    command = [sys.executable, *program, *prefix, "serve", "--bind", f"127.0.0.1:{port}"]
    options = ["--dev", "--workers", "2", "--no-control-socket"]
    server = Server(
        [*command, *options], port, "/sse/readyz", SSE_LOG_URL=f"sqlite:///{tmp_path}/log.db"
    )
    written = tmp_path / "log"
    try:
        server.start(written)
        assert server.ask("GET", "/sse/readyz")[0] == 200
        text = written.read_text()
        assert "Using worker: sse_broker.gunicorn.StreamWorker" in text
        assert "WARNING" not in text
    finally:
        server.stop()
