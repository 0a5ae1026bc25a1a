"""The operators' page in a browser, over two workers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.live import zoo
from tests.live.servers import Server, read_until, until

pytestmark = pytest.mark.live

TOKEN = "token-of-the-operators"
STREAM = "&topics=orders:1"


def text_of(browser, name: str) -> str:
    return browser.execute_script(f"return document.getElementById('{name}').innerText")


def fill(browser, form: str, **values: str) -> None:
    for name, value in values.items():
        script = f"document.getElementById('{form}').elements['{name}'].value = arguments[0]"
        browser.execute_script(script, value)
    browser.execute_script(f"document.querySelector('#{form} button').click()")


def test_both_workers_are_shown_live_and_a_stream_is_found_explained_and_ended(
    browser, tmp_path: Path
) -> None:
    options = (*zoo.HANDOFF, "-w", "2")
    settings = {"SSE_DASHBOARD_TOKEN": TOKEN, "SSE_TRACE_SIZE": "100"}
    with zoo.hub(tmp_path, *options, **settings) as hub, contextlib.ExitStack() as held:
        socks = [held.enter_context(contextlib.closing(hub.stream(STREAM))) for _ in range(8)]
        for sock in socks:
            read_until(sock, b"event: welcome", 5)
        show(browser, hub)
        until(lambda: "8" in text_of(browser, "cards").split("\n")[1], 15)

        fill(browser, "find", topic="orders:l")
        until(lambda: "did you mean orders:1?" in text_of(browser, "found"), 10)
        fill(browser, "find", topic="orders:1")
        until(lambda: text_of(browser, "found").count("Disconnect\n") >= 8, 10)
        fill(browser, "send", target="topic", to="orders:1")
        until(lambda: "sent as" in text_of(browser, "sent"), 10)
        for sock in socks:
            read_until(sock, b"a test from the dashboard", 5)
        fill(browser, "explain", user="7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11")
        until(lambda: "written" in text_of(browser, "explained"), 10)
        browser.execute_script("document.querySelector('#found td button').click()")
        until(lambda: "7" in text_of(browser, "cards").split("\n")[1], 15)
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        browser.set_window_size(420, 900)
        wide = "return document.documentElement.scrollWidth - window.innerWidth"
        assert browser.execute_script(wide) <= 0


def show(browser, hub: Server) -> None:
    page = f"localhost:{hub.port}/sse/dashboard"
    browser.get(f"http://x:{TOKEN}@{page}")  # the browser keeps what it was given for this site
    browser.get(f"http://{page}")
