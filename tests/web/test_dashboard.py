"""The operators' page: who sees it, what it asks for, and what it must never do."""

from __future__ import annotations

import base64
import re

import pytest
from flask import Flask

from sse_broker import SSE, Broker, create_blueprint
from sse_broker.testing import read_events
from sse_broker.web.dashboard import routes
from tests.core.streams import Hub, Tab

PATHS = ("", "/dashboard.js", "/dashboard.css", "/events", "/find", "/explain?id=x&user=7")
TOKEN = "token-of-the-operators"


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"x:{password}".encode()).decode()}


def client_of(broker: Broker, authorizer: object = lambda _: True, debug: bool = False):
    app = Flask("shop")
    app.debug = debug
    made = create_blueprint(broker, dashboard_authorizer=authorizer)
    app.register_blueprint(made, url_prefix="/sse")
    return app.test_client()


@pytest.fixture
def hub():
    with Hub() as broker:
        yield broker


@pytest.mark.parametrize("path", PATHS)
def test_without_an_authorizer_it_is_not_there(hub, path) -> None:
    assert client_of(hub, None).get(f"/sse/dashboard{path}").status_code == 404


def test_in_debug_mode_this_machine_sees_it_and_no_other(hub) -> None:
    client = client_of(hub, None, debug=True)

    assert client.get("/sse/dashboard").status_code == 200
    far = client.get("/sse/dashboard", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert far.status_code == 403
    assert "SSE_DASHBOARD_TOKEN" in far.text


@pytest.mark.parametrize("path", PATHS)
def test_a_token_is_the_password_of_every_part(hub, path) -> None:
    client = client_of(hub, TOKEN, debug=True)

    for headers in ({}, basic("wrong"), {"Authorization": f"Bearer {TOKEN}"}):
        answer = client.get(f"/sse/dashboard{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    right = client.get(f"/sse/dashboard{path}", headers=basic(TOKEN), buffered=False)
    assert right.status_code == 200
    right.close()


@pytest.mark.parametrize(("path", "body"), [("send", {"target": "broadcast"}), ("disconnect", {})])
def test_what_changes_something_is_guarded_and_no_foreign_pages_business(hub, path, body) -> None:
    url = f"/sse/dashboard/{path}"
    assert client_of(hub, lambda _: False).post(url, json=body).status_code == 403
    client = client_of(hub)
    foreign = {"Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site"}
    assert client.post(url, json=body, headers=foreign).status_code == 403
    assert client.post(url, data="target=broadcast").status_code == 400  # a form needs no CORS
    assert hub.log.tail() == 0


def test_the_extension_takes_a_token_from_the_configuration(tmp_path) -> None:
    app = Flask("shop")
    app.config.update(TESTING=True, SSE_DASHBOARD_TOKEN=TOKEN)
    SSE(app)

    client = app.test_client()

    assert client.get("/sse/dashboard").status_code == 401
    assert client.get("/sse/dashboard", headers=basic(TOKEN)).status_code == 200


def test_its_policy_allows_its_own_files_and_no_other_host(hub) -> None:
    client = client_of(hub)
    page = client.get("/sse/dashboard")

    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    parts = re.findall(r'(?:src|href)="(dashboard/[^"]+)"', page.text)
    assert len(parts) == 2
    for part in parts:
        assert client.get(f"/sse/{part}").status_code == 200
    script = client.get("/sse/dashboard/dashboard.js").text
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page.text + script)
    assert "innerHTML" not in script
    assert not re.search(r"<script>|<style>|\son\w+=|\sstyle=", page.text)
    assert client.get("/sse/dashboard/routes.py").status_code == 404


def test_overviews_are_sums_over_all_and_hold_no_list_of_streams(hub) -> None:
    tabs = [
        Tab(hub, user=n, topics=["secret-topic"], tenant=f"t{n % 2}").connect() for n in (1, 2, 3)
    ]
    for tab in tabs:
        tab.read_on()
    hub.broadcast("e", "secret-data", tenant_id="t0")
    response = client_of(hub).get("/sse/dashboard/events", buffered=False)

    (event,) = read_events(response.response, 1)
    response.close()

    assert event.event == "overview"
    assert '"connections": 3' in event.data
    assert '["t1", 2]' in event.data
    assert "secret" not in event.data
    for part in ("latency", "troubles", "processes", "log_bytes", "missing"):
        assert f'"{part}"' in event.data


def test_a_page_that_is_closed_makes_room_for_another(hub) -> None:
    client = client_of(hub)
    opened = [client.get("/sse/dashboard/events", buffered=False) for _ in range(4)]
    assert client.get("/sse/dashboard/events").status_code == 503

    opened.pop().close()
    again = client.get("/sse/dashboard/events", buffered=False)

    assert again.status_code == 200
    for one in (*opened, again):
        one.close()


def test_streams_are_found_by_user_topic_and_tenant_in_pages(hub, monkeypatch) -> None:
    monkeypatch.setattr(routes, "PAGE", 2)
    for n in range(5):
        Tab(hub, user=n % 4, topics=["orders:*" if n % 2 else "orders:1"], tenant="a").connect()
    client = client_of(hub)

    assert client.get("/sse/dashboard/find?user=0").json["total"] == 2
    assert client.get("/sse/dashboard/find?topic=orders:1").json["total"] == 5
    assert client.get("/sse/dashboard/find?topic=orders:2").json["total"] == 2
    assert client.get("/sse/dashboard/find?tenant=b").json["total"] == 0
    assert "did you mean orders:1?" in client.get("/sse/dashboard/find?topic=order:1").json["hint"]
    pages = [client.get(f"/sse/dashboard/find?tenant=a&page={n}").json for n in range(3)]
    assert [len(page["streams"]) for page in pages] == [2, 2, 1]
    assert len({row["client_id"] for page in pages for row in page["streams"]}) == 5
    assert pages[0]["pages"] == 3
    assert client.get("/sse/dashboard/find?page=x").status_code == 400


def test_a_test_message_is_sent_explained_and_its_reader_disconnected(hub) -> None:
    tab = Tab(hub, user=7).connect().read_on()
    client = client_of(hub)

    sent = client.post("/sse/dashboard/send", json={"target": "user", "to": "7", "data": "hi"})
    tab.read_on()
    why = client.get(f"/sse/dashboard/explain?id={sent.json['id']}&user=7").json
    row = client.get("/sse/dashboard/find?user=7").json["streams"][0]
    client.post("/sse/dashboard/disconnect", json={"client_id": row["client_id"]})
    tab.read_on()

    assert tab.data == ["hi"]
    assert why["verdict"] == "not_traced"
    assert tab.count("close") == 1
    wrong = client.post("/sse/dashboard/send", json={"target": "user", "to": ""})
    assert wrong.status_code == 400
