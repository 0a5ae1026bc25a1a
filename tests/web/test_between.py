"""What is put between a stream and its server sees every byte, and the true end."""

from __future__ import annotations

import _thread
import collections
import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from gunicorn.config import Config
from gunicorn.http.wsgi import Response
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import ClosingIterator

from sse_broker import Broker, BrokerConfig
from sse_broker.core.identity import Identity
from sse_broker.servers.capacity import seats
from sse_broker.testing import read_events
from sse_broker.transport import watch
from sse_broker.web.blueprint import create_blueprint
from sse_broker.web.stream import Stream, take_out_forgotten

pytestmark = pytest.mark.usefixtures("own_watcher")


@pytest.fixture
def own_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_watchers", {})


# As gunicorn's workers serve a request; the module's name is what a frame tells of it.
worker: dict[str, Any] = {"__name__": "gunicorn.workers.gthread"}
exec(
    """
def handle_request(app, environ, resp):
    respiter = app(environ, resp.start_response)
    try:
        for item in respiter:
            resp.write(item)
        resp.close()
    finally:
        if hasattr(respiter, "close"):
            respiter.close()
""",
    worker,
)


class Tap:
    """A middleware that notes what passes, and when it is told the end."""

    def __init__(self, wrap: Callable[[Tap, Any], Any]) -> None:
        self.seen, self.closed, self.exhausted = b"", False, False
        self._wrap = wrap

    def over(self, app: Any) -> Any:
        return lambda environ, start_response: self._wrap(self, app(environ, start_response))

    def note(self, item: bytes) -> bytes:
        self.seen += item
        return item


def generator(tap: Tap, body: Any) -> Iterator[bytes]:
    try:
        for item in body:
            yield tap.note(item)
        tap.exhausted = True
    finally:
        body.close()
        tap.closed = True


def in_c(tap: Tap, body: Any) -> Any:
    return map(tap.note, body)


def chained(tap: Tap, body: Any) -> Any:
    return itertools.chain(map(tap.note, body), ())


def closing(tap: Tap, body: Any) -> Any:
    return ClosingIterator(map(tap.note, body), [body.close])


class Served:
    """One stream under something like a gunicorn worker, read by its peer."""

    def __init__(self, app: Any, method: str = "GET") -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(20)
        self.got = b""
        request = SimpleNamespace(
            method=method, version=(1, 0), should_close=lambda: True, headers=[]
        )
        self.response = Response(request, self.ours, Config())
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/stream",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.0",
            "SERVER_SOFTWARE": "gunicorn",
            "wsgi.url_scheme": "http",
            "wsgi.multithread": True,
            "gunicorn.socket": self.ours,
        }
        self.thread = threading.Thread(target=self._serve, args=(app, environ))
        self.thread.start()

    def _serve(self, app: Any, environ: dict[str, Any]) -> None:
        try:
            worker["handle_request"](app, environ, self.response)
        finally:
            self.ours.close()

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.got:
            piece = self.theirs.recv(65_536)
            assert piece, self.got
            self.got += piece
        return self.got

    def leave(self) -> None:
        self.theirs.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


def app_of(broker: Broker) -> Flask:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, lambda request: Identity(1)))
    return app


@pytest.mark.parametrize("wrap", [generator, in_c, chained, closing])
@pytest.mark.parametrize("where", ["wsgi", "after_request"])
def test_every_byte_passes_what_is_in_between(wrap: Any, where: str) -> None:
    tap = Tap(wrap)
    with Broker() as broker:
        app = app_of(broker)
        if where == "wsgi":
            app.wsgi_app = tap.over(app.wsgi_app)  # type: ignore[method-assign]
        else:

            @app.after_request
            def put_around(response: Any) -> Any:
                response.response = wrap(tap, response.response)
                return response

        one = Served(app)
        one.read_until(b"event: welcome")
        for n in range(3):
            broker.broadcast("n", str(n))
            one.read_until(f"data: {n}\n\n".encode())
            assert f"data: {n}\n\n".encode() in tap.seen
        assert not tap.closed

        broker.disconnect_user(1)
        one.read_until(b"event: close")
        one.thread.join(20)

        assert tap.seen == one.got.partition(b"\r\n\r\n")[2]
        assert [event.event for event in read_events(tap.seen)][-1] == "close"
        assert wrap is not generator or (tap.exhausted and tap.closed)
        assert broker.get_stats().total_clients == 0
        one.leave()


def test_bytes_go_past_a_server_that_iterates_the_stream_itself() -> None:
    with Broker() as broker:
        one = Served(app_of(broker))
        one.read_until(b"event: welcome")
        (stream,) = broker.streams.here()._registry.clients()
        while not stream.queue.armed:
            pass

        broker.broadcast("n", "1")

        one.read_until(b"data: 1\n\n")
        assert stream.transport is not None
        one.leave()


@pytest.mark.parametrize("spoil", ["write of the class", "write of the object"])
def test_no_byte_passes_who_has_replaced_the_servers_write(
    spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    real = Response.write

    def write(response: Any, item: bytes) -> None:
        seen.append(item)
        real(response, item)

    if spoil == "write of the class":
        monkeypatch.setattr(Response, "write", write)
    with Broker() as broker:
        app = app_of(broker)
        inner = app.wsgi_app

        def replace(environ: Any, start_response: Any) -> Any:
            response = start_response.__self__
            if spoil == "write of the object":
                response.write = lambda item: write(response, item)
            return inner(environ, start_response)

        one = Served(replace)
        one.read_until(b"event: welcome")
        broker.broadcast("n", "seen")
        one.read_until(b"data: seen\n\n")

        assert b"data: seen\n\n" in b"".join(seen)
        one.leave()


def test_a_stream_that_is_the_answer_to_head_sends_no_body() -> None:
    with Broker() as broker:
        one = Served(app_of(broker), method="HEAD")  # a middleware has made a GET of it
        one.read_until(b"\r\n\r\n")
        while not broker.get_stats().total_clients:
            pass
        (client,) = broker.streams.here()._registry.clients()
        while not client.queue.armed:
            pass
        broker.broadcast("n", "body")
        one.leave()
        assert b"data" not in one.got


def test_what_the_response_put_off_is_done_at_the_streams_end_and_once() -> None:
    calls: list[str] = []
    with Broker() as broker:
        app = app_of(broker)

        @app.after_request
        def put_off(response: Any) -> Any:
            response.call_on_close(lambda: calls.append("closed"))
            return response

        one = Served(app)
        one.read_until(b"event: welcome")
        assert calls == []
        one.leave()
        assert calls == ["closed"]


def forget(app: Any) -> bytes:
    """Take one item of a stream and drop it, as a middleware may."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/stream", "SERVER_NAME": "localhost"}
    environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http", "QUERY_STRING": ""}
    item: bytes = next(iter(app.wsgi_app(environ, lambda *args: print)))
    return item


def test_a_forgotten_stream_is_taken_out() -> None:
    with Broker() as broker:
        app = app_of(broker)
        before = seats().taken
        assert b"welcome" in forget(app)
        gc.collect()
        assert broker.get_stats().total_clients == 1

        take_out_forgotten()

        assert broker.get_stats().total_clients == 0
        assert seats().taken == before


def test_a_server_in_c_which_has_no_frame_iterates_a_stream_as_any_other() -> None:
    with Broker() as broker:
        ours, theirs = socket.socketpair()
        environ = EnvironBuilder("/stream", environ_base={"gunicorn.socket": ours}).get_environ()
        stream: Any = app_of(broker).wsgi_app(environ, lambda *args: print)
        assert type(stream) is Stream
        got: collections.deque[bytes] = collections.deque()
        done = threading.Event()
        ends = map(lambda _: done.set(), [None])  # noqa: C417  # no frame of Python's here either
        every = itertools.chain(itertools.islice(stream, 2), ends)
        _thread.start_new_thread(got.extend, (every,))
        while not got:
            pass

        broker.broadcast("n", "1")

        assert done.wait(20)
        assert b"data: 1" in got[1]
        stream.close()
        ours.close()
        theirs.close()


def test_a_descriptor_that_comes_again_is_watched_again() -> None:
    left: list[str] = []
    ours, theirs = socket.socketpair()
    watch.watch(ours, lambda reason: left.append("the first"))
    number = ours.fileno()
    ours.close()
    again, peer = socket.socketpair()
    assert number in (again.fileno(), peer.fileno())
    if again.fileno() != number:
        again, peer = peer, again
    gone = threading.Event()
    watch.watch(again, lambda reason: gone.set())

    peer.close()

    assert gone.wait(20)
    assert left == []
    again.close()
    theirs.close()


def test_streams_that_keep_their_threads_are_counted_over_all_brokers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sse_broker.web import stream

    monkeypatch.setattr(stream, "threads_for_streams", lambda server, reserve: 2)
    config = BrokerConfig(reserve_threads=2)
    with Broker(config) as one, Broker(config) as other:
        bodies = [
            app_of(broker).test_client().get("/stream").response for broker in (one, other, one)
        ]
        events = [read_events(body, 1)[0].event for body in bodies]

        assert events == ["welcome", "welcome", "error"]
        assert one.streams.counts().refusals == {"reserve_threads": 1}
        for body in bodies:
            body.close()
        assert seats().taken == 0
