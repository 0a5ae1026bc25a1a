"""Direct writes: gunicorn's response over a socket pair, iterated by a thread as gunicorn does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from sse_broker import Broker, BrokerConfig, Identity
from sse_broker.testing import read_events
from sse_broker.transport.host import Host
from sse_broker.transport.transport import State
from sse_broker.web.blueprint import create_blueprint
from tests.core.streams import LIBRARY
from tests.live.servers import until

pytestmark = pytest.mark.usefixtures("own_watcher")


GUNICORN = """
def handle_request(served, resp):
    respiter = served.app(served.environ, resp.start_response)
    try:
        for item in respiter:
            served.yielded += 1
            resp.write(item)
        resp.close()
    finally:
        respiter.close()
"""
gthread: dict[str, Any] = {"__name__": "gunicorn.workers.gthread"}
exec(GUNICORN, gthread)
handle_request: Any = gthread["handle_request"]


class Served:
    """One stream, its server's thread, and the peer that reads."""

    def __init__(self, broker: Broker, *, version=(1, 1), wrap=None, welcome=True):
        self.broker = broker
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(20)
        self.got, self.yielded, self.failed = b"", 0, None
        request = SimpleNamespace(
            method="GET", version=version, should_close=lambda: True, headers=[]
        )
        self.response = Response(request, self.ours, Config())
        app = Flask(__name__)
        app.register_blueprint(create_blueprint(broker, lambda request: Identity(1)))
        self.app = wrap(app) if wrap else app
        self.environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/stream",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": f"HTTP/{version[0]}.{version[1]}",
            "SERVER_SOFTWARE": "gunicorn",
            "wsgi.url_scheme": "http",
            "wsgi.multithread": True,
            "gunicorn.socket": self.ours,
        }
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        if welcome:
            self.read_until(b"event: welcome")
        else:
            until(lambda: broker.get_stats().total_clients == 1)
        self.wait_for_rest()

    def _serve(self) -> None:
        try:
            handle_request(self, self.response)
        except OSError as err:
            self.failed = err
        finally:
            self.ours.close()

    @property
    def client(self) -> Any:
        (client,) = self.broker.streams.here()._registry.clients()
        return client

    @property
    def head(self) -> bytes:
        return self.got.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """The body, out of its chunks if it is in some."""
        rest = self.got.partition(b"\r\n\r\n")[2]
        if b"chunked" not in self.head:
            return rest
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if len(rest) < int(size, 16) + 2:
                break
            body += rest[: int(size, 16)]
            assert rest[int(size, 16) :][:2] == b"\r\n"
            rest = rest[int(size, 16) + 2 :]
        return body

    @property
    def data(self) -> list[str]:
        return [one.data for one in read_events(self.body) if one.event not in LIBRARY]

    def read_until(self, what: bytes) -> Served:
        while what not in self.got:
            piece = self.theirs.recv(65_536)
            if not piece:
                break
            self.got += piece
        return self

    def wait_for_rest(self) -> Served:
        """Wait until the stream has nothing to do but to wait."""
        end = time.monotonic() + 20
        while not self.client.queue.armed and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.005)  # the turn is over too
        return self

    def wait_for_end(self) -> Served:
        while self.theirs.recv(65_536):
            pass
        self.thread.join(20)
        return self

    def leave(self) -> None:
        self.theirs.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def serve():
    made = []

    def make(*, config: dict[str, Any] | None = None, **how: Any) -> Served:
        broker = Broker(BrokerConfig(**config or {}))
        made.append(Served(broker, **how))
        return made[-1]

    yield make
    for one in made:
        one.leave()
        one.broker.stop()


@pytest.mark.parametrize("version", [(1, 0), (1, 1)])
def test_a_message_is_written_where_it_is_sent_and_its_stream_sleeps_on(serve, version) -> None:
    one = serve(version=version)
    before = one.yielded

    for n in range(3):
        one.broker.broadcast("e", f"message {n}")
        one.read_until(b"message %d\n\n" % n).wait_for_rest()

    assert one.data == ["message 0", "message 1", "message 2"]
    assert one.yielded == before
    assert one.client.sent == 3
    one.broker.disconnect_user(1)
    one.read_until(b"event: close").wait_for_end()
    assert one.response.sent == len(one.body)
    assert (b"chunked" in one.head) == (version == (1, 1))


def test_a_burst_gathers_and_its_stream_sleeps_on(serve, monkeypatch) -> None:
    monkeypatch.setattr(Host, "PAUSE", 60.0)
    one = serve()
    before = one.yielded
    for n in range(100):
        one.broker.broadcast("e", str(n))
    one.broker.broadcast("e", "last")
    one.read_until(b"last\n\n").wait_for_rest()

    assert one.data == [*map(str, range(100)), "last"]
    assert one.yielded == before
    chunks = one.got.partition(b"welcome")[2].count(b"\r\n") // 2
    assert chunks < 50


def test_a_socket_that_takes_a_part_gets_the_rest_from_its_stream_and_in_order(serve) -> None:
    one = serve(config={"client_buffer_size": 10_000})
    one.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for n in range(40):
        one.broker.broadcast("e", f"{n} " + n * 1000 * "x")
        time.sleep(0.002)
    one.broker.broadcast("e", "last")
    one.read_until(b"last\n\n")

    assert [data.split()[0] for data in one.data] == [*map(str, range(40)), "last"]
    assert [len(data.split()[1]) for data in one.data[1:-1]] == [n * 1000 for n in range(1, 40)]


def test_who_puts_in_a_start_response_of_its_own_sees_every_byte(serve) -> None:
    def shouting(app: Any) -> Any:
        def wrapped(environ: Any, start_response: Any) -> Any:
            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                return start_response(status, headers, exc_info)

            body = app(environ, start)
            return Upper(body)

        return wrapped

    one = serve(wrap=shouting)
    one.broker.broadcast("e", "loud")
    one.read_until(b"LOUD")

    assert b"data: loud" not in one.got


class Upper:
    def __init__(self, body: Any) -> None:
        self.body = body

    def __iter__(self) -> Any:
        for item in self.body:
            yield item.replace(b"loud", b"LOUD")

    def close(self) -> None:
        self.body.close()


@pytest.mark.parametrize("first", [0, 10])
def test_who_holds_bytes_back_sees_every_one(serve, first: int) -> None:
    def late(app: Any) -> Any:
        def wrapped(environ: Any, start_response: Any) -> Any:
            return Late(app(environ, start_response), first)

        return wrapped

    one = serve(wrap=late, welcome=False)
    for n in range(3):
        one.broker.broadcast("e", f"message {n}")
        time.sleep(0.01)
    one.read_until(b"message 1")

    assert one.got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert one.data[:2] == ["message 0", "message 1"]
    assert b"welcome" in one.body.partition(b"message 0")[0]


class Late:
    """Passes each item on, but for its first bytes, when the next one is there."""

    def __init__(self, body: Any, first: int) -> None:
        self.body, self.first = body, first

    def __iter__(self) -> Any:
        before = b""
        for item in self.body:
            piece = before + item[: self.first]
            if piece:
                yield piece
            before = item[self.first :]
        yield before

    def close(self) -> None:
        self.body.close()


def test_a_stream_that_was_told_to_end_gets_nothing_after_it(serve) -> None:
    one = serve()
    client = one.client
    one.broker.broadcast("e", "before")
    one.broker.disconnect_user(1, "enough")
    one.broker.broadcast("e", "after")
    one.read_until(b"0\r\n\r\n")

    assert one.data == ["before"]
    assert client.reason == "enough"


def test_a_peer_that_is_gone_ends_its_stream(serve) -> None:
    one = serve()
    client = one.client
    one.theirs.close()
    one.broker.broadcast("e", "x")
    one.broker.broadcast("e", "y")
    one.thread.join(20)

    assert not one.thread.is_alive()
    assert not client.is_open
    assert one.broker.get_stats().total_clients == 0


def test_a_replay_that_ran_ahead_is_not_repeated_and_a_heartbeat_is_the_stream_s_own(serve) -> None:
    one = serve()
    reader = one.client.transport.reader
    reader.cursor += 1  # as if the log had given it already
    one.broker.broadcast("e", "known")
    one.wait_for_rest()
    assert one.client.transport.state is State.IDLE
    one.broker.broadcast("e", "new")
    one.read_until(b"new\n\n").wait_for_rest()
    one.client.beat(reader.cursor)
    one.read_until(b"heartbeat")

    assert one.data == ["new"]


@pytest.mark.slow
def test_all_of_this_under_gevent() -> None:
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("socket"):
        pytest.skip("this is under gevent")
    run = (
        "from gevent import monkey; monkey.patch_all(); import pytest, sys;"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gevent_turns", "gevent_said"])
def test_the_hub(what: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", f"tests.transport.{what}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("ok\n", "")
