"""Brokers before forks and patches: they work, or say at the first stream what to change."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.live.servers import ROOT, TOKEN, USER, Crowd, Server, free_port, read_until, serve

pytestmark = pytest.mark.live

FIRST = b"gevent.monkey.patch_all() first of all"


@pytest.mark.parametrize("how", ["first", "after importing", "after sending"])
def test_a_broker_works_when_gevent_patches_before_its_first_stream(how: str) -> None:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.live.patching", how, str(port)]
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN).start()
    try:
        sock = server.stream("&topics=crowd")
        read_until(sock, b"event: welcome")
        for _ in range(3):  # from a thread that gevent knows nothing of, to a hub that sleeps
            server.ask("POST", "/native")
            read_until(sock, b"event: native", 5)
        counts = server.ask("GET", "/sse/stats", Authorization=f"Bearer {TOKEN}")[1]
        assert b'"messages_published":%d' % (4 if how == "after sending" else 3) in counts
        sock.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("after starting", b"after this broker was started"),
        ("without sockets", b"has not patched the standard library (socket)"),
        ("not at all", b"has not patched the standard library (threading, socket)"),
    ],
)
def test_a_broker_refuses_where_gevent_patches_too_late_or_too_little(
    how: str, said: bytes
) -> None:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.live.patching", how, str(port)]
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN).start()
    try:
        status, body, _ = server.ask("GET", f"/sse/stream?user_id={USER}")

        assert status == 500
        assert said in body
        assert FIRST in body
    finally:
        server.stop()


def end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # gunicorn's gevent worker ends it by itself
        os.kill(child, signal.SIGKILL)


@pytest.fixture(scope="module", params=["gthread", "gevent", "handoff", "werkzeug"])
def forking(request, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("log")
    with serve(request.param, SSE_LOG_URL=f"sqlite:///{folder}/log.db") as server:
        server.host = request.param
        yield server


def test_what_a_forked_child_of_a_worker_sends_reaches_the_worker_s_streams(forking) -> None:
    crowd = Crowd(forking, 1)

    pids = [forking.json("/fork", "POST")["pid"] for _ in range(5)]

    crowd.wait_for(b"event: forked\n", len(pids), 15)
    (got,) = crowd.got.values()
    assert sorted(re.findall(rb"event: forked\ndata: (\d+)\n", got)) == sorted(
        str(pid).encode() for pid in pids
    )
    forking.ask("POST", "/burst?n=1")
    crowd.wait_for(b"event: burst")  # the worker itself is as it was
    crowd.leave()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_ends_for_its_client_although_a_forked_child_has_its_socket_too(
    forking, version: str
) -> None:
    if forking.host == "werkzeug" and version == "1.0":
        pytest.skip("werkzeug's development server sends chunks to HTTP/1.0 clients")
    sock = forking.stream("&topics=crowd", "Connection: close\r\n", version)
    read_until(sock, b"event: welcome")
    child = forking.json("/fork?seconds=60", "POST")["pid"]
    try:
        read_until(sock, b"event: forked", 15)
        command = [sys.executable, "-m", "sse_broker", "--log", forking._env["SSE_LOG_URL"]]
        subprocess.run([*command, "disconnect", "--user", USER], cwd=ROOT, check=True, timeout=30)

        read_until(sock, b"event: close", 10)
        sock.settimeout(10)
        while sock.recv(4096):
            pass
    finally:
        end(child)
        sock.close()


def test_a_forked_child_that_lives_on_writes_nothing_into_the_worker_s_streams(forking) -> None:
    """Under gevent all greenlets live on in a child that waits, those of the library too."""
    crowd = Crowd(forking, 1)
    child = forking.json("/fork?seconds=60", "POST")["pid"]
    crowd.wait_for(b"event: forked\n", 1, 15)
    for n in range(20):
        forking.ask("POST", "/burst?n=1")
        crowd.wait_for(b"event: burst\n", n + 1, 15)
    forking.publish(target="topic", topic="crowd", event="last", data="x")
    crowd.wait_for(b"event: last\n", 1, 15)
    end(child)  # under gevent it would take requests, too

    (got,) = crowd.got.values()
    ids = re.findall(rb"^id: (\S+)\n(?:topic: .*\n)?event: burst$", bytes(got), re.MULTILINE)
    assert len(ids) == len(set(ids)) == 20
    crowd.leave()


def test_a_write_that_a_fork_interrupts_goes_on_in_the_worker_alone(forking) -> None:
    first = forking.stream("&topics=crowd")
    last = read_until(first, b"}\n\n").rpartition(b"id: ")[2].split(b"\n")[0]
    first.close()
    forking.ask("POST", "/burst?n=60&size=60000")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(15)
    sock.connect(("127.0.0.1", forking.port))
    sock.sendall(
        f"GET /sse/stream?user_id={USER}&topics=crowd HTTP/1.1\r\nHost: localhost\r\n"
        f"Last-Event-ID: {last.decode()}\r\n\r\n".encode()
    )
    got = read_until(sock, b"}\n\n")
    time.sleep(0.5)  # the worker is in a write that the kernel takes no more of
    child = forking.json("/fork?seconds=60", "POST")["pid"]
    forking.ask("POST", "/burst?n=1&size=1")

    got += read_until(sock, b"data: 0;x\n\n", 30)
    end(child)
    numbers = [int(n) for n in re.findall(rb"^data: (\d+);", got, re.MULTILINE)]
    assert numbers == [*range(60), 0]
    sock.close()
