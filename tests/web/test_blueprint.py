"""The HTTP surface, through Flask's test client."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import jwt
import pytest
from flask import Flask, abort
from werkzeug.test import EnvironBuilder

from sse_broker import (
    SSE,
    Broker,
    BrokerConfig,
    Client,
    Identity,
    InvalidConfig,
    create_blueprint,
    current_broker,
    event_stream,
    jwt_authenticator,
)
from sse_broker.app import create_app
from sse_broker.core.client import State
from sse_broker.testing import FakeClock, read_events

USER = "5b0f1c52-8f0e-4c4e-9d4a-0d3f6f1c7a11"
STREAM = f"/sse/stream?user_id={USER}"
BEARER = {"Authorization": "Bearer secret"}
PLAIN = {"Accept": "text/event-stream"}
KEY = "k" * 32


def make(broker: Broker, *args: object, **options: object):
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, *args, **options), url_prefix="/sse")
    return app.test_client()


def first(response, count: int = 1):
    return read_events(response.response, count)


def test_a_stream_has_its_headers_and_begins_with_welcome(broker: Broker) -> None:
    response = make(broker).get(STREAM + "&topics=a:*,b")

    (welcome,) = first(response)

    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in response.headers
    assert welcome.event == "welcome"
    assert 2400 <= welcome.retry <= 3600
    assert json.loads(welcome.data)["heartbeat"] == broker.config.heartbeat_interval
    (client,) = broker.streams.here()._clients()
    assert client.topics == ("a:*", "b")
    response.close()
    assert broker.get_stats().total_clients == 0


def body_of(app: Flask, method: str = "GET"):
    """Call the app as a server does; its test client takes a first chunk by itself."""
    return app.wsgi_app(EnvironBuilder(STREAM, method=method).get_environ(), lambda *args: print)


def test_nothing_is_registered_before_the_first_byte(broker: Broker) -> None:
    app = make(broker).application
    for method in ("GET", "HEAD", "OPTIONS"):
        body = body_of(app, method)
        body.close()
        body.close()
    assert broker.get_stats().client_connects == 0

    body = body_of(app)
    next(iter(body))
    assert broker.get_stats().total_clients == 1
    body.close()
    assert broker.get_stats().total_clients == 0


def test_the_header_wins_over_the_query(broker: Broker) -> None:
    ids = [broker.send_to_user(USER, "e", str(n)) for n in range(3)]
    broker.start()

    response = make(broker).get(
        f"{STREAM}&last_event_id={ids[1]}", headers={"Last-Event-ID": ids[0]}
    )
    by_query = make(broker).get(f"{STREAM}&last_event_id={ids[1]}")

    assert [e.data for e in first(response, 3)[1:]] == ["1", "2"]
    assert [e.data for e in first(by_query, 2)[1:]] == ["2"]
    response.close()
    by_query.close()


def test_an_id_that_proves_nothing_begins_with_reset(broker: Broker) -> None:
    response = make(broker).get(STREAM, headers={"Last-Event-ID": "no such: id"})

    reset, welcome = first(response, 2)

    assert (reset.event, reset.data) == ("reset", '{"reason":"malformed"}')
    assert welcome.event == "welcome"
    assert welcome.id == reset.id
    response.close()


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("", 400, "user_id"),
        ("?user_id=bob", 400, "user_id"),
        (f"?user_id={uuid.UUID(int=0)}", 400, "user_id"),
        (f"?user_id={USER}&tenant_id=x", 400, "tenant_id"),
        (f"?user_id={USER}&topics=a::b", 400, "topic"),
        (f"?user_id={USER}&topics=**:a", 400, "topics"),
    ],
)
def test_bad_input_is_told_which_field(broker: Broker, query: str, status: int, field: str) -> None:
    response = make(broker).get("/sse/stream" + query)

    assert response.status_code == status
    assert response.json["field"] == field


def test_topics_that_are_switched_off() -> None:
    with Broker(BrokerConfig(enable_topics=False)) as broker:
        response = make(broker).get(STREAM + "&topics=a")
    assert response.status_code == 500
    assert response.json["error"] == "topics not enabled"


@pytest.mark.parametrize("setting", ["max_connections", "max_connections_per_user"])
def test_a_full_house_says_come_back_in_the_form_the_client_understands(setting: str) -> None:
    with Broker(BrokerConfig(**{setting: 1})) as broker:
        client = make(broker)
        inside = client.get(STREAM, headers=PLAIN)
        first(inside)

        browser = client.get(STREAM, headers=PLAIN)
        script = client.get(STREAM, headers={"Accept": "*/*"})
        asked = client.get(STREAM + "&on_refuse=status", headers=PLAIN)

        assert browser.status_code == 200
        (error,) = read_events(browser.data)
        assert error.event == "error"
        assert "too many connections" in error.data
        assert error.retry >= 1000
        assert script.status_code == asked.status_code == 503
        assert int(script.headers["Retry-After"]) >= 1
        assert broker.get_stats().connections_refused == 3
        inside.close()
        again = client.get(STREAM, headers=PLAIN)
        assert first(again)[0].event == "welcome"
        again.close()


def test_room_that_vanishes_before_the_first_byte_is_refused_in_the_stream() -> None:
    with Broker(BrokerConfig(max_connections=1)) as broker:
        app = make(broker).application
        one, two = body_of(app), body_of(app)

        assert read_events(one, 1)[0].event == "welcome"
        assert [e.event for e in read_events(two)] == ["error"]
        one.close()
        two.close()


def test_a_stopped_broker_refuses_and_is_not_ready() -> None:
    broker = Broker()
    client = make(broker)
    assert client.get("/sse/readyz").json["status"] == "ok"
    broker.start()
    assert client.get("/sse/readyz").status_code == 200
    broker.stop()

    assert client.get("/sse/readyz").status_code == 503
    assert client.get("/sse/healthz").status_code == 200
    assert client.get(STREAM).status_code == 503
    broker.start()
    response = client.get(STREAM)
    assert first(response)[0].event == "welcome"
    response.close()
    broker.stop()


def test_authentication_that_raises_is_401_and_an_abort_is_its_own(broker: Broker, caplog) -> None:
    def fails(request):
        raise LookupError("token=s3cr3t\nforged line")

    def aborts(request):
        abort(403, "not you")

    assert make(broker, fails).get(STREAM).status_code == 401
    assert make(broker, aborts).get(STREAM).status_code == 403
    assert make(broker, lambda request: None).get(STREAM).status_code == 401
    assert "s3cr3t" not in caplog.text


def test_an_authorizer_that_says_no_is_403() -> None:
    with Broker(authorizer=lambda identity, topic: topic != "secret") as broker:
        response = make(broker).get(STREAM + "&topics=open,secret")
    assert response.status_code == 403
    assert response.json["field"] == "topics"


def test_a_tenant_can_be_required() -> None:
    with Broker(BrokerConfig(require_tenant=True)) as broker:
        client = make(broker, publish_authenticator="secret")
        assert client.get(STREAM).status_code == 401
        ok = client.get(f"{STREAM}&tenant_id={uuid.uuid4()}")
        assert first(ok)[0].event == "welcome"
        ok.close()
        refused = client.post(
            "/sse/publish", json={"target": "broadcast", "data": "x"}, headers=BEARER
        )
        assert (refused.status_code, refused.json["field"]) == (400, "tenant_id")


def test_publishing_is_absent_without_an_authenticator(broker: Broker) -> None:
    client = make(broker)
    assert client.post("/sse/publish", json={}).status_code == 404
    assert client.get("/sse/stats").status_code == 404
    with pytest.raises(InvalidConfig):
        create_blueprint(broker, publish_authenticator="")


def test_publishing_needs_its_token(broker: Broker) -> None:
    client = make(broker, publish_authenticator="secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        body = {"target": "broadcast", "data": "x"}
        assert client.post("/sse/publish", json=body, headers=headers).status_code == 401
        assert client.get("/sse/stats", headers=headers).status_code == 401
        assert client.get("/sse/online", headers=headers).status_code == 401
    assert broker.get_stats().messages_published == 0


def test_publishing_reaches_clients(broker: Broker) -> None:
    client = make(broker, publish_authenticator="secret")
    me = Client(USER, topics=["a:b"])
    broker.register(me)
    for body in (
        {"target": "user", "user_id": USER, "event": "e", "data": {"a": 1}},
        {"target": "topic", "topic": "a:b", "data": "x", "id": "own-1", "retry": 2000},
        {"target": "broadcast", "data": None, "all_tenants": True},
    ):
        response = client.post("/sse/publish", json=body, headers=BEARER)
        assert response.status_code == 200
        assert me.queue.get(timeout=1).id == response.json["id"]
    assert client.get("/sse/stats", headers=BEARER).json["messages_published"] == 3
    assert client.get("/sse/online", headers=BEARER).json == {"users": [USER]}
    broker.unregister(me)


BAD_BODIES = [
    ([], ""),
    ({"data": "x"}, "target"),
    ({"target": "broadcast"}, "data"),
    ({"target": "nobody", "data": "x"}, "target"),
    ({"target": ["user"], "data": "x"}, "target"),
    ({"target": "user", "data": "x"}, "user_id"),
    ({"target": "user", "user_id": "", "data": "x"}, "user_id"),
    ({"target": "topic", "data": "x"}, "topic"),
    ({"target": "topic", "topic": "a:*", "data": "x"}, "topic"),
    ({"target": "topic", "topic": ["a"], "data": "x"}, "topic"),
    ({"target": "broadcast", "data": "x", "event": "a\nb"}, "event"),
    ({"target": "broadcast", "data": "x", "event": 7}, "event"),
    ({"target": "broadcast", "data": "x", "event": "close"}, "event"),
    ({"target": "broadcast", "data": "x", "id": "a b"}, "id"),
    ({"target": "broadcast", "data": "x", "id": 5}, "id"),
    ({"target": "broadcast", "data": "x", "retry": 1}, "retry"),
    ({"target": "broadcast", "data": "x", "tenant_id": ""}, "tenant_id"),
    ({"target": "broadcast", "data": "x", "tenant_id": "t", "all_tenants": True}, "all_tenants"),
    ({"target": "broadcast", "data": "x", "colour": "red"}, "colour"),
    ({"target": "broadcast", "data": "\ud800"}, "data"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
def test_a_bad_body_is_told_its_field_and_nothing_is_sent(
    broker: Broker, body: object, field: str
) -> None:
    client = make(broker, publish_authenticator="secret")

    response = client.post("/sse/publish", json=body, headers=BEARER)

    assert response.status_code == 400
    assert response.json.get("field", "") == field
    assert broker.log.tail() == 0


def test_what_is_not_json_or_too_large_is_refused(broker: Broker) -> None:
    client = make(broker, publish_authenticator="secret")
    form = client.post("/sse/publish", data={"target": "broadcast"}, headers=BEARER)
    broken = client.post("/sse/publish", data="{", content_type="application/json", headers=BEARER)
    large = {"target": "broadcast", "data": "x" * 300_000}
    too_large = client.post("/sse/publish", json=large, headers=BEARER)
    huge = client.post("/sse/publish", json={"data": "x" * 2_000_000}, headers=BEARER)

    assert [r.status_code for r in (form, broken, too_large, huge)] == [400, 400, 413, 413]
    assert broker.log.tail() == 0


CLAIMS = {"sub": USER, "exp": time.time() + 3600, "aud": "app", "iss": "me"}


def token(**claims: object) -> str:
    body = {**CLAIMS, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, KEY, "HS256")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "rubbish",
        jwt.encode({**CLAIMS}, "o" * 32, "HS256"),
        jwt.encode({**CLAIMS}, "", "none"),
        jwt.encode({**CLAIMS}, "k" * 64, "HS512"),
        token(exp=time.time() - 5),
        token(exp=None),
        token(sub=None),
        token(aud="other"),
        token(iss="other"),
        token(topics="a:b"),
        token(sub=""),
    ],
)
def test_a_bad_token_is_401_before_anything_else(broker: Broker, bad: str) -> None:
    client = make(broker, jwt_authenticator(KEY, issuer="me", audience="app"))
    headers = {"Authorization": f"Bearer {bad}"} if bad else {}

    assert client.get("/sse/stream", headers=headers).status_code == 401
    assert broker.get_stats().client_connects == 0


def test_a_good_token_is_taken_from_header_cookie_or_query(broker: Broker) -> None:
    good = token(aud="app", iss="me", tenant_id="t1")
    authenticator = jwt_authenticator(
        KEY, audience="app", issuer="me", cookie="session_token", query="token"
    )
    for way in ("header", "cookie", "query"):
        client = make(broker, authenticator)
        if way == "cookie":
            client.set_cookie("session_token", good)
        headers = {"Authorization": f"Bearer {good}"} if way == "header" else {}
        query = f"?token={good}" if way == "query" else ""
        response = client.get("/sse/stream" + query, headers=headers)
        assert first(response)[0].event == "welcome"
        (one,) = broker.streams.here()._clients()
        assert (one.user_id, one.tenant_id) == (USER, "t1")
        response.close()


def test_granted_topics_bound_what_can_be_asked_for(broker: Broker) -> None:
    client = make(broker, jwt_authenticator(KEY, audience="app", issuer="me", query="token"))
    good = token(topics=["a:*", "b"])
    for topics, status in [("a:b,b", 200), ("a:*", 200), ("a:**", 403), ("c", 403), ("**", 403)]:
        response = client.get(f"/sse/stream?token={good}&topics={topics}")
        assert response.status_code == status, topics
        response.close()


def test_a_stream_ends_with_its_token() -> None:
    clock = FakeClock(unix_time=time.time())
    with Broker(clock=clock) as broker:
        response = make(
            broker, jwt_authenticator(KEY, audience="app", issuer="me", query="token")
        ).get(f"/sse/stream?token={token(exp=time.time() + 60)}")
        chunks = iter(response.response)
        next(chunks)
        clock.advance(61)
        here = broker.streams.here()
        here.reaper.sweep(clock.monotonic(), clock.time())

        (close,) = read_events(chunks)
        assert (close.event, close.data) == ("close", '{"reason":"expired"}')
        assert broker.get_stats().total_clients == 0


def test_a_key_or_algorithm_that_is_none_is_refused() -> None:
    for options in (
        {"key": ""},
        {"key": KEY, "algorithms": []},
        {"key": KEY, "algorithms": ["none"]},
    ):
        with pytest.raises(InvalidConfig):
            jwt_authenticator(**options)


@pytest.mark.parametrize("module", ["jwt", "prometheus_client"])
def test_a_missing_extra_is_named_with_the_pip_line(module: str, monkeypatch, broker) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InvalidConfig, match="pip install 'sse-broker"):
        if module == "jwt":
            jwt_authenticator(KEY)
        else:
            __import__("sse_broker.metrics").metrics.exposition(broker.streams)


def test_metrics_have_the_seeds_names_and_follow(broker: Broker) -> None:
    client = make(broker)
    response = client.get(STREAM)
    first(response)
    broker.send_to_user(USER, "e", "x")
    next(iter(response.response))
    text = client.get("/sse/metrics").text

    for name, value in [
        ("sse_active_connections_total", 1),
        ("sse_messages_sent_total", 1),
        ("sse_messages_dropped_total", 0),
        ("sse_client_connect_total", 1),
        ("sse_client_disconnect_total", 0),
    ]:
        assert f"\n{name} {value}.0\n" in text
    assert USER not in text
    response.close()


ORIGIN = {"Origin": "https://app.example.com"}


def test_only_origins_on_the_list_may_come_from_other_sites(broker: Broker) -> None:
    client = make(broker, cors_origins=["https://app.example.com"])
    for origin, site, status in [
        ("https://app.example.com", "cross-site", 200),
        ("https://app.example.com.evil.example.com", "cross-site", 403),
        ("https://evil.example.com", "", 403),
        ("https://evil.example.com", "same-site", 403),
        ("null", "cross-site", 403),
        ("http://localhost", "", 200),
        ("http://localhost", "same-origin", 200),
    ]:
        headers = {"Origin": origin, "Sec-Fetch-Site": site} if site else {"Origin": origin}
        response = client.head(STREAM, headers=headers)
        assert response.status_code == status, (origin, site)
        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert allowed == (origin if origin == ORIGIN["Origin"] else None)
        assert "Origin" in response.headers["Vary"]


def test_a_preflight_is_answered_for_the_list_only(broker: Broker) -> None:
    client = make(broker, cors_origins="https://app.example.com, https://b.example.com")
    good = client.options(STREAM, headers=ORIGIN)
    bad = client.options(STREAM, headers={"Origin": "https://evil.example.com"})

    assert "Last-Event-ID" in good.headers["Access-Control-Allow-Headers"]
    assert good.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Origin" not in bad.headers
    for wrong in ("*", "app.example.com", "https://app.example.com/"):
        with pytest.raises(InvalidConfig):
            create_blueprint(broker, cors_origins=[wrong])


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"wsgi.multithread": False}, "gthread"),
        ({"wsgi.multithread": True, "SERVER_PROTOCOL": "HTTP/2"}, "HTTP/2"),
    ],
)
def test_a_server_that_cannot_stream_is_told_the_cure(
    broker: Broker, environ: dict[str, object], says: str
) -> None:
    environ = {"SERVER_SOFTWARE": "gunicorn/27", **environ}
    response = make(broker).get(STREAM, environ_overrides=environ)

    assert response.status_code == 500
    assert response.json["error"].startswith("SSE not supported")
    assert says in response.json["error"]


def test_the_extension_reads_its_configuration() -> None:
    def factory(name: str) -> Flask:
        app = Flask(name)
        app.config.update(SSE_CLIENT_BUFFER_SIZE=7, SSE_URL_PREFIX="/push", SSE_PUBLISH_TOKEN="t")
        sse.init_app(app)
        return app

    sse = SSE()
    with pytest.raises(Exception, match="init_app"):
        sse.broadcast("e", "x")
    one, two = factory("one"), factory("two")
    assert one.extensions["sse"] is not two.extensions["sse"]
    with one.app_context():
        assert sse.broker is one.extensions["sse"]
        assert current_broker.config.client_buffer_size == 7
        assert sse.send_to_user(USER, "e", "x")
    assert sse.broker is two.extensions["sse"]
    assert (
        one.test_client().get("/push/stats", headers={"Authorization": "Bearer t"}).status_code
        == 200
    )
    with pytest.raises(InvalidConfig, match="already"):
        sse.init_app(one)
    wrong = Flask("wrong")
    wrong.config["SSE_RETRY"] = "soon"
    with pytest.raises(InvalidConfig, match="retry = 'soon'"):
        SSE(wrong)


def test_the_hub_needs_a_way_to_tell_who_asks() -> None:
    with pytest.raises(InvalidConfig, match="SSE_JWT_KEY"):
        create_app({})
    hub = create_app({"SSE_DEV_AUTH": "1", "SSE_MAX_CONNECTIONS": "5"})
    assert hub.extensions["sse"].config.max_connections == 5
    client = hub.test_client()
    assert client.head(STREAM).status_code == 200
    assert [client.get(p).status_code for p in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    hub.extensions["sse"].stop()


def test_a_stream_outside_the_broker_closes_its_source() -> None:
    closed = []

    def source():
        try:
            yield "tick", {"n": 1}
            yield "plain"
        finally:
            closed.append(True)

    response = event_stream(source())
    body = b"".join(response.response)
    response.close()

    assert body == b': sse_broker\n\nevent: tick\ndata: {"n":1}\n\ndata: plain\n\n'
    assert closed == [True]


def test_stopping_says_goodbye_and_lets_the_streams_end(broker: Broker) -> None:
    import threading

    response = make(broker).get(STREAM)
    chunks = iter(response.response)
    next(chunks)
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.extend(read_events(chunks)))
    thread.start()
    broker.send_to_user(USER, "e", "last")
    broker.stop()
    thread.join(5)

    assert [(e.event, e.data) for e in seen] == [("e", "last"), ("close", '{"reason":"shutdown"}')]


def test_an_abandoned_stream_is_found_by_the_reaper() -> None:
    clock = FakeClock()
    with Broker(clock=clock) as broker:
        reader = broker.streams.open(Identity(1))
        clock.advance(301)
        broker.streams.here().reaper.sweep(clock.monotonic(), clock.time())

        assert reader.client.state is State.CLOSED
        assert broker.get_stats().total_clients == 0


def test_two_brokers_of_one_app_have_nothing_in_common() -> None:
    with Broker() as one, Broker(BrokerConfig(max_connections=1)) as two:
        app = Flask(__name__)
        for name, broker in (("one", one), ("two", two)):
            blueprint = create_blueprint(broker, publish_authenticator="secret", name=name)
            app.register_blueprint(blueprint, url_prefix=f"/{name}")
        client = app.test_client()
        streams = {name: client.get(f"/{name}/stream?user_id={USER}") for name in ("one", "two")}
        for response in streams.values():
            first(response)
        body = {"target": "broadcast", "event": "e", "data": "for two"}

        assert client.post("/two/publish", json=body, headers=BEARER).status_code == 200

        assert [e.data for e in first(streams["two"])] == ["for two"]
        assert one.get_stats().messages_sent == 0
        for name, published in (("one", 0), ("two", 1)):
            text = client.get(f"/{name}/metrics").text
            assert f"sse_messages_published_total {published}.0" in text
            assert "sse_active_connections_total 1.0" in text
        two.stop(timeout=0)
        assert client.get("/two/readyz").status_code == 503
        assert client.get("/one/readyz").status_code == 200
        for response in streams.values():
            response.close()


def test_stopping_is_bounded_although_a_stream_never_ends() -> None:
    broker, aborted = Broker(), threading.Event()
    broker.start()
    stuck = Client(1)
    stuck.abort = aborted.set
    broker.register(stuck)

    stopping = threading.Thread(target=broker.stop, args=(0.2,))
    stopping.start()
    stopping.join(20)

    assert not stopping.is_alive()
    assert aborted.is_set()
    assert stuck.state is State.CLOSED
    assert broker.get_stats().total_clients == 0


@pytest.mark.usefixtures("own_watcher")
@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket", "waitress"])
@pytest.mark.parametrize("path", ["/sse/stream", "/other"])
def test_the_kernel_is_told_of_stuck_and_vanished_clients(
    broker: Broker, key: str, path: str
) -> None:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
    app.add_url_rule("/other", view_func=lambda: event_stream(["x"]))
    with socket.socket() as sock:
        channel = Channel(sock)
        environ = {key: sock, "waitress.client_disconnected": None}
        if key == "waitress":
            environ["waitress.client_disconnected"] = channel.check_client_disconnected
        response = app.test_client().get(f"{path}?user_id={USER}", environ_overrides=environ)
        next(iter(response.response))

        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        response.close()


class Channel:
    """What waitress has of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def check_client_disconnected(self) -> bool:
        return False


def test_a_cut_shuts_the_connection_down_that_waitress_writes_to(broker: Broker) -> None:
    ours, theirs = socket.socketpair()
    environ = {"waitress.client_disconnected": Channel(ours).check_client_disconnected}
    response = make(broker).get(STREAM, environ_overrides=environ)
    first(response)
    (client,) = broker.streams.here()._clients()

    client.cut("timeout")

    theirs.settimeout(5)
    assert theirs.recv(1) == b""
    response.close()
    ours.close()
    theirs.close()


def test_the_script_is_for_everybody_and_is_sent_once(broker: Broker) -> None:
    client = make(broker)

    whole = client.get("/sse/client.js")
    tag = whole.headers["ETag"]
    known = client.get("/sse/client.js", headers={"If-None-Match": f"W/{tag}"})  # as gzip makes it
    other = client.get("/sse/client.js", headers={"If-None-Match": '"of another version"'})

    assert whole.status_code == 200
    assert b"SSEBroker" in whole.data
    assert whole.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert whole.headers["Cache-Control"] == "no-cache"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert (known.status_code, known.data) == (304, b"")
    assert known.headers["ETag"] == tag
    assert (other.status_code, other.data) == (200, whole.data)


def test_the_script_is_in_the_package(tmp_path) -> None:
    root = Path(__file__).parents[2]
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "sse_broker"):
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, tmp_path / name)
    build = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build_py"]

    subprocess.run([*build, "--build-lib", "built"], cwd=tmp_path, check=True)

    assert (tmp_path / "built/sse_broker/web/client.js").is_file()


@pytest.mark.parametrize(("accept", "status"), [("text/event-stream", 200), ("*/*", 503)])
def test_an_authorizer_that_raises_at_connect_is_a_refusal_for_now(accept, status) -> None:
    def authorizer(identity: Identity, topic: str) -> bool:
        raise ConnectionError("secret.example.com is away")

    with Broker(authorizer=authorizer) as broker:
        response = make(broker).get(STREAM + "&topics=a", headers={"Accept": accept})

    assert response.status_code == status
    assert "secret" not in response.text
    assert "retry" in response.text or response.headers["Retry-After"]
