"""Tickets: once, soon, and for the browser that came with them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from sse_broker import Broker, Identity, create_blueprint
from sse_broker.errors import AuthenticationFailed
from sse_broker.testing import FakeClock, read_events
from sse_broker.web.tickets import FIRST_USE, LIFETIME

BEARER = {"Authorization": "Bearer me"}
PLAIN = {"Accept": "text/event-stream"}


def who(request: Any) -> Identity:
    if request.headers.get("Authorization") != "Bearer me":
        raise AuthenticationFailed
    return Identity(7, "t1", topics=["a:*"], token_id="jti-1", claims={"role": "x"})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock):
    with Broker(clock=clock) as broker:
        yield broker


@pytest.fixture
def app(broker: Broker) -> Flask:
    return app_of(broker)


def app_of(broker: Broker, **options: Any) -> Flask:
    app = Flask(__name__)
    blueprint = create_blueprint(broker, who, tickets=True, **options)
    app.register_blueprint(blueprint, url_prefix="/sse")
    return app


def ticket_of(app: Flask) -> str:
    answer = app.test_client().post("/sse/ticket", headers=BEARER)
    assert answer.status_code == 200
    assert answer.json["expires_in"] == FIRST_USE
    assert answer.headers["Cache-Control"] == "no-store"
    ticket: str = answer.json["ticket"]
    return ticket


def opens(client: Any, ticket: str, **options: Any) -> bool:
    response = client.get(f"/sse/stream?ticket={ticket}&topics=a:b", headers=PLAIN, **options)
    if response.status_code == 200:
        assert read_events(response.response, 1)[0].event == "welcome"
    else:
        assert response.status_code == 401
    response.close()
    return bool(response.status_code == 200)


def test_a_ticket_opens_one_stream_of_whom_it_was_given_to(app: Flask, broker: Broker) -> None:
    browser = app.test_client()
    response = browser.get(f"/sse/stream?ticket={ticket_of(app)}&topics=a:b")
    read_events(response.response, 1)
    (client,) = broker.streams.here()._clients()

    assert (client.user_id, client.tenant_id, client.topics) == ("7", "t1", ("a:b",))
    assert client.identity == who(type("R", (), {"headers": BEARER}))
    response.close()


def test_the_browser_that_used_it_comes_back_and_nobody_else(app: Flask) -> None:
    ticket, browser, thief = ticket_of(app), app.test_client(), app.test_client()

    assert opens(browser, ticket)
    assert opens(browser, ticket)  # its automatic reconnect
    assert not opens(thief, ticket)  # who read the URL in a log
    thief.set_cookie("sse_ticket", "A" * 43)
    assert not opens(thief, ticket)
    assert opens(browser, ticket)


def test_two_tabs_of_one_browser_come_back_each_with_its_ticket(app: Flask) -> None:
    one, two, browser = ticket_of(app), ticket_of(app), app.test_client()
    assert [opens(browser, ticket) for ticket in (one, two, one, two)] == [True] * 4


def test_a_ticket_has_to_be_used_soon_and_ends(app: Flask, clock: FakeClock) -> None:
    late, used, browser = ticket_of(app), ticket_of(app), app.test_client()
    assert opens(browser, used)
    clock.advance(FIRST_USE + 1)
    assert not opens(app.test_client(), late)
    assert opens(browser, used)
    clock.advance(LIFETIME)
    assert not opens(browser, used)


def test_a_ticket_ends_with_the_credentials_that_bought_it(clock: FakeClock) -> None:
    def short(request: Any) -> Identity:
        return Identity(7, expires_at=clock.time() + 60)

    with Broker(clock=clock) as broker:
        app = Flask(__name__)
        app.register_blueprint(create_blueprint(broker, short, tickets=True), url_prefix="/sse")
        ticket, browser = ticket_of(app), app.test_client()
        assert browser.get(f"/sse/stream?ticket={ticket}", method="HEAD").status_code == 200
        response = browser.get(f"/sse/stream?ticket={ticket}")
        read_events(response.response, 1)
        assert broker.streams.here()._clients()[0].expires_at == clock.time() + 60
        response.close()
        clock.advance(61)
        assert browser.get(f"/sse/stream?ticket={ticket}").status_code == 401


def test_a_revoked_token_has_no_use_of_its_ticket(app: Flask, broker: Broker) -> None:
    ticket = ticket_of(app)
    broker.revoke("jti-1", broker.streams.clock.time() + 600)
    assert not opens(app.test_client(), ticket)
    assert app.test_client().post("/sse/ticket", headers=BEARER).status_code == 401


@pytest.mark.parametrize("bad", ["", "x", "A" * 43, "A" * 44, "a b", "../x", "é" * 43])
def test_what_is_no_ticket_opens_nothing(app: Flask, bad: str) -> None:
    assert not opens(app.test_client(), bad)
    # and does not fall back to other credentials
    assert app.test_client().get("/sse/stream?ticket=" + bad, headers=BEARER).status_code == 401


def test_a_ticket_buys_no_ticket(app: Flask) -> None:
    browser, ticket = app.test_client(), ticket_of(app)
    assert opens(browser, ticket)
    assert browser.post(f"/sse/ticket?ticket={ticket}").status_code == 401


def test_the_cookie_is_no_scripts_business_and_no_neighbours(app: Flask) -> None:
    plain = app.test_client().get(f"/sse/stream?ticket={ticket_of(app)}")
    cookie = plain.headers["Set-Cookie"]
    assert cookie.startswith("sse_ticket=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    plain.close()

    secure = app.test_client().get(
        f"/sse/stream?ticket={ticket_of(app)}", base_url="https://localhost"
    )
    cookie = secure.headers["Set-Cookie"]
    assert cookie.startswith("__Host-sse_ticket=")
    assert "Secure" in cookie
    secure.close()


def test_a_page_of_a_listed_site_gets_a_cookie_that_comes_back(broker: Broker) -> None:
    app = app_of(broker, cors_origins=["https://app.example.org"])
    abroad = {**PLAIN, "Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}
    response = app.test_client().get(
        f"/sse/stream?ticket={ticket_of(app)}", headers=abroad, base_url="https://localhost"
    )
    cookie = response.headers["Set-Cookie"]
    assert "SameSite=None" in cookie
    assert "Partitioned" in cookie
    response.close()


def test_a_stream_that_was_refused_for_now_comes_back_with_its_ticket(broker: Broker) -> None:
    app, browser = app_of(broker), None
    ticket, browser = ticket_of(app), app.test_client()
    broker.stop(0)
    refused = browser.get(f"/sse/stream?ticket={ticket}", headers=PLAIN)
    assert read_events(refused.data)[0].event == "error"
    broker.start()
    assert opens(browser, ticket)


def test_there_are_none_unless_they_are_switched_on(broker: Broker) -> None:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(broker, who), url_prefix="/sse")
    assert app.test_client().post("/sse/ticket", headers=BEARER).status_code == 404


def test_the_url_is_masked_in_the_access_log(app: Flask) -> None:
    ticket = ticket_of(app)
    with app.test_request_context(f"/sse/stream?ticket={ticket}", method="HEAD") as context:
        environ = context.request.environ
        environ["RAW_URI"] = f"/sse/stream?ticket={ticket}"
        app.full_dispatch_request()
    assert environ["RAW_URI"] == "/sse/stream?ticket=***"


def test_a_ticket_is_used_once_over_all_processes(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Broker(log=url) as one, Broker(log=url) as two:
        apps = [app_of(one), app_of(two)]
        ticket, browser = ticket_of(apps[0]), apps[1].test_client()
        assert opens(browser, ticket)
        assert opens(browser, ticket)
        assert not opens(apps[0].test_client(), ticket)
