"""The app of the tutorial, tested with the kit as its documentation says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("flask_login")
pytest.importorskip("flask_sqlalchemy")
pytest.importorskip("celery")

from flask import Flask

from samples.bell import create_app
from samples.bell.extensions import db
from samples.bell.models import User, add_people
from sse_broker.testing import SSEClient, capture


@pytest.fixture
def app() -> Iterator[Flask]:
    app = create_app(
        {"TESTING": True, "SQLALCHEMY_DATABASE_URI": "sqlite://", "SSE_LOG_URL": "memory://"}
    )
    with app.app_context():
        db.create_all()
        add_people("ada", "ben")
    yield app
    app.extensions["sse"].stop(timeout=0)
    with app.app_context():
        db.engine.dispose()


def logged_in(app: Flask, name: str) -> SSEClient:
    client = SSEClient(app, app.response_class)
    client.post("/login", data={"name": name, "password": name})
    return client


def person(app: Flask, name: str) -> int:
    with app.app_context():
        return db.session.scalar(db.select(User).filter_by(name=name)).id


def test_what_ada_writes_rings_bens_bell_and_nobody_elses(app: Flask) -> None:
    ada, ben = logged_in(app, "ada"), logged_in(app, "ben")
    with ada.stream(timeout=5) as hers, ben.stream(timeout=5) as his:
        ada.post("/messages", data={"to": "ben", "text": "lunch?"})

        assert his.next("notification").json["text"] == "ada: lunch?"
        hers.expect_nothing()


def test_the_page_begins_its_stream_before_it_reads_its_state(app: Flask) -> None:
    ben = logged_in(app, "ben")
    began = re.search(r'lastEventId: "([^"]+)"', ben.get("/").text)
    assert began
    logged_in(app, "ada").post("/messages", data={"to": "ben", "text": "between page and stream"})

    with ben.stream(headers={"Last-Event-ID": began[1]}, timeout=5) as tab:
        assert tab.next().json["text"] == "ada: between page and stream"


def test_a_report_says_its_pages_and_rings_the_bell(app: Flask) -> None:
    ada = logged_in(app, "ada")
    with capture(app) as sent:
        ada.post("/reports")

    pages = sent.matching(user=person(app, "ada"), event="report")
    assert len(pages) == 3
    sent.assert_pushed(event="notification", times=1)


def test_what_is_not_committed_is_not_said(app: Flask) -> None:
    from samples.bell.service import notify

    with capture(app) as sent, app.app_context():
        notify(person(app, "ben"), "never")
        db.session.rollback()

    sent.assert_nothing_pushed()


def test_who_is_not_logged_in_gets_no_stream(app: Flask) -> None:
    assert app.test_client().get("/sse/stream").status_code == 401


def test_who_logs_out_is_hung_up_on(app: Flask) -> None:
    ada = logged_in(app, "ada")
    with ada.stream(timeout=5) as tab:
        ada.post("/logout")

        assert tab.next("close").json["reason"] == "logged out"
