"""The demo's page in a real Chromium: all six kinds arrive, and a restart is survived."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live.servers import Server, free_port, until

pytestmark = pytest.mark.live


@pytest.fixture
def demo(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "samples.demo"]
    server = Server(command, port, path="/", PORT=str(port), DEMO_DATA=str(tmp_path / "data"))
    yield server.start()
    server.stop()


def test_the_page_shows_all_six_kinds_and_survives_a_restart(demo: Server, browser) -> None:
    from selenium.webdriver.common.by import By

    def text(selector: str) -> str:
        return browser.find_element(By.CSS_SELECTOR, selector).text

    def click(selector: str) -> None:
        browser.find_element(By.CSS_SELECTOR, selector).click()

    browser.get(f"http://localhost:{demo.port}/#Grace")
    until(lambda: text("#state b") == "live")

    for form in ("notify", "ask", "task", "announce", "log"):
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
    until(lambda: "open streams" in text("#numbers"))
    shown = text("#events")
    for event in ("notification", "approval:status_changed", "progress", "announcement"):
        assert event in shown
    for event in ("sample", "log"):
        assert event in shown
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / "demo.png"))

    demo.stop()
    until(lambda: text("#state b") == "reconnecting")
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / "demo-away.png"))
    demo.start()
    note = {"user_id": "22222222-2222-4222-8222-222222222222", "title": "While you were away"}
    assert demo.ask("POST", "/notifications", note)[0] == 200
    until(lambda: text("#state b") == "live", 30)
    until(lambda: "While you were away" in text("#inbox"), 10)
    click("#log button")
    until(lambda: text("#logs").count("order 1042 was paid") == 2)
