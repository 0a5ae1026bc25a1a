"""A failure at any point between the view and the pump leaves nothing behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from gunicorn.config import Config
from gunicorn.http.wsgi import Response
from werkzeug.test import EnvironBuilder

from sse_broker import Broker, create_blueprint
from sse_broker.core.identity import Identity
from sse_broker.gunicorn.handoff import Detach, Handoff, Leaving, left
from sse_broker.servers.capacity import seats
from sse_broker.servers.gunicorn import HANDOFF
from sse_broker.web.stream import Stream


class Request:
    """One request up to where the worker has what the app returned."""

    def __init__(self, broker: Broker, adopt: Any) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.calls: list[str] = []
        app = Flask(__name__)
        app.register_blueprint(create_blueprint(broker, lambda request: Identity(1)))

        @app.after_request
        def put_off(response: Any) -> Any:
            response.call_on_close(lambda: self.calls.append("closed"))
            return response

        request = SimpleNamespace(
            method="GET", version=(1, 1), should_close=lambda: True, headers=[]
        )
        self.response = Response(request, self.ours, Config())
        more = {"gunicorn.socket": self.ours, HANDOFF: True}
        self.environ = EnvironBuilder("/stream", environ_base=more).get_environ()
        body: Any = app.wsgi_app(self.environ, self.response.start_response)
        assert type(body) is Stream
        self.handed_back = 0
        worker: Any = SimpleNamespace(
            pump=SimpleNamespace(restart=lambda: None, adopt=adopt),
            keeps_requests=False,
            handed_back=self._count,
        )
        self.handoff = self.environ[HANDOFF] = Handoff(worker, self.response, self.environ, body)
        self.body = Leaving(self.handoff)

    def _count(self) -> None:
        self.handed_back += 1

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as made:
        yield made


def nothing_is_left(broker: Broker) -> bool:
    return broker.get_stats().total_clients == 0 and seats().taken == 0


def test_a_stream_leaves_with_its_headers_and_first_frames(broker: Broker) -> None:
    adopted: list[tuple[Any, ...]] = []
    one = Request(broker, lambda *given: adopted.append(given))

    with pytest.raises(Detach) as leaving:
        next(one.body)
    one.body.close()  # as gunicorn does in its finally clause
    leaving.value.handoff.adopt(leaving.value.handed, one.ours)

    sent = one.theirs.recv(65_536)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"event: welcome" in sent
    assert sent.endswith(b"\r\n")
    assert left(one.environ) is one.handoff
    assert one.response.sock is one.ours
    assert broker.get_stats().total_clients == 1
    assert one.calls == []

    ((_, _, chunked, on_end),) = adopted
    assert chunked
    on_end(0)

    assert nothing_is_left(broker)
    assert (one.calls, one.handed_back) == (["closed"], 1)
    one.close()


def test_a_server_that_never_iterates_leaves_nothing(broker: Broker) -> None:
    one = Request(broker, None)
    one.body.close()
    assert nothing_is_left(broker)
    assert one.calls == ["closed"]
    one.close()


def test_a_client_that_left_before_its_headers_leaves_nothing(broker: Broker) -> None:
    one = Request(broker, None)
    one.theirs.close()

    with pytest.raises(OSError, match="Broken pipe"):
        next(one.body)
    one.body.close()

    assert nothing_is_left(broker)
    assert one.calls == ["closed"]
    assert left(one.environ) is None
    one.close()


def test_a_response_that_cannot_be_written_leaves_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Request(broker, None)

    def fail(self: Any) -> None:
        raise RuntimeError("no headers")

    monkeypatch.setattr(Response, "send_headers", fail)
    with pytest.raises(RuntimeError):
        next(one.body)
    one.body.close()

    assert one.response.sock is one.ours
    assert nothing_is_left(broker)
    one.close()


def test_a_pump_that_does_not_take_it_leaves_nothing(broker: Broker) -> None:
    def fail(*given: Any) -> None:
        raise OSError("closed")

    one = Request(broker, fail)
    with pytest.raises(Detach) as leaving:
        next(one.body)
    with pytest.raises(OSError, match="closed"):
        leaving.value.handoff.adopt(leaving.value.handed, one.ours)

    assert nothing_is_left(broker)
    assert one.calls == ["closed"]
    one.close()


def test_a_stream_that_is_refused_is_sent_by_gunicorn_and_ends(broker: Broker) -> None:
    one = Request(broker, None)
    broker.stop()

    frames = b"".join(one.body)

    assert b"event: error" in frames
    one.body.close()
    assert nothing_is_left(broker)
    assert one.calls == ["closed"]
    one.close()
