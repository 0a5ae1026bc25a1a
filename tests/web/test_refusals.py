"""A refusal is true: for good or for now, and silent about the machine and the code."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from flask import Flask, abort
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sse_broker import SSE, Broker, Identity, LogUnavailable, create_blueprint
from sse_broker.app import create_app
from sse_broker.errors import NotNow
from sse_broker.testing import FakeClock, read_events

USER = str(uuid.uuid4())
STREAM = f"/sse/stream?user_id={USER}"
PLAIN = {"Accept": "text/event-stream"}


def client_of(broker: Broker, *args: Any, **options: Any):
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, *args, **options), url_prefix="/sse")
    return app.test_client()


def raising(error: Exception):
    def authenticator(request: Any) -> Any:
        raise error

    return authenticator


PASSING = [
    OperationalError("SELECT 1", {}, Exception("server at db.internal closed the connection")),
    PoolTimeout("QueuePool limit of size 5 overflow 10 reached"),
    ConnectionRefusedError(111, "Connection refused"),
    TimeoutError("timed out"),
    NotNow("the billing host is away", retry_after=7),
    LogUnavailable("/srv/app/log.db is locked"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_passing_trouble_is_come_back_in_the_form_for_this_client(
    broker: Broker, error: Exception, caplog
) -> None:
    client = client_of(broker, raising(error))

    browser = client.get(STREAM, headers=PLAIN)
    script = client.get(STREAM, headers={"Accept": "*/*"})

    assert browser.status_code == 200
    (event,) = read_events(browser.data)
    assert event.event == "error"
    assert event.retry >= 1000
    assert script.status_code == 503
    assert int(script.headers["Retry-After"]) >= 1
    for said in (browser.text, script.text):
        for secret in ("internal", "/srv", "billing", "QueuePool", "Error", "SELECT"):
            assert secret not in said


def test_a_documented_exception_says_when_to_come_back(broker: Broker) -> None:
    client = client_of(broker, raising(NotNow(retry_after=7)))
    (event,) = read_events(client.get(STREAM, headers=PLAIN).data)
    assert event.retry == 7000
    assert client.get(STREAM).headers["Retry-After"] == "7"


def test_the_log_names_the_cause_once_a_minute(caplog) -> None:
    clock = FakeClock()
    with Broker(clock=clock) as broker:
        client = client_of(broker, raising(PASSING[0]))
        for _ in range(5):
            client.get(STREAM)
        clock.advance(61)
        client.get(STREAM)
    lines = [r.getMessage() for r in caplog.records if "OperationalError" in r.getMessage()]
    assert len(lines) == 2
    assert "closed the connection" in lines[0]
    assert lines[1].startswith("4 more")


def test_a_bug_is_logged_once_a_minute_with_its_traceback(broker: Broker, caplog) -> None:
    def who(request: Any) -> Any:
        return request.no_such_thing

    client = client_of(broker, who)
    answers = [client.get(STREAM, headers=PLAIN) for _ in range(3)]

    assert {answer.status_code for answer in answers} == {401}
    assert "no_such_thing" not in answers[0].text
    (line,) = [r.getMessage() for r in caplog.records if "Traceback" in r.getMessage()]
    assert "return request.no_such_thing" in line
    assert "test_refusals.py" in line
    assert "AttributeError" in line


def test_what_looks_like_a_credential_is_masked_and_no_line_is_forged(
    broker: Broker, caplog
) -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

    def who(request: Any) -> Any:
        raise RuntimeError(f"no: token=hunter2&x {jwt} redis://u:hunter3@host/0\nforged line")

    client_of(broker, who).get(STREAM)

    assert not any(secret in caplog.text for secret in ("hunter2", "hunter3", jwt))
    assert "\nforged" not in caplog.text


@pytest.mark.parametrize("value", [None, 7, "7", (1,), {"user_id": 1}])
def test_a_wrong_return_value_says_what_was_returned_and_what_is_expected(
    broker: Broker, caplog, value: Any
) -> None:
    response = client_of(broker, lambda request: value).get(STREAM)

    assert response.status_code == 401
    (line,) = [r.getMessage() for r in caplog.records if "returned" in r.getMessage()]
    assert "Identity" in line
    assert (repr(value) if value in (None, 7) else type(value).__name__) in line


def test_a_topic_resolver_that_fails_is_no_reason_to_go_for_good(broker: Broker, caplog) -> None:
    for resolver in (lambda request: 1 / 0, lambda request: None, lambda request: "a,b"):
        client = client_of(broker, lambda request: Identity(1), resolver)
        (event,) = read_events(client.get(STREAM, headers=PLAIN).data)
        assert event.event == "error"
        assert client.get(STREAM).status_code == 503
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("how", ["abort", "return", "raise"])
def test_what_other_extensions_answer_for_now_is_come_back(
    broker: Broker, status: int, how: str
) -> None:
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_blueprint(create_blueprint(broker, lambda request: Identity(1)), url_prefix="/sse")

    @app.before_request
    def limit() -> Any:
        if how == "abort":
            abort(status)
        if how == "raise":
            raise LookupError
        return "slow down", status, {"Retry-After": "9"}

    client = app.test_client()
    browser = client.get(STREAM, headers=PLAIN)

    assert browser.status_code == 200
    (event,) = read_events(browser.data)
    assert event.event == "error"
    assert event.retry >= (9000 if how == "return" else 1000)
    assert client.get(STREAM).status_code == (500 if how == "raise" else status)


@pytest.mark.parametrize("status", [401, 403, 400])
def test_what_others_refuse_for_good_stays_so(broker: Broker, status: int) -> None:
    client = client_of(broker, lambda request: abort(status))
    assert client.get(STREAM, headers=PLAIN).status_code == status


def test_a_log_that_is_away_tells_a_visitor_nothing_of_itself(tmp_path) -> None:
    folder = tmp_path / "secret_dir"
    folder.mkdir()
    (folder / "log.db").write_text("x" * 5000)  # no database
    hub = create_app({"SSE_DEV_AUTH": "1", "SSE_LOG_URL": f"sqlite:///{folder}/log.db"})
    client = hub.test_client()

    browser = client.get(STREAM, headers=PLAIN)
    body = "".join(chunk.decode() for chunk in browser.response)
    script = client.get(STREAM)
    body += "".join(chunk.decode() for chunk in script.response)

    assert browser.status_code == 200
    assert "event: error" in body
    assert "secret_dir" not in body
    assert "sqlite" not in body.lower()
    hub.extensions["sse"].stop(0)


def test_nobody_is_believed_where_nothing_is_configured(broker: Broker, caplog) -> None:
    app = Flask(__name__)
    SSE(app, broker=broker)

    refused = app.test_client().get(STREAM, headers=PLAIN)

    assert refused.status_code == 401
    assert "SSE_DEV_AUTH" in caplog.text
    assert "SSE_DEV_AUTH" not in refused.text


@pytest.mark.parametrize("told", ["debug", "testing", "config", "environment"])
def test_the_development_authenticator_works_where_it_is_told_to(
    broker: Broker, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Flask(__name__)
    SSE(app, broker=broker)
    if told == "debug":
        app.debug = True
    elif told == "testing":
        app.testing = True
    elif told == "config":
        app.config["SSE_DEV_AUTH"] = "1"
    else:
        monkeypatch.setenv("SSE_DEV_AUTH", "1")

    assert app.test_client().head(STREAM).status_code == 200


def test_a_blueprint_without_an_authenticator_refuses_what_a_server_took(broker: Broker) -> None:
    served = {"SERVER_SOFTWARE": "gunicorn/27", "wsgi.multithread": True}
    client = client_of(broker)

    assert client.head(STREAM).status_code == 200
    assert client.head(STREAM, environ_overrides=served).status_code == 401


def test_the_hub_for_development_answers_to_local_names_only() -> None:
    hub = create_app({"SSE_DEV_AUTH": "1"})
    client = hub.test_client()
    for host, status in [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("app.localhost", 200),
        ("evil.example.com", 403),
        ("localhost.evil.example.com", 403),
    ]:
        assert client.head(STREAM, headers={"Host": host}).status_code == status, host
    for probe in ("/healthz", "/readyz", "/sse/healthz"):
        assert client.get(probe, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert client.get("/sse/online", headers={"Host": "10.0.0.7"}).status_code == 403
    hub.extensions["sse"].stop(0)


def test_head_is_counted_and_checked_as_get_is() -> None:
    from sse_broker import BrokerConfig

    with Broker(BrokerConfig(connect_rate="2/year")) as broker:
        client = client_of(broker, lambda request: Identity(1, token_id="t"))
        assert [client.head(STREAM).status_code for _ in range(3)] == [200, 200, 429]
    with Broker() as broker:
        client = client_of(broker, lambda request: Identity(1, token_id="t"))
        broker.revoke("t", broker.streams.clock.time() + 60)
        assert client.head(STREAM).status_code == 401


def test_who_has_expired_already_gets_nothing(broker: Broker) -> None:
    now = broker.streams.clock.time()
    first = broker.send_to_user(1, "e", "1")
    broker.send_to_user(1, "e", "secret")
    expired = Identity(1, expires_at=now - 1)

    response = client_of(broker, lambda request: expired).get(STREAM, headers=PLAIN)
    reader = broker.streams.open(expired, (), first)
    chunks = iter(lambda: reader.next(0), None)

    assert response.status_code == 401
    assert [e.event for e in read_events(chunks)] == ["welcome", "close"]
    broker.streams.forget(reader.client, "test")


def test_the_grants_of_an_identity_and_the_authorizer_must_both_agree() -> None:
    with Broker(authorizer=lambda identity, topic: topic != "payroll") as broker:
        identity = Identity(1, topics=["news", "payroll"])
        client = client_of(broker, lambda request: identity)
        for topics, status in [("news", 200), ("payroll", 403), ("other", 403), ("*", 403)]:
            assert client.head(f"{STREAM}&topics={topics}").status_code == status, topics


def test_an_answer_says_in_json_what_is_wrong(broker: Broker) -> None:
    response = client_of(broker, lambda request: Identity(1)).get(STREAM + "&topics=a::b")
    assert json.loads(response.text)["field"] == "topic"


def test_the_development_authenticator_takes_integers(broker: Broker) -> None:
    response = client_of(broker).get("/sse/stream?user_id=7&tenant_id=3")
    read_events(response.response, 1)
    (one,) = broker.streams.here()._clients()
    assert (one.user_id, one.tenant_id) == ("7", "3")
    response.close()


def test_unknown_visitors_are_counted_by_their_address() -> None:
    from sse_broker import BrokerConfig

    with Broker(BrokerConfig(max_anonymous_per_address=1)) as broker:
        client = client_of(broker, lambda request: Identity.anonymous(["public"]))
        inside = client.get(STREAM + "&topics=public", headers=PLAIN)
        assert read_events(inside.response, 1)[0].event == "welcome"

        (refused,) = read_events(client.get(STREAM, headers=PLAIN).data)
        other = client.get(STREAM, headers=PLAIN, environ_base={"REMOTE_ADDR": "192.0.2.9"})

        assert refused.event == "error"
        assert read_events(other.response, 1)[0].event == "welcome"
        assert client.head(STREAM + "&topics=private").status_code == 403
        inside.close()
        other.close()


def test_readyz_says_that_a_log_is_away_until_it_is_back(tmp_path) -> None:
    path = tmp_path / "log.db"
    path.write_text("x" * 5000)  # no database
    with_log = Broker(log=f"sqlite:///{path}")
    client = client_of(with_log, lambda request: Identity(1))
    assert client.get("/sse/readyz").json["checks"]["log"]  # nobody has asked yet

    refused = client.get(STREAM, headers=PLAIN)
    assert read_events(refused.response, 1)[0].event == "error"
    away = client.get("/sse/readyz")
    path.unlink()
    back = client.get("/sse/readyz")

    assert (away.status_code, away.json["checks"]["log"]) == (503, False)
    assert (back.status_code, back.json["checks"]["log"]) == (200, True)
    with_log.stop(0)
