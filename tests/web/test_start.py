"""What an application is told when it starts, and what its clients' refusals leave in the log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

import sse_broker
from sse_broker import SSE, Broker, BrokerConfig, create_blueprint
from sse_broker.app import create_app
from sse_broker.config import KEYS, settings, strangers
from sse_broker.servers.checks import Finding
from sse_broker.testing import FakeClock
from sse_broker.web import address, refused
from sse_broker.web.refused import Refused


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(refused, "_here", {})
    monkeypatch.setattr(address, "_said", set())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("SSE_HEARTBEAT_INTERVALL", "did you mean SSE_HEARTBEAT_INTERVAL?"),
        ("SSE_MAX_CONNECTION", "did you mean SSE_MAX_CONNECTIONS?"),
        ("SSE_LOG", "did you mean SSE_LOG_URL?"),
        ("SSE_CORS_ORIGIN", "did you mean SSE_CORS_ORIGINS?"),
        ("SSE_REDIS_URL", "flask-sse's: set SSE_LOG_URL"),
        ("SSE_QQQQ", "python -m sse_broker.config"),
        ("EVENTSTREAM_REDIS", "django-eventstream's: set SSE_LOG_URL"),
        ("EVENTSTREAM_ALLOW_HEADERS", "django-eventstream's"),
    ],
)
def test_a_key_that_nobody_reads_is_said(key, said, caplog) -> None:
    for make in (lambda config: SSE(configured(config)), lambda c: create_app({**c, **DEV})):
        caplog.clear()
        make({key: "x"})
        (line,) = [r.getMessage() for r in caplog.records if r.name == "sse_broker.config"]
        assert line.startswith(key)
        assert said in line
        assert "ignored" in line


USER = "5b0f1c52-8f0e-4c4e-9d4a-0d3f6f1c7a11"
DEV = {"SSE_DEV_AUTH": "1"}


def configured(config: dict[str, object]) -> Flask:
    app = Flask("configured")
    app.config.update(config)
    return app


def test_every_key_that_is_read_is_known() -> None:
    known = {*KEYS, *(f"SSE_{setting.name.upper()}" for setting in settings())}
    package = Path(sse_broker.__file__).parent
    read = set()
    for path in package.rglob("*.py"):
        if path.name != "config.py":
            read |= set(re.findall(r'["\'](SSE_[A-Z_]+[A-Z])["\']', path.read_text()))
    assert read - known == set()
    assert set(strangers(dict.fromkeys(known, ""))) == set()


def test_an_app_without_a_log_keeps_it_in_its_instance_folder(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "new" / "instance"))
    broker = SSE(app).broker
    other = SSE(Flask("shop", instance_path=app.instance_path)).broker

    broker.broadcast("e", "x")

    assert broker.log.url == f"sqlite:///{tmp_path}/new/instance/sse_broker.db"
    assert other.log.tail() == broker.log.tail() > 0
    assert Broker().log.url == "memory://"


def test_a_testing_app_and_one_that_names_its_log_are_left_alone(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.testing = True
    assert SSE(app).broker.log.url == "memory://"
    app = configured({"SSE_LOG_URL": "memory://"})
    assert SSE(app).broker.log.url == "memory://"
    assert not (tmp_path / "instance").exists()


def test_a_folder_that_cannot_be_written_is_said_in_the_log_and_by_readyz(
    tmp_path: Path, caplog
) -> None:
    (tmp_path / "file").write_text("")
    app = Flask("shop", instance_path=str(tmp_path / "file" / "instance"))
    broker = SSE(app).broker

    answer = app.test_client().get("/sse/readyz")

    assert broker.log.url == "memory://"
    (said,) = [r for r in caplog.records if "instance folder" in r.getMessage()]
    assert said.levelname == "WARNING"
    assert "SSE_LOG_URL" in answer.json["why"]["log"]
    assert answer.status_code == 200  # one process serves; it lacks nothing
    assert str(tmp_path) not in answer.text


def test_readyz_is_not_well_where_several_processes_serve_over_memory(broker) -> None:
    app = Flask("shop")
    app.register_blueprint(create_blueprint(broker), url_prefix="/sse")

    answer = app.test_client().get("/sse/readyz", environ_overrides={"wsgi.multiprocess": True})

    assert answer.status_code == 503
    assert answer.json["checks"]["memory_log"] is False
    assert "SSE_LOG_URL" in answer.json["why"]["memory_log"]
    assert app.test_client().get("/sse/readyz").status_code == 200


def test_what_examine_finds_is_said_at_set_up(broker, monkeypatch, caplog) -> None:
    monkeypatch.setattr("sse_broker.servers.checks._said", set())
    finding = Finding("sync_worker", 40, "one at a time")
    monkeypatch.setattr("sse_broker.servers.checks.examine", lambda *_: [finding])
    monkeypatch.setattr("sse_broker.servers.checks._claimed", bytearray(9))
    Flask("shop").register_blueprint(create_blueprint(broker))

    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("ERROR", "one at a time")]


def test_each_kind_of_refusal_is_logged_once_a_minute_with_its_count(broker, caplog) -> None:
    app = Flask("shop")
    app.register_blueprint(create_blueprint(broker, publish_authenticator="t"), url_prefix="/sse")
    client = app.test_client()
    for _ in range(3):
        client.get(f"/sse/stream?user_id={USER}&topics=:")  # no topic
        client.post("/sse/publish", json={})
        client.get(f"/sse/stream?user_id={USER}", headers={"Origin": "http://evil.example.com"})

    lines = [r.getMessage() for r in caplog.records if r.name == "sse_broker.refused"]
    assert len(lines) == 3
    for status in ("(400)", "(401)", "(403)"):
        assert any(status in line for line in lines)


def test_a_refusal_in_the_form_of_a_stream_is_logged_too(caplog) -> None:
    with Broker(BrokerConfig(max_connections=1)) as broker:
        app = Flask("shop")
        app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
        client = app.test_client()
        first = client.get(f"/sse/stream?user_id={USER}", buffered=False)
        next(iter(first.response))

        client.get(f"/sse/stream?user_id={USER}", headers={"Accept": "text/event-stream"})

        assert "max_connections" in caplog.text or "too many" in caplog.text
        first.close()


def test_a_minute_later_the_count_is_said(caplog) -> None:
    clock = FakeClock()
    refusals = Refused(clock)
    for _ in range(5):
        refusals.note("k", "GET /x", 403, "no")
    clock.advance(59)
    refusals.say_due()
    assert len(caplog.records) == 1

    clock.advance(1)
    refusals.say_due()
    refusals.say_due()

    assert "4 of this kind" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 2


def test_kinds_are_bounded_and_reasons_cut() -> None:
    refusals = Refused(FakeClock())
    for n in range(1000):
        refusals.note(f"k{n}", "GET /x", 403, "x" * 10_000)
    assert len(refusals._kinds) == refused.MOST_KINDS + 1
    assert max(len(one.words) for one in refusals._kinds.values()) < 400


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_a_proxy_that_hides_addresses_is_said_where_they_are_counted(header, caplog) -> None:
    for limit, said in (({}, 0), ({"max_connections_per_address": 5}, 1)):
        with Broker(BrokerConfig(**limit)) as broker:
            app = Flask("shop")
            app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
            for _ in range(2):
                app.test_client().get(
                    f"/sse/stream?user_id={USER}",
                    headers={header: "for=192.0.2.1"},
                    environ_overrides={"REMOTE_ADDR": "127.0.0.1"},
                ).close()
        lines = [r for r in caplog.records if "ProxyFix" in r.getMessage()]
        assert len(lines) == said


def test_a_process_without_streams_that_sends_over_memory_is_told_once(caplog) -> None:
    alone = Broker()
    create_blueprint(alone)
    for _ in range(2):
        alone.broadcast("e", "x")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "sqlite:///" in caplog.text

    caplog.clear()
    with Broker() as running:
        running.broadcast("e", "x")
    serving = Broker()
    app = Flask("shop")
    app.register_blueprint(create_blueprint(serving))
    app.test_client().get("/healthz")
    serving.broadcast("e", "x")
    assert not caplog.records
