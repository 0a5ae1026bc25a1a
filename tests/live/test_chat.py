"""samples/chat.py in Chromium: an answer survives a reload, a restart and a second device."""

from __future__ import annotations

import pytest

from samples.chat import WORDS
from tests.live.servers import Server, free_port, gunicorn, until

pytestmark = pytest.mark.live


def test_an_answer_survives_a_reload_a_restart_and_a_second_device(browser, tmp_path) -> None:
    port = free_port()
    command = gunicorn(port, "-k", "gthread", "--threads", "16", app="samples.chat:create_app()")
    data = {"DEMO_DATA": str(tmp_path), "SSE_LOG_URL": f"sqlite:///{tmp_path}/log.db"}
    server = Server(command, port, path="/chats", SSE_RETRY="1000", **data).start()
    try:
        text = "return document.getElementById('text').textContent"
        browser.get(f"http://localhost:{port}/chats")
        browser.execute_script("document.querySelector('input').value = 'Why?'")
        browser.execute_script("document.querySelector('form').submit()")
        until(lambda: "/chats/" in browser.current_url)
        until(lambda: len(browser.execute_script(text)) > 100)
        browser.refresh()
        assert len(browser.execute_script(text)) > 100
        first, path = browser.current_window_handle, browser.current_url.rpartition("/")[2]
        browser.switch_to.new_window("tab")
        browser.get(f"http://127.0.0.1:{port}/chats/{path}")  # an origin that shares nothing
        second = browser.current_window_handle
        until(lambda: len(browser.execute_script(text)) > 200)

        server.stop()
        server.start()

        expected = (WORDS * 2).format("Why?", "Why?")
        for device in (first, second):
            browser.switch_to.window(device)
            until(lambda: browser.execute_script(text).strip() == expected.strip(), 40)
            status = "return document.getElementById('status').textContent"
            until(lambda: browser.execute_script(status) == "done")
    finally:
        server.stop()
