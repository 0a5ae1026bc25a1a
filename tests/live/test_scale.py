"""Many streams, stuck readers: shown by numbers (run with ``-s`` to see them)."""

from __future__ import annotations

import socket
import time

import pytest

from tests.live.servers import Crowd, read_until, serve, until

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("host", "count"), [("gthread", 200), ("gevent", 1000), ("handoff", 2000)])
def test_a_broadcast_reaches_all_and_nothing_is_left_of_them(host: str, count: int) -> None:
    with serve(host, SSE_HEARTBEAT_INTERVAL="5", SSE_CLIENT_TIMEOUT="10") as server:
        warm = Crowd(server, 20)
        warm.leave()
        until(lambda: server.json("/numbers")["clients"] == 0)
        before = server.json("/numbers")
        crowd = Crowd(server, count)
        full = server.json("/numbers")
        assert full["clients"] == count

        server.publish(target="broadcast", event="all", data="hello")
        crowd.wait_for(b"event: all\ndata: hello\n\n")
        crowd.leave()
        left = time.monotonic()

        def nothing_left() -> bool:
            now = server.json("/numbers")
            # gthread keeps the threads of its pool, as many as there were streams
            threads = host == "gthread" or now["threads"] <= before["threads"] + 2
            return now["clients"] == 0 and threads and now["fds"] <= before["fds"] + 4

        until(nothing_left, 5)
        after = server.json("/numbers")
        print(
            f"\n{host}: before {before}, full {full}, {time.monotonic() - left:.2f} s later {after}"
        )


@pytest.mark.parametrize("host", ["gthread", "gevent", "handoff"])
def test_a_reader_that_stops_loses_only_its_own_stream(host: str) -> None:
    with serve(host, SSE_HEARTBEAT_INTERVAL="5", SSE_CLIENT_TIMEOUT="10") as server:
        crowd = Crowd(server, 20)
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(
            b"GET /sse/stream?user_id=7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c12&topics=crowd"
            b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        read_until(stuck, b"event: welcome")
        until(lambda: server.json("/numbers")["clients"] == 21)

        delays = []
        for n in range(40):
            start = time.monotonic()
            server.ask("POST", "/burst?n=1&size=60000")
            crowd.wait_for(b"event: burst", n + 1, timeout=10)
            delays.append(time.monotonic() - start)
        print(
            f"\n{host}: median {sorted(delays)[20] * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms"
        )

        until(lambda: server.json("/numbers")["clients"] == 20, 25, 0.2)
        server.ask("POST", "/burst?n=1")
        crowd.wait_for(b"event: burst", 41)
        crowd.leave()
        stuck.close()
