"""The worker whose streams leave their threads: what gunicorn promises goes on being true."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.live.conftest import need
from tests.live.servers import (
    ROOT,
    TOKEN,
    Crowd,
    Server,
    free_port,
    gunicorn,
    read_until,
    serve,
    until,
)

pytestmark = pytest.mark.live

WORKER = ("-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4")
GUNICORNS = ["24.1.1", "25.3.0", "26.2.0"]  # and the one that is installed, in all other tests


def start(*options: str, path: str = "", log: Path | None = None, **env: str) -> Server:
    port = free_port()
    if path:
        env["PYTHONPATH"] = f"{path}:{ROOT}"
    command = gunicorn(port, *WORKER, "--worker-connections", "5000", *options)
    if path:  # there may be none to switch off
        command.remove("--no-control-socket")
        env["XDG_RUNTIME_DIR"] = path
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, **env)
    return server.start(log)


@pytest.fixture(scope="session")
def gunicorn_at(tmp_path_factory):
    """Return a folder with another version of gunicorn in it."""

    def install(version: str) -> str:
        folder = tmp_path_factory.mktemp(f"gunicorn-{version}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--target", str(folder), f"gunicorn=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            need(f"gunicorn=={version}", "a package index that can be reached")
        return str(folder)

    return install


def check_hand_off(server: Server) -> None:
    """More streams than threads, each served; leaving is noticed; the end is in order and soon."""
    crowd = Crowd(server, 40)
    server.publish(target="topic", topic="crowd", event="hello", data="all")
    crowd.wait_for(b"data: all\n\n")
    assert server.json("/numbers")["clients"] == 40
    crowd.leave()
    until(lambda: server.json("/numbers")["clients"] == 0, 3)

    sock = server.stream()
    read_until(sock, b"event: welcome")
    server.process.send_signal(signal.SIGTERM)
    assert read_until(sock, b"0\r\n\r\n").count(b"event: close\n") == 1
    sock.close()
    server.process.wait(8)


def test_one_line_of_configuration_is_enough() -> None:
    port = free_port()
    command = gunicorn(port, "-c", "python:sse_broker.gunicorn_conf")
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN).start()
    try:
        check_hand_off(server)
    finally:
        server.stop(signal.SIGKILL)


@pytest.mark.parametrize("version", GUNICORNS)
def test_each_gunicorn_hands_off(version: str, gunicorn_at) -> None:
    server = start(path=gunicorn_at(version))
    try:
        check_hand_off(server)
    finally:
        server.stop(signal.SIGKILL)


def test_an_older_gunicorn_keeps_streams_in_threads_and_says_so_once(gunicorn_at, tmp_path) -> None:
    said = tmp_path / "said.txt"
    server = start(path=gunicorn_at("23.0.0"), log=said)
    try:
        sock = server.stream("&topics=a")
        read_until(sock, b"event: welcome")
        server.publish(target="topic", topic="a", data="x")
        read_until(sock, b"data: x\n\n")
        sock.close()
        assert said.read_text().count("streams stay in their threads") == 1
    finally:
        server.stop()


def test_a_thousand_streams_need_no_more_threads_than_forty() -> None:
    with serve("handoff") as server:
        crowd = Crowd(server, 1000)
        numbers = server.json("/numbers")
        assert numbers["clients"] == 1000
        assert numbers["threads"] < 20
        server.ask("POST", "/burst?n=3")
        crowd.wait_for(b"data: 2;")
        crowd.leave()
        until(lambda: server.json("/numbers")["clients"] == 0, 5)


def test_a_tight_loop_of_10000_reaches_1000_clients_whole_and_in_order() -> None:
    with serve("handoff", SSE_HISTORY_SIZE="20000") as server:
        crowd = Crowd(server, 1000)
        sending = threading.Thread(target=server.ask, args=("POST", "/burst?n=10000"))
        sending.start()
        crowd.wait_for(b"data: 9999;", timeout=120)
        sending.join()
        memory = server.json("/numbers")["rss"]

        for got in crowd.got.values():
            numbers = [int(n) for n in re.findall(rb"^data: (\d+);", bytes(got), re.MULTILINE)]
            assert numbers == list(range(10_000))
            assert not re.search(rb"^event: (dropped|reset|close)", bytes(got), re.MULTILINE)
        crowd.leave()
    print(f"10,000 sends to 1,000 streams: {memory / 2**20:.0f} MiB resident")
    assert memory < 400 * 2**20


def test_clients_that_never_close_stop_nobody() -> None:
    """gunicorn waits for each of them, on its main thread, for up to 2 s."""
    with serve("handoff") as server:
        rude = []
        for _ in range(30):
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            rude.append(sock)
        for sock in rude:
            read_until(sock, b"ok")

        began = time.monotonic()
        assert server.ask("GET", "/healthz")[0] == 200
        assert time.monotonic() - began < 5  # gunicorn's own: a minute
        for sock in rude:
            sock.close()


def test_tls(tmp_path) -> None:
    openssl = need("openssl", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    port = free_port()
    options = ["--keyfile", str(key), "--certfile", str(certificate)]
    command = gunicorn(port, *WORKER, *options)
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, tls=context)
    server.start()
    try:
        socks = [server.stream("&topics=a") for _ in range(12)]
        for sock in socks:
            read_until(sock, b"event: welcome")
        server.ask("POST", "/burst?n=2000&size=100&topic=a")
        for sock in socks:
            got = read_until(sock, b"data: 1999;")
            numbers = [int(n) for n in re.findall(rb"^data: (\d+);", got, re.MULTILINE)]
            assert numbers == list(range(2000))
        socks.pop().close()
        until(lambda: server.json("/numbers")["clients"] == 11, 3)
        server.process.send_signal(signal.SIGTERM)
        assert b"event: close\n" in read_until(socks[0], b"0\r\n\r\n")
    finally:
        server.stop(signal.SIGKILL)


def test_the_access_line_and_the_hook_come_at_the_end_with_all_its_bytes(tmp_path) -> None:
    said = tmp_path / "said.txt"
    options = ["--access-logfile", "-", "--access-logformat", "access %(U)s %(B)s %(M)s"]
    server = start(*options, "-c", "python:tests.live.hooks_conf", log=said)
    try:
        sock = server.stream("&topics=a")
        read_until(sock, b"event: welcome")
        server.publish(target="topic", topic="a", data="x" * 10_000)
        read_until(sock, b"xxx\n\n")
        assert "/sse/stream" not in said.read_text()
        time.sleep(0.3)
        sock.close()

        line = until(lambda: re.search(r"access /sse/stream (\d+) (\d+)", said.read_text()))
        hook = until(lambda: re.search(r"post_request /sse/stream (\d+)", said.read_text()))
        assert int(line[1]) == int(hook[1]) > 10_000
        assert int(line[2]) >= 300  # milliseconds
        assert said.read_text().count("access /sse/stream") == 1
    finally:
        server.stop()


def test_connections_that_were_handed_off_are_counted_until_they_end() -> None:
    server = start("--worker-connections", "10", SSE_RESERVE_THREADS="0")
    try:
        socks = [server.stream() for _ in range(10)]
        for sock in socks:
            read_until(sock, b"event: welcome")
        surplus = socket.create_connection(("127.0.0.1", server.port))
        surplus.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        surplus.settimeout(1.5)
        with pytest.raises(TimeoutError):
            surplus.recv(100)

        for sock in socks:
            sock.close()

        surplus.settimeout(10)
        assert surplus.recv(100).startswith(b"HTTP/1.0 200")
        surplus.close()
    finally:
        server.stop()


def test_a_body_that_a_middleware_encodes_stays_in_its_thread() -> None:
    port = free_port()
    command = gunicorn(port, *WORKER, app="tests.live.encoded:create_app()")
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN).start()
    try:
        sock = server.stream("&topics=a")
        read_until(sock, b"WELCOME")
        server.publish(target="topic", topic="a", data="quiet")
        assert b"DATA: QUIET" in read_until(sock, b"QUIET\n\n")
        sock.close()
    finally:
        server.stop()


def test_statsd_is_told_of_a_stream_at_its_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        server = start("--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}")
        try:
            sock = server.stream()
            read_until(sock, b"event: welcome")
            time.sleep(1.2)
            sock.close()

            while True:  # those of /healthz come first
                got = re.match(rb"gunicorn.request.duration:([\d.]+)\|ms", statsd.recv(1000))
                if got and float(got[1]) > 1000:
                    break
        finally:
            server.stop()
