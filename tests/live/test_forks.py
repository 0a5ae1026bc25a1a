"""Brokers before forks and patches: they work, or say at the first stream what to change."""

from __future__ import annotations

import sys

import pytest

from tests.live.servers import TOKEN, USER, Server, free_port, read_until

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
