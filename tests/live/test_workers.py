"""Several workers share a log: whichever sends, all deliver, in one order."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import need
from tests.live.redis_server import RedisServer
from tests.live.servers import (
    ROOT,
    TOKEN,
    USER,
    Crowd,
    Server,
    free_port,
    gunicorn,
    read_until,
    until,
)
from tests.live.torture import worker_pids

pytestmark = pytest.mark.live


@contextlib.contextmanager
def log_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/log.db"
        return
    redis = RedisServer(need("redis-server", "redis-server"), folder / "redis").start()
    try:
        yield redis.url
    finally:
        redis.stop()


@pytest.fixture(
    params=[(host, log) for host in ("gthread", "gevent") for log in ("sqlite", "redis")],
    ids=lambda pair: "-".join(pair),
)
def server(request, tmp_path) -> Iterator[Server]:
    host, kind = request.param
    port = free_port()
    room = ("--threads", "64") if host == "gthread" else ("--worker-connections", "500")
    options = ("-k", host, "--workers", "2", "--preload", *room)
    with log_url(kind, tmp_path) as url:
        command = gunicorn(port, *options, app="tests.live.preloaded:app")
        server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, SSE_LOG_URL=url)
        server.url = url
        try:
            yield server.start()
        finally:
            server.stop()


def stats(server: Server) -> dict:
    answer = server.ask("GET", "/sse/stats", Authorization=f"Bearer {TOKEN}")
    return json.loads(answer[1])


def bodies(crowd: Crowd) -> list[list[bytes]]:
    return [
        re.findall(rb"^data: (\d+;x+)$", bytes(got), re.MULTILINE) for got in crowd.got.values()
    ]


def test_every_stream_of_every_worker_gets_everything_in_one_order(server: Server) -> None:
    crowd = Crowd(server, 40)
    until(lambda: stats(server)["cluster_clients"] == 40)
    for _ in range(10):  # each by whichever worker takes it
        server.ask("POST", "/burst?n=20")
    crowd.wait_for(b"event: burst", 200)

    seen = bodies(crowd)
    assert all(one == seen[0] for one in seen)
    assert len(seen[0]) == 200
    crowd.leave()
    until(lambda: stats(server)["cluster_clients"] == 0)


def test_a_native_thread_of_any_worker_wakes_streams_in_all(server: Server) -> None:
    crowd = Crowd(server, 10)
    for turn in range(1, 5):
        server.ask("POST", "/native")
        crowd.wait_for(b"event: native", turn, timeout=10)
    crowd.leave()


def test_a_logout_in_a_terminal_ends_streams_in_every_worker(server: Server) -> None:
    crowd = Crowd(server, 10)
    command = [sys.executable, "-m", "sse_broker", "--log", server.url]
    options = {"cwd": ROOT, "timeout": 30, "check": True, "capture_output": True, "text": True}
    until(lambda: USER in subprocess.run([*command, "online"], **options).stdout)
    subprocess.run([*command, "disconnect", "--user", USER, "--reason", "logout"], **options)

    crowd.wait_for(b"event: close\nid: ")
    assert all(b'data: {"reason":"logout"}' in got for got in crowd.got.values())
    crowd.leave()


def test_a_killed_worker_loses_nothing_for_its_streams(server: Server) -> None:
    sock = server.stream("&topics=crowd")
    last = re.findall(rb"id: (\S+)\n", read_until(sock, b"}\n\n"))[-1]
    for pid in worker_pids(server):
        os.kill(pid, 9)
    sock.close()
    until(lambda: _answers(server))
    server.ask("POST", "/burst?n=3")
    sock = server.stream("&topics=crowd", headers=f"Last-Event-ID: {last.decode()}\r\n")

    got = read_until(sock, b"data: 2;xxxxxxxxxx\n\n")
    assert b"event: reset" not in got
    assert b'"resumed":true' in got
    assert got.count(b"event: burst") == 3
    sock.close()


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz")[0] == 200
    except OSError:
        return False
