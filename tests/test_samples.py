"""Each sample starts, pushes what it says, and answers bad input with the field."""

from __future__ import annotations

import importlib

import pytest

from samples.demo.app import USERS, create_app
from sse_broker import Client

ME = USERS[0]["id"]
CASES = {
    "notifications": ("/notifications", {"user_id": ME, "title": "Hi"}, "notification"),
    "approval": ("/approvals", {"title": "Leave", "approver_id": ME}, "approval:status_changed"),
    "progress": ("/tasks", {"user_id": ME}, "progress"),
    "announcement": ("/announcements", {"message": "Noon"}, "announcement"),
    "dashboard": ("/dashboard", {}, "sample"),
    "logstream": ("/log", {"level": "info", "text": "paid"}, "log"),
}
TOPICS = ["metrics:host", "logs:*", "approval:process:*"]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DEMO_DATA", str(tmp_path))


def watch(app) -> Client:
    client = Client(ME, topics=TOPICS)
    app.extensions["sse"].register(client)
    return client


@pytest.fixture(params=[*CASES, "demo"])
def app(request):
    name = request.param
    app = (
        create_app() if name == "demo" else importlib.import_module(f"samples.{name}").create_app()
    )
    app.sample = name
    yield app
    broker = app.extensions["sse"]
    for client in broker._here()._clients():
        broker.unregister(client)
    broker.stop()


def test_it_pushes_what_it_says(app) -> None:
    client, browser = watch(app), app.test_client()
    cases = CASES.values() if app.sample == "demo" else [CASES[app.sample]]
    for path, body, event in cases:
        response = browser.post(path, json=body)
        assert response.status_code == 200, response.text
        seen = client.queue.get(timeout=5).message.event
        while app.sample == "demo" and seen != event:
            seen = client.queue.get(timeout=5).message.event
        assert seen == event


def test_bad_input_is_told_its_field(app) -> None:
    browser = app.test_client()
    for name, (path, body, _) in CASES.items():
        if app.sample not in ("demo", name):
            continue
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
