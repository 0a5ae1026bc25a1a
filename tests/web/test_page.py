"""What templates have: the script's tag, right under any prefix, and the moment of the page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from html import unescape

import pytest
from flask import Flask, render_template_string
from werkzeug.middleware.proxy_fix import ProxyFix

from sse_broker import SSE
from sse_broker.testing import read_events

DOCUMENT = {"Sec-Fetch-Dest": "document"}


@pytest.fixture
def make() -> Iterator[Callable[..., Flask]]:
    made: list[Flask] = []

    def make(**config: str) -> Flask:
        made.append(make_app(**config))
        return made[-1]

    yield make
    for app in made:
        app.extensions["sse"].stop(timeout=0)


def make_app(**config: str) -> Flask:
    app = Flask(__name__)
    app.config.update(SSE_LOG_URL="memory://", SSE_DEV_AUTH="1", TESTING=True, **config)
    sse = SSE(app)

    @app.get("/page")
    def page() -> str:
        sse.broadcast("n", "sent after the request began")
        return render_template_string("{{ sse_script(defer=True, nonce='a\"b') }}")

    @app.get("/now")
    def now() -> str:
        return render_template_string(
            "{{ sse_script(last_event_id='', integrity=False) }}|{{ sse_last_event_id() }}"
        )

    return app


def attributes(tag: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall(r' ([\w-]+)="([^"]*)"', tag)}


def test_the_tag_names_script_and_stream_and_the_hash_of_what_is_served(make) -> None:
    client = make().test_client()

    tag = client.get("/page", headers=DOCUMENT).text
    served = client.get("/sse/client.js").data

    found = attributes(tag)
    assert found["src"] == "/sse/client.js"
    assert found["data-sse-stream"] == "/sse/stream"
    digest = base64.b64encode(hashlib.sha384(served).digest()).decode()
    assert found["integrity"] == f"sha384-{digest}"
    assert found["nonce"] == 'a"b'
    assert " defer" in tag
    assert tag.endswith("></script>")


def test_the_tag_is_right_under_a_prefix_of_the_app_and_of_a_proxy(make) -> None:
    app = make(SSE_URL_PREFIX="/push")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]

    found = attributes(app.test_client().get("/now", headers={"X-Forwarded-Prefix": "/erp"}).text)

    assert (found["src"], found["data-sse-stream"]) == ("/erp/push/client.js", "/erp/push/stream")
    assert "integrity" not in found
    assert "data-last-event-id" not in found


@pytest.mark.parametrize("headers", [DOCUMENT, {"Accept": "text/html,*/*"}])
def test_a_page_misses_nothing_that_is_sent_while_its_view_runs(
    make, headers: dict[str, str]
) -> None:
    client = make().test_client()

    moment = attributes(client.get("/page", headers=headers).text)["data-last-event-id"]
    stream = client.get("/sse/stream?user_id=1", headers={"Last-Event-ID": moment})

    assert [event.event for event in read_events(stream.response, 2)] == ["welcome", "n"]


def test_what_is_no_page_costs_no_question_to_the_log(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make()
    asked: list[int] = []
    broker = app.extensions["sse"]
    real = broker.log.tail
    monkeypatch.setattr(broker.log, "tail", lambda: asked.append(1) or real())
    client = app.test_client()

    client.get("/sse/client.js", headers={"Sec-Fetch-Dest": "script", "Accept": "*/*"})
    client.post("/page", headers=DOCUMENT)
    assert not asked
    client.get("/now", headers=DOCUMENT)

    assert len(asked) == 1
