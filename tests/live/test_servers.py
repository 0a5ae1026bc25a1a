"""One behaviour on every host, on real servers."""

from __future__ import annotations

import http.client
import re
import socket
import struct

import pytest

from tests.live import servers
from tests.live.conftest import need
from tests.live.servers import TOKEN, USER, Crowd, Server, free_port, read_until, serve, until

pytestmark = pytest.mark.live

HOSTS = ["gthread", "gevent", "handoff", "werkzeug", "waitress"]


@pytest.fixture(scope="module", params=HOSTS)
def server(request):
    with serve(request.param) as server:
        server.host = request.param
        yield server


def clients(server: Server) -> int:
    return server.json("/numbers")["clients"]


def test_a_stream_begins_at_once_and_delivers(server: Server) -> None:
    sock = server.stream("&topics=a:*")
    head = read_until(sock, b"}\n\n", 2)
    server.publish(target="topic", topic="a:b", event="hello", data={"n": 1})

    got = read_until(sock, b'data: {"n":1}\n\n', 2)

    headers = head.lower()
    assert b" 200 " in headers.split(b"\r\n")[0]
    assert b"content-type: text/event-stream; charset=utf-8\r\n" in headers
    assert b"cache-control: no-store, no-transform\r\n" in headers
    assert b"x-accel-buffering: no\r\n" in headers
    assert b"content-length" not in headers
    assert head.index(b"retry: ") < head.index(b"event: welcome")
    assert b"event: hello\n" in got
    sock.close()


def test_http_1_0_gets_bytes_without_chunks(server: Server) -> None:
    if server.host == "werkzeug":
        pytest.skip("werkzeug's development server sends chunks to HTTP/1.0 clients")
    sock = server.stream("&topics=old", version="1.0")
    head = read_until(sock, b"}\n\n")
    assert b"transfer-encoding" not in head.lower()

    server.publish(target="topic", topic="old", data="x")

    assert read_until(sock, b"data: x\n\n").startswith(b"id: ")
    sock.close()


def test_head_and_options_open_no_stream(server: Server) -> None:
    for method in ("HEAD", "OPTIONS"):
        status, body, _ = server.ask(method, f"/sse/stream?user_id={USER}")
        assert (status, body) == (200, b"")
    until(lambda: clients(server) == 0, 10)


def test_a_reconnect_gets_exactly_what_it_missed(server: Server) -> None:
    sock = server.stream("&topics=again")
    read_until(sock, b"event: welcome")
    first = server.publish(target="topic", topic="again", data="one")
    read_until(sock, b"data: one\n\n")
    sock.close()
    for n in ("two", "three"):
        server.publish(target="topic", topic="again", data=n)

    sock = server.stream("&topics=again", headers=f"Last-Event-ID: {first}\r\n")
    got = read_until(sock, b"data: three\n\n")

    assert got.count(b"data: two\n\n") == 1
    assert b"data: one" not in got
    assert b'"resumed":true' in got
    sock.close()


def test_a_tight_loop_of_5000_reaches_50_clients_whole_and_in_order(server: Server) -> None:
    if server.host == "waitress":
        pytest.skip("waitress is run with 16 threads here: one each for 50 streams is too many")
    crowd = Crowd(server, 50)

    server.ask("POST", "/burst?n=5000")
    crowd.wait_for(b"data: 4999;", timeout=60)

    for got in crowd.got.values():
        lines = re.findall(rb"^data: (\d+);", bytes(got), re.MULTILINE)
        numbers = [int(line) for line in lines]
        assert numbers == list(range(5000))
        assert b"event: dropped" not in got
        assert b"event: reset" not in got
    crowd.leave()


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_leaving_client_is_noticed_long_before_its_heartbeat(server: Server, how: str) -> None:
    until(lambda: clients(server) == 0, 8)
    sock = server.stream("&topics=quiet")
    read_until(sock, b"event: welcome")
    until(lambda: clients(server) == 1)

    if how == "RST":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

    until(lambda: clients(server) == 0, 8 if server.host == "waitress" else 3)


def test_what_never_became_a_stream_leaves_nothing(server: Server) -> None:
    if server.host == "waitress":
        pytest.skip("counts of threads and descriptors are of gunicorn's and werkzeug's kind")
    until(lambda: clients(server) == 0)
    path = f"/sse/stream?user_id={USER}"
    for _ in range(5):  # so that the server's own threads are there
        server.ask("HEAD", path)
    before = server.json("/numbers")
    for _ in range(200):
        server.ask("HEAD", path)
        sock = server.stream()
        sock.close()  # left before the first byte

    def settled() -> bool:
        after = server.json("/numbers")
        return after["clients"] == 0 and after["fds"] <= before["fds"] + 4

    until(settled, 15, 0.2)


def test_curl_shows_the_stream(server: Server) -> None:
    import subprocess

    curl = need("curl", "curl")
    url = f"http://127.0.0.1:{server.port}/sse/stream?user_id={USER}"
    process = subprocess.Popen([curl, "-sN", url], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b": sse_broker\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("host", ["gthread", "gevent", "handoff"])
def test_a_failing_after_request_leaves_no_client(host: str) -> None:
    with serve(host) as server:
        server.ask("POST", "/raise")
        for _ in range(50):
            assert server.ask("GET", f"/sse/stream?user_id={USER}")[0] == 500

        assert clients(server) == 0


def test_a_sync_worker_says_that_it_cannot_and_what_can() -> None:
    with serve("sync") as server:
        status, body, _ = server.ask("GET", f"/sse/stream?user_id={USER}")

    assert status == 500
    assert b"SSE not supported" in body
    assert b"--worker-class gthread" in body


def test_a_native_thread_wakes_the_streams_of_an_idle_hub() -> None:
    import time

    with serve("gevent") as server:
        crowd = Crowd(server, 1)
        (sock,) = crowd.got
        delays = []
        for n in range(30):
            server.ask("POST", "/native")
            crowd.wait_for(b"event: native", n + 1, timeout=2)
            sent = float(bytes(crowd.got[sock]).rpartition(b"data: ")[2].split()[0])
            delays.append(time.monotonic() - sent)
        crowd.leave()
    print(f"native thread to socket: median {1000 * sorted(delays)[15]:.2f} ms")


@pytest.mark.parametrize("host", ["gthread", "gevent", "handoff"])
def test_a_broker_made_and_used_before_the_fork_works_in_every_worker(host: str) -> None:
    port = free_port()
    options = ["--threads", "8", "--workers", "2", "--preload"]
    command = [*servers.HOSTS[host](port)[:-1], *options, "tests.live.preloaded:app"]
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN)
    server.start()
    try:
        for _ in range(8):
            sock = server.stream("&topics=a")
            read_until(sock, b"event: welcome", 5)
            sock.close()
            server.publish(target="topic", topic="a", data="x")
    finally:
        server.stop()


def test_metrics_are_of_all_workers(tmp_path) -> None:
    port = free_port()
    command = servers.gunicorn(port, "-k", "gthread", "--threads", "16", "--workers", "2")
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "SSE_PUBLISH_TOKEN": TOKEN}
    server = Server(command, port, **env).start()
    try:
        socks = [server.stream() for _ in range(12)]
        for sock in socks:
            read_until(sock, b"event: welcome")

        def active(count: int) -> bool:
            texts = [server.ask("GET", "/sse/metrics")[1] for _ in range(6)]
            return all(b"sse_active_connections_total %d.0\n" % count in text for text in texts)

        until(lambda: active(12), 15, 0.3)
        for sock in socks:
            sock.close()
        until(lambda: active(0), 15, 0.3)
        text = server.ask("GET", "/sse/metrics")[1]
        assert b"sse_client_connect_total 12.0" in text
        assert b"sse_client_disconnect_total 12.0" in text
    finally:
        server.stop()


def test_http_client_of_the_standard_library_reads_it() -> None:
    with serve("gthread") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request("GET", f"/sse/stream?user_id={USER}")
        answer = connection.getresponse()
        assert answer.readline() == b": sse_broker\n"
        answer.close()
        connection.close()
