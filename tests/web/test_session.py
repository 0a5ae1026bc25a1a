"""Who is logged in, with Flask's session and with Flask-Login."""

from __future__ import annotations

from typing import Any

import flask_login
import pytest
from flask import Flask, session

from sse_broker import SSE, Broker, session_authenticator


class Person(flask_login.UserMixin):
    def __init__(self, id: str, tenant_id: str | None = None) -> None:
        self.id = id
        self.tenant_id = tenant_id


def app_of(broker: Broker, authenticator: Any) -> Flask:
    app = Flask(__name__)
    app.secret_key = "k" * 32
    SSE(app, broker=broker, authenticator=authenticator)
    return app


def who(broker: Broker, client: Any, url: str = "/sse/stream") -> tuple[str, str | None]:
    response = client.get(url)
    assert response.status_code == 200
    next(iter(response.response))
    (one,) = broker.streams.here()._clients()
    response.close()
    return one.user_id, one.tenant_id


@pytest.mark.parametrize("tenant", [None, "t1"])
def test_flasks_session(broker: Broker, tenant: str | None) -> None:
    app = app_of(broker, session_authenticator())

    @app.post("/login")
    def login() -> str:
        session["user_id"], session["tenant_id"] = 7, tenant
        return "ok"

    client = app.test_client()
    assert client.get("/sse/stream").status_code == 401
    client.post("/login")
    assert who(broker, client) == ("7", tenant)


@pytest.mark.parametrize("tenant", [None, "t1"])
def test_flask_login(broker: Broker, tenant: str | None) -> None:
    app = app_of(broker, session_authenticator(topics=lambda user: [f"user:{user.id}:*"]))
    manager = flask_login.LoginManager(app)
    manager.user_loader(lambda key: Person(key, tenant))

    @app.post("/login")
    def login() -> str:
        flask_login.login_user(Person("7"))
        return "ok"

    @app.post("/logout")
    def logout() -> str:
        flask_login.logout_user()
        return "ok"

    client = app.test_client()
    assert client.get("/sse/stream").status_code == 401
    client.post("/login")
    assert who(broker, client, "/sse/stream?topics=user:7:a") == ("7", tenant)
    assert client.get("/sse/stream?topics=user:8:a").status_code == 403
    client.post("/logout")
    assert client.get("/sse/stream").status_code == 401


def test_an_empty_tenant_in_the_session_widens_nothing(broker: Broker) -> None:
    app = app_of(broker, session_authenticator())
    client = app.test_client()
    with client.session_transaction() as given:
        given["user_id"], given["tenant_id"] = 7, ""
    assert client.get("/sse/stream").status_code == 400
