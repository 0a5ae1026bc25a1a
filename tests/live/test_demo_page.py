"""The demo's page in a real Chromium: all six kinds arrive, and a restart is survived."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sse_broker import Broker
from tests.live.servers import ROOT, Server, free_port, until

pytestmark = pytest.mark.live

GRACE = "22222222-2222-4222-8222-222222222222"


@contextmanager
def bad_gateway(port: int) -> Iterator[list[str]]:
    """What a proxy says while the server behind it is away; yields who asked for the stream."""
    asked: list[str] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Gateway) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, daemon=True)
        thread.start()
        yield asked
        gateway.shutdown()
        thread.join()


@pytest.fixture
def demo(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "samples.demo"]
    data = tmp_path / "data"
    log = {"SSE_LOG_URL": f"sqlite:///{data}/log.db"}
    server = Server(command, port, path="/", PORT=str(port), DEMO_DATA=str(data), **log)
    yield server.start()
    server.stop()


def store(folder: Path, title: str) -> None:
    """Put a notification of Grace's into the demo's database while no server runs."""
    with closing(sqlite3.connect(folder / "data" / "samples.db")) as db, db:
        db.execute("INSERT INTO notification VALUES (NULL, ?, ?)", (GRACE, title))


def test_the_page_shows_all_six_kinds_and_survives_a_restart(
    demo: Server, browser, tmp_path
) -> None:
    from selenium.webdriver.common.by import By

    def text(selector: str) -> str:
        return browser.find_element(By.CSS_SELECTOR, selector).text

    def click(selector: str) -> None:
        browser.find_element(By.CSS_SELECTOR, selector).click()

    def screenshot(name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            browser.save_screenshot(str(Path(folder) / name))

    browser.get(f"http://localhost:{demo.port}/person#Grace")
    until(lambda: text("#state b") == "live")

    for form in ("notify", "ask", "task", "log", "announce"):  # the banner moves what is below it
        if form == "notify":
            click("#notify option:nth-child(2)")
        click(f"#{form} button")
    until(lambda: "Your report is ready" in text("#inbox"))
    until(lambda: text("#unread") == "1")
    until(lambda: "pending" in text("#approvals"))
    click("#approvals button")
    until(lambda: "approved" in text("#approvals"))
    until(lambda: "done" in text("#tasks"), 15)
    until(lambda: "Maintenance at noon" in text("#banner"))
    until(lambda: "order 1042 was paid" in text("#logs"))
    assert "notification 1 stored and pushed" in text("#logs")
    until(lambda: text("#chart-streams b") == "1")
    shown = text("#events")
    for event in ("notification", "approval:status_changed", "progress", "announcement"):
        assert event in shown
    for event in ("sample", "log"):
        assert event in shown
    screenshot("demo.png")

    demo.stop()
    until(lambda: text("#state b") == "reconnecting")
    screenshot("demo-away.png")
    with bad_gateway(demo.port) as asked:
        until(lambda: len(asked) >= 2, 30)  # a native EventSource gives up after the first
    log = Broker(log=f"sqlite:///{tmp_path}/data/log.db")
    log.send_to_user(GRACE, "notification", {"id": 99, "title": "Sent while no server ran"})
    demo.start()
    until(lambda: text("#state b") == "live", 30)
    until(lambda: "Sent while no server ran" in text("#inbox"), 10)
    assert "reset" not in text("#events")
    assert text("#unread") == "2"
    assert "approved" in text("#approvals")
    for n in range(10):  # whichever worker takes it
        click("#log button")
        until(lambda n=n: text("#logs").count("order 1042 was paid") == 2 + n)
    until(lambda: text("#chart-streams b") == "1", 20)
    screenshot("demo-back.png")

    demo.stop()
    for file in (tmp_path / "data").glob("log.db*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    store(tmp_path, "While you were away")  # before the page can be back, or it comes live
    demo.start()
    until(lambda: text("#state b") == "live", 30)
    until(lambda: "While you were away" in text("#inbox"), 10)
    until(lambda: "1 new or changed" in text("#notice"))
    assert "reset" in text("#events")

    click("#users button:nth-child(1)")
    until(lambda: text("#state b") == "live")
    until(lambda: "approved" in text("#approvals"))
    assert "While you were away" not in text("#inbox")


def test_a_screen_reader_and_weak_eyes_find_nothing_to_complain_of(
    demo: Server, browser, built: tuple[bytes, str]
) -> None:
    axe = (ROOT / "js/node_modules/axe-core/axe.min.js").read_text()
    look = "const done = arguments[0]; axe.run({ iframes: false }).then(({ violations }) =>"
    look += " done(violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)])))"
    for scheme in ("light", "dark"):
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for path in ("/", "/person#Grace"):
            browser.get(f"http://localhost:{demo.port}{path}")
            if path != "/":
                state = "return document.querySelector('#state b').textContent"
                until(lambda: browser.execute_script(state) == "live")
                for form in ("notify", "ask", "task", "log", "announce"):
                    browser.execute_script(f"document.querySelector('#{form} button').click()")
                note = "return document.querySelector('#banner').hidden"
                until(lambda: not browser.execute_script(note))
            browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe})
            assert browser.execute_async_script(look) == [], (scheme, path)


def test_two_people_side_by_side_miss_nothing_while_the_server_is_stopped(
    demo: Server, browser
) -> None:
    browser.get(f"http://localhost:{demo.port}/")
    state = "return [...document.querySelectorAll('iframe')].map((one) =>"
    state += " one.contentDocument.querySelector('#state b')?.textContent)"
    until(lambda: browser.execute_script(state) == ["live", "live"])

    ada = "document.querySelector('iframe').contentDocument"
    browser.execute_script(f"{ada}.querySelector('#notify button').click()")
    inbox = "return document.querySelectorAll('iframe')[1].contentDocument"
    inbox += ".querySelector('#inbox').textContent"
    until(lambda: "Your report is ready" in browser.execute_script(inbox))

    browser.execute_script("document.getElementById('stop').click()")
    story = "return document.getElementById('story').textContent"
    until(lambda: "in both inboxes, once and in order" in browser.execute_script(story), 40)
    titles = re.findall(r"Message (\d), sent while", browser.execute_script(inbox))
    assert titles == ["3", "2", "1"]  # the newest on top
