"""The chat's answer: written once, from where it stands, to its end or until it is cancelled."""

from __future__ import annotations

import json

import pytest

from samples import chat
from sse_broker import Broker
from sse_broker.testing import read_events


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_DATA", str(tmp_path))
    monkeypatch.setattr(chat, "model", lambda question, before: iter("üb🎈er "[len(before) :]))
    monkeypatch.setattr(chat, "EVERY", 0)
    app = chat.create_app()
    yield app
    app.extensions["sse"].stop(timeout=0)


@pytest.fixture
def asked(app, monkeypatch) -> str:
    """A chat whose writer has not begun."""
    with monkeypatch.context() as patch:
        patch.setattr(chat, "answer", lambda broker, chat: None)
        answer = app.test_client().post("/chats", data={"question": "Why?"})
    assert answer.status_code == 303
    return answer.location.rsplit("/", 1)[1]


def state(app, name: str) -> dict:
    return app.test_client().get(f"/chats/{name}.json").json


def pieces(app, name: str, moment: str, count: int) -> list:
    url = f"/sse/stream?user_id=1&topics=chat:{name}&last_event_id={moment}"
    events = read_events(app.test_client().get(url).response, count)
    return [json.loads(event.data) for event in events[1:]]


def test_an_answer_is_in_the_database_and_in_the_stream(app, asked) -> None:
    broker: Broker = app.extensions["sse"]
    moment = broker.last_event_id()

    chat.answer(broker, asked)

    assert (state(app, asked)["text"], state(app, asked)["status"]) == ("üb🎈er ", "done")
    *texts, end, last = pieces(app, asked, moment, 9)
    text = ""
    for piece in [*texts, end]:
        assert piece["at"] == len(text.encode("utf-16-le")) // 2
        text += piece["text"]
    assert text == "üb🎈er "
    assert last == {"status": "done"}


def test_another_writer_goes_on_where_the_first_was_lost(app, asked) -> None:
    broker: Broker = app.extensions["sse"]
    assert chat._keep(broker, asked, "", "üb")

    chat.answer(broker, asked)

    assert state(app, asked)["text"] == "üb🎈er "
    assert not chat._keep(broker, asked, "üb", "late"), "a writer that was replaced goes on"


def test_a_cancelled_answer_ends_where_it_is(app, asked) -> None:
    broker: Broker = app.extensions["sse"]
    chat._keep(broker, asked, "", "üb")

    app.test_client().post(f"/chats/{asked}/cancel")
    chat.answer(broker, asked)

    assert (state(app, asked)["text"], state(app, asked)["status"]) == ("üb", "cancelled")


def test_the_page_has_what_there_is_and_where_it_ends(app, asked) -> None:
    broker: Broker = app.extensions["sse"]
    chat._keep(broker, asked, "", "<b>")

    page = app.test_client().get(f"/chats/{asked}").text

    assert "&lt;b&gt;" in page
    assert f'data-last-event-id="{broker.last_event_id()}"' in page


@pytest.mark.parametrize("question", ["", " ", "x" * 501])
def test_a_question_has_a_length(app, question: str) -> None:
    assert app.test_client().post("/chats", data={"question": question}).status_code == 400
