"""Who is let in: what the server can hold, where a request comes from, and how often it does."""

from __future__ import annotations

import signal
import socket
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder

from sse_broker import Broker, BrokerConfig, InvalidConfig, create_blueprint
from sse_broker.app import create_app
from sse_broker.metrics import exposition
from sse_broker.servers import capacity, server_of
from sse_broker.servers.capacity import room_for_streams
from sse_broker.servers.gunicorn import HANDOFF
from sse_broker.testing import read_events
from sse_broker.web import address as addresses

USER = "5b0f1c52-8f0e-4c4e-9d4a-0d3f6f1c7a11"
STREAM = f"/sse/stream?user_id={USER}"
PLAIN = {"Accept": "text/event-stream"}
BEARER = {"Authorization": "Bearer secret"}


@pytest.fixture(autouse=True)
def descriptors_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process bound by what a test is about, and not by its own ulimit."""
    monkeypatch.setattr(capacity, "descriptors", lambda wanted=0: 0)


@pytest.fixture
def worker() -> Iterator[Any]:
    """Make this process one of gunicorn's, with a worker of its own classes."""
    from gunicorn.config import Config
    from gunicorn.workers.base_async import AsyncWorker
    from gunicorn.workers.gthread import ThreadWorker
    from gunicorn.workers.sync import SyncWorker

    kinds = {"gthread": ThreadWorker, "gevent": AsyncWorker, "sync": SyncWorker}
    before = signal.getsignal(signal.SIGTERM)

    made: list[Any] = []

    def become(kind: str, **settings: int) -> None:
        worker = kinds[kind].__new__(kinds[kind])
        worker.alive = True
        made.append(worker)
        worker.cfg = Config()
        for name, value in settings.items():
            worker.cfg.set(name, value)
        signal.signal(signal.SIGTERM, worker.handle_exit)

    yield become
    for worker in made:
        worker.alive = False
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("kind", "threads", "connections", "reserve", "room"),
    [
        ("gthread", 8, 1000, 2, 6),
        ("gthread", 200, 1000, 5, 195),
        ("gthread", 200, 100, 2, 90),
        ("gthread", 200, 100, 20, 80),
        ("gthread", 2, 1000, 2, 1),
        ("gthread", 8, 1000, 0, 0),
        ("gevent", 1, 1000, 2, 900),
        ("gevent", 1, 5, 2, 3),
        ("gevent", 1, 5, 9, 1),
        ("sync", 1, 1000, 2, 0),
    ],
)
def test_gunicorns_threads_and_connections_are_found(
    worker: Any, kind: str, threads: int, connections: int, reserve: int, room: int
) -> None:
    worker(kind, threads=threads, worker_connections=connections)
    assert room_for_streams(server_of({}), reserve) == room


def test_a_stream_that_leaves_its_thread_needs_a_connection_only(worker: Any) -> None:
    worker("gthread", threads=4, worker_connections=1000)
    assert room_for_streams(server_of({HANDOFF: True}), 2) == 900


def test_waitress_threads_are_found() -> None:
    class Channel:
        server = SimpleNamespace(adj=SimpleNamespace(threads=4, connection_limit=100))

        def check_client_disconnected(self) -> bool:
            return False

    environ = {"waitress.client_disconnected": Channel().check_client_disconnected}
    assert room_for_streams(server_of(environ), 1) == 3


def test_an_unknown_server_is_not_limited() -> None:
    assert room_for_streams(server_of({"waitress.client_disconnected": lambda: False}), 2) == 0


def app_of(broker: Broker, **options: object) -> Flask:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, **options), url_prefix="/sse")
    return app


def test_a_worker_without_room_is_busy_before_it_asks_who_it_is(worker: Any) -> None:
    worker("gthread", threads=3)
    asked = []

    def authenticator(request: Any) -> tuple[str, None]:
        asked.append(request)
        return USER, None

    with Broker() as broker:
        client = app_of(broker, authenticator=authenticator).test_client()
        inside = client.get(STREAM, headers=PLAIN)
        assert read_events(inside.response, 1)[0].event == "welcome"

        browser = client.get(STREAM, headers=PLAIN)
        script = client.get(STREAM)

        (error,) = read_events(browser.data)
        assert (browser.status_code, error.event) == (200, "error")
        assert 3000 <= error.retry <= 12_000
        assert script.status_code == 503
        assert int(script.headers["Retry-After"]) >= 3
        assert script.json["field"] == "reserve_threads"
        assert len(asked) == 1
        assert client.head(STREAM).status_code == 200  # it needs no room
        inside.close()


def test_streams_that_passed_the_view_at_once_meet_the_limit_at_their_first_byte(
    worker: Any,
) -> None:
    worker("gthread", threads=3)
    with Broker() as broker:
        app = app_of(broker)

        def body() -> Any:
            return app.wsgi_app(EnvironBuilder(STREAM).get_environ(), lambda *args: print)

        one, two = body(), body()
        assert read_events(one, 1)[0].event == "welcome"
        assert read_events(two, 1)[0].event == "error"
        assert broker.streams.counts().refusals == {"reserve_threads": 1}
        one.close()
        two.close()


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_a_refused_clients_connection_is_not_kept_for_another_request(accept: str) -> None:
    ours, peers = socket.socketpair()
    ours.setblocking(False)
    with Broker(BrokerConfig(max_connections=1)) as broker, ours, peers:
        client = app_of(broker).test_client()
        inside = client.get(STREAM)
        assert is_in(inside)
        headers = {"Accept": accept}
        refused = client.get(STREAM, headers=headers, environ_base={"gunicorn.socket": ours})
        with pytest.raises(BlockingIOError):
            ours.recv(1)

        refused.close()

        assert ours.recv(1) == b""
        ours.send(b"x")
        assert peers.recv(1) == b"x"
        inside.close()


def test_nor_is_that_of_one_who_met_the_limit_at_the_first_byte() -> None:
    ours, peers = socket.socketpair()
    ours.setblocking(False)
    with Broker(BrokerConfig(max_connections=1)) as broker, ours, peers:
        app = app_of(broker)
        environ = EnvironBuilder(STREAM, environ_base={"gunicorn.socket": ours}).get_environ()
        body: Any = app.wsgi_app(environ, lambda *args: print)
        inside = app.test_client().get(STREAM)
        assert is_in(inside)
        assert read_events(body, 1)[0].event == "error"
        with pytest.raises(BlockingIOError):
            ours.recv(1)

        body.close()

        assert ours.recv(1) == b""
        inside.close()


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:50123", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 500, "x" * 64),
    ],
)
def test_an_address_is_counted_as_who_has_it(raw: str, address: str) -> None:
    request: Any = SimpleNamespace(remote_addr=raw, environ={}, headers={})
    assert addresses.client_address(request, "connect_rate") == address


def get(app: Flask, address: str, method: str = "GET", path: str = STREAM, **headers: str) -> Any:
    given = {**PLAIN, **{name.replace("_", "-"): value for name, value in headers.items()}}
    environ = {"REMOTE_ADDR": address}
    body = {"target": "broadcast", "data": "x"} if method == "POST" else None
    return app.test_client().open(
        path, method=method, headers=given, environ_base=environ, json=body
    )


def is_in(response: Any) -> bool:
    return read_events(response.response, 1)[0].event == "welcome"


def test_streams_are_counted_by_the_address_of_the_connection_and_no_header() -> None:
    with Broker(BrokerConfig(max_connections_per_address=1)) as broker:
        app = app_of(broker)
        first = get(app, "192.0.2.1")
        assert is_in(first)

        forged = get(app, "192.0.2.1", X_Forwarded_For="192.0.2.9")
        other = get(app, "192.0.2.2")

        assert not is_in(forged)
        assert is_in(other)
        for response in (first, other):
            response.close()


def test_behind_a_configured_proxy_its_last_word_counts() -> None:
    with Broker(BrokerConfig(max_connections_per_address=1)) as broker:
        app = app_of(broker)
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]
        first = get(app, "", X_Forwarded_For="192.0.2.1")
        assert is_in(first)

        forged = get(app, "", X_Forwarded_For="192.0.2.9, 192.0.2.1")
        other = get(app, "", X_Forwarded_For="192.0.2.2")

        assert not is_in(forged)
        assert is_in(other)
        for response in (first, other):
            response.close()


@pytest.mark.parametrize("setting", ["max_connections_per_address", "connect_rate"])
def test_without_an_address_a_limit_on_addresses_says_what_to_configure(
    setting: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_said", set())
    value: Any = "5/minute" if setting == "connect_rate" else 5
    with Broker(BrokerConfig(**{setting: value})) as broker:
        app = app_of(broker)

        answers = [get(app, "") for _ in range(2)]

        for answer in answers:
            assert answer.status_code == 500
            assert answer.json["field"] == setting
            assert "ProxyFix" in answer.json["error"]
    assert len([r for r in caplog.records if r.name == "sse_broker.address"]) == 1


def test_without_such_a_limit_nobody_needs_an_address(broker: Broker) -> None:
    response = get(app_of(broker), "")
    assert is_in(response)
    assert broker.streams.here()._clients()[0].address == ""
    response.close()


def test_a_rate_is_refused_in_the_form_the_client_understands() -> None:
    with Broker(BrokerConfig(connect_rate="1/year")) as broker:
        app = app_of(broker, authenticator=lambda request: (request.args["user_id"], None))
        get(app, "192.0.2.1").close()

        browser = get(app, "192.0.2.1")
        script = get(app, "192.0.2.1", Accept="*/*")

        (error,) = read_events(browser.data)
        assert (browser.status_code, error.event) == (200, "error")
        assert error.retry == 60_000  # a year, of which a browser is told a minute
        assert script.status_code == 429
        assert int(script.headers["Retry-After"]) > 60
        assert broker.streams.counts().connections_refused == 2


def test_a_rate_of_addresses_holds_for_who_cannot_say_who_they_are() -> None:
    with Broker(BrokerConfig(connect_rate="1/year")) as broker:
        app = app_of(broker, authenticator=lambda request: None)
        statuses = [get(app, "192.0.2.1", Accept="*/*").status_code for _ in range(2)]
    assert statuses == [401, 429]


def test_a_rate_of_users_holds_from_wherever_they_come() -> None:
    with Broker(BrokerConfig(connect_rate_per_user="1/year")) as broker:
        app = app_of(broker)
        first, again = get(app, "192.0.2.1"), get(app, "192.0.2.2")
        other = get(app, "192.0.2.1", path=f"/sse/stream?user_id={uuid.uuid4()}")

        assert [is_in(one) for one in (first, again, other)] == [True, False, True]
        first.close()
        other.close()


def test_publishing_too_often_is_429_and_is_not_published() -> None:
    with Broker(BrokerConfig(publish_rate="2/year")) as broker:
        app = app_of(broker, publish_authenticator="secret")
        answers = [
            get(app, "192.0.2.1", "POST", "/sse/publish", **BEARER).status_code for _ in range(3)
        ]
        refused = get(app, "192.0.2.1", "POST", "/sse/publish", **BEARER)
        other = get(app, "192.0.2.2", "POST", "/sse/publish", **BEARER)

        assert answers == [200, 200, 429]
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json["field"] == "publish_rate"
        assert other.status_code == 200
        assert broker.streams.counts().messages_published == 3
        assert broker.streams.counts().refusals == {"publish_rate": 2}
        assert broker.streams.counts().connections_refused == 0


def test_who_tries_publish_tokens_is_counted_before_they_are_looked_at() -> None:
    with Broker(BrokerConfig(publish_rate="2/year")) as broker:
        app = app_of(broker, publish_authenticator="secret")
        tries = [get(app, "192.0.2.1", "POST", "/sse/publish").status_code for _ in range(4)]
        other = get(app, "192.0.2.2", "POST", "/sse/publish", **BEARER).status_code

    assert tries == [401, 401, 429, 429]
    assert other == 200


def test_metrics_tell_refusals_by_their_limit() -> None:
    with Broker(BrokerConfig(connect_rate_per_user="1/year")) as broker:
        app = app_of(broker)
        for _ in range(3):
            get(app, "192.0.2.1").close()
        text = exposition(broker.streams)[0].decode()
    assert 'sse_refusals_total{limit="connect_rate_per_user"} 2.0' in text
    assert "sse_connections_refused_total 2.0" in text
    assert "sse_rates_unchecked_total 0.0" in text


def test_the_hub_believes_as_many_proxies_as_it_is_told() -> None:
    config = {"SSE_DEV_AUTH": "1", "SSE_MAX_CONNECTIONS_PER_ADDRESS": "1"}
    for proxies, lets_in in (("0", False), ("1", True)):
        hub = create_app({**config, "SSE_PROXIES": proxies})
        first = get(hub, "127.0.0.1", X_Forwarded_For="192.0.2.1")
        second = get(hub, "127.0.0.1", X_Forwarded_For="192.0.2.2")
        assert is_in(first)
        assert is_in(second) is lets_in
        first.close()
        second.close()
        hub.extensions["sse"].stop()
    with pytest.raises(InvalidConfig, match="SSE_PROXIES"):
        create_app({**config, "SSE_PROXIES": "yes"})
