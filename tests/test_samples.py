"""Each sample starts, pushes what it says, and answers bad input with the field."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import socket
import threading
from pathlib import Path

import pytest
from flask.cli import ScriptInfo

from samples.demo import __main__ as starter
from samples.demo.app import USERS, create_app
from sse_broker import Client

ROOT = Path(__file__).parents[1]
ME = USERS[0]["id"]
CASES = {
    "notifications": ("/notifications", {"user_id": ME, "title": "Hi"}, "notification"),
    "approval": ("/approvals", {"title": "Leave", "approver_id": ME}, "approval:status_changed"),
    "progress": ("/tasks", {"user_id": ME}, "progress"),
    "announcement": ("/announcements", {"message": "Noon"}, "announcement"),
    "dashboard": ("/dashboard", {}, "sample"),
    "logstream": ("/log", {"level": "info", "text": "paid"}, "log"),
}
SQL_CASES = {  # not part of the demo
    "orders": ("/orders", {"user_id": ME, "item": "Tea"}, "order"),
    "payments": ("/payments", {"user_id": ME, "invoice": "17"}, "payment"),
}
HAS_SQLALCHEMY = importlib.util.find_spec("sqlalchemy") is not None
needs_sqlalchemy = pytest.mark.skipif(not HAS_SQLALCHEMY, reason="pip install SQLAlchemy")
ALL_CASES = CASES | SQL_CASES
SAMPLES = [*CASES, *(pytest.param(name, marks=needs_sqlalchemy) for name in SQL_CASES)]
TOPICS = ["metrics:host", "logs:*", "approval:process:*"]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DEMO_DATA", str(tmp_path))
    monkeypatch.setattr("sse_broker.web.extension.default_log", lambda _: "memory://")
    monkeypatch.setattr("samples.dashboard.EVERY", 0.01)
    monkeypatch.setattr("samples.progress.ROUNDS", 1)


def watch(app) -> Client:
    client = Client(ME, topics=TOPICS)
    app.extensions["sse"].register(client)
    return client


def cases(app) -> dict:
    """Return the cases of the samples that *app* has."""
    return CASES if app.sample == "demo" else {app.sample: ALL_CASES[app.sample]}


@pytest.fixture(params=[*SAMPLES, "demo"])
def app(request):
    name = request.param
    app = (
        create_app() if name == "demo" else importlib.import_module(f"samples.{name}").create_app()
    )
    app.sample = name
    yield app
    if "outbox" in app.extensions:
        app.extensions["outbox"].stop()
    broker = app.extensions["sse"]
    for client in broker.streams.here()._clients():
        broker.unregister(client)
    broker.stop()


def test_it_pushes_what_it_says(app) -> None:
    client, browser = watch(app), app.test_client()
    for path, body, event in cases(app).values():
        response = browser.post(path, json=body)
        assert response.status_code == 200, response.text
        seen = client.queue.get(timeout=5).message.event
        while app.sample == "demo" and seen != event:
            seen = client.queue.get(timeout=5).message.event
        assert seen == event


@pytest.mark.parametrize("name", SAMPLES)
def test_the_command_of_its_header_finds_the_application(name, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    header = Path("samples", f"{name}.py").read_text().split('"""')[1]
    target = re.search(r"flask --app (\S+) run", header).group(1)

    rules = {
        rule.rule for rule in ScriptInfo(app_import_path=target).load_app().url_map.iter_rules()
    }

    assert {ALL_CASES[name][0], "/sse/stream"} <= rules
    assert f"http://localhost:5000{ALL_CASES[name][0]}" in header


def test_no_thread_starts_before_the_first_request() -> None:
    before = set(threading.enumerate())

    for name in ALL_CASES if HAS_SQLALCHEMY else CASES:
        importlib.import_module(f"samples.{name}").create_app()
    create_app()

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"{", b"\xff"])
def test_a_body_that_is_no_object_is_told_a_field(app, body) -> None:
    browser = app.test_client()
    for path, fields, _ in cases(app).values():
        if fields:
            answer = browser.post(path, data=body, content_type="application/json")
            assert answer.status_code == 400
            assert answer.json["field"] in fields


def test_bad_input_is_told_its_field(app) -> None:
    browser = app.test_client()
    for path, body, _ in cases(app).values():
        for field in body:
            response = browser.post(path, json={**body, field: ""})
            assert (response.status_code, response.json["field"]) == (400, field)


def test_an_approval_is_decided_once_and_its_followers_hear() -> None:
    app = importlib.import_module("samples.approval").create_app()
    client, browser = watch(app), app.test_client()
    number = browser.post("/approvals", json=CASES["approval"][1]).json["id"]

    assert browser.post(f"/approvals/{number}", json={"status": "maybe"}).status_code == 400
    assert browser.post(f"/approvals/{number}", json={"status": "approved"}).status_code == 200
    assert browser.post(f"/approvals/{number}", json={"status": "rejected"}).status_code == 409

    statuses = [client.queue.get(timeout=5).message.data for _ in range(4)]
    assert ['"pending"' in data for data in statuses] == [True, True, False, False]
    app.extensions["sse"].unregister(client)
    app.extensions["sse"].stop()


@needs_sqlalchemy
def test_an_order_that_is_rolled_back_is_not_announced() -> None:
    app = importlib.import_module("samples.orders").create_app()
    client, browser = watch(app), app.test_client()
    path, body, _ = ALL_CASES["orders"]

    unpaid = browser.post("/orders/unpaid", json=body)
    first = browser.post(path, json=body).json
    second = browser.post(path, json=body).json

    assert (unpaid.status_code, unpaid.json) == (402, {"error": "not paid"})
    heard = [json.loads(client.queue.get_nowait().message.data) for _ in range(2)]
    assert heard == [first, second]
    assert client.queue.empty()
    app.extensions["sse"].unregister(client)
    app.extensions["sse"].stop()


@needs_sqlalchemy
def test_a_payment_is_announced_by_the_next_process_if_this_one_dies() -> None:
    path, body, _ = ALL_CASES["payments"]
    died = importlib.import_module("samples.payments").create_app()
    died.before_request_funcs.clear()  # it never came to send
    number = died.test_client().post(path, json=body).json["number"]
    app = importlib.import_module("samples.payments").create_app()
    client = watch(app)

    assert app.extensions["outbox"].drain() == 1

    record = client.queue.get(timeout=5)
    assert (record.id, record.message.event) == (f"payment-{number}", "payment")
    app.extensions["sse"].unregister(client)
    app.extensions["sse"].stop()


def test_a_notification_is_stored_before_it_is_pushed() -> None:
    app = importlib.import_module("samples.notifications").create_app()
    browser = app.test_client()
    note = browser.post("/notifications", json=CASES["notifications"][1]).json

    assert browser.get(f"/notifications/{ME}").json == [note]


def test_the_demo_answers_local_names_only_with_a_policy() -> None:
    browser = create_app().test_client()

    page = browser.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert browser.get("/", headers={"Host": "evil.example.com"}).status_code == 403
    assert browser.get("/sse/stream", headers={"Host": "evil.example.com"}).status_code == 403
    page.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("localhost.example.com", 403),
        ("example.com:8000", 403),
        ("127.0.0.1.example.com", 403),
    ],
)
def test_the_demo_knows_its_hosts(host, status) -> None:
    answer = create_app().test_client().get("/api/users", headers={"Host": host})

    assert answer.status_code == status


@pytest.mark.parametrize("names", ["demo.example.com", "", " , "])
def test_the_demos_hosts_can_be_named(monkeypatch, names) -> None:
    monkeypatch.setenv("DEMO_ALLOWED_HOSTS", names)
    browser = create_app().test_client()

    hosts = ("demo.example.com:8000", "localhost", "example.com")

    statuses = [browser.get("/api/users", headers={"Host": host}).status_code for host in hosts]
    assert statuses == [200 if "demo" in names else 403, 403, 403]


@pytest.mark.parametrize("origin", ["http://example.com", "null", "http://localhost:9999"])
def test_a_foreign_page_cannot_give_orders(origin) -> None:
    browser = create_app().test_client()
    order = json.dumps({"user_id": ME, "event": "test", "data": "hello"})

    answer = browser.post(
        "/api/test/send", data=order, content_type="text/plain", headers={"Origin": origin}
    )

    assert answer.status_code == 403


def test_the_page_has_nothing_inline_and_nothing_foreign() -> None:
    static = ROOT / "samples" / "demo" / "static"
    for name, code in (("index.html", "stage.js"), ("person.html", "demo.js")):
        page, script = (static / name).read_text(), (static / code).read_text()

        assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=|https?://", page)
        bad = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
        assert not re.search(bad, script)
        ids = set(re.findall(r'id="([\w-]+)"', page))
        assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= ids


@pytest.mark.parametrize("port", ["", "http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(monkeypatch, port) -> None:
    monkeypatch.setenv("PORT", port)

    with pytest.raises(SystemExit, match="PORT must be a number from 1 to 65535"):
        starter.free_port()


def test_a_taken_port_is_told_with_the_cure(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))

        with pytest.raises(SystemExit, match=f"Port {port} is taken.  Choose another: PORT="):
            starter.free_port()


def test_the_seeds_curl_needs_no_content_type() -> None:
    app = create_app()
    client = watch(app)
    body = json.dumps({"user_id": ME, "event": "test", "data": "hello"})
    form = "application/x-www-form-urlencoded"  # what curl -d says

    answer = app.test_client().post("/api/test/send", data=body, content_type=form)

    assert answer.json == {"id": client.queue.get(timeout=5).id}
    app.extensions["sse"].unregister(client)
    app.extensions["sse"].stop()


def test_the_seeds_test_send() -> None:
    app = create_app()
    client, browser = watch(app), app.test_client()
    body = {"user_id": ME, "event": "test", "data": "hello"}

    answer = browser.post("/api/test/send", json=body)

    record = client.queue.get(timeout=5)
    assert answer.json == {"id": record.id}
    assert (record.message.event, record.message.data) == ("test", "hello")
    for field, value in [("user_id", None), ("event", "a\nb"), ("event", 5), ("data", ...)]:
        bad = {**body, field: value}
        if value is ...:
            del bad["data"]
        refused = browser.post("/api/test/send", json=bad)
        assert (refused.status_code, refused.json["field"]) == (400, field)
    app.extensions["sse"].unregister(client)
    app.extensions["sse"].stop()
