"""One stream for all tabs of a browser, in Chromium and Firefox, over plain HTTP/1.1."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.conftest import need
from tests.live.firefox import Firefox
from tests.live.servers import TOKEN, USER, Server, free_port, gunicorn, until

pytestmark = pytest.mark.live

OTHER = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c12"
TABS = 12
ALL = "Array.from({ length: frames.length }, (_, n) => frames[n])"
KILLS = 20
APP = "tests.live.tabs_app:create_app()"


class Tabs:
    """The tabs of one browser, by their handles."""

    def __init__(self, driver: Any, server: Server) -> None:
        self.driver, self.server = driver, server
        self.home = driver.current_window_handle

    def open(self, *topics: str, user: str = USER, share: str = "") -> str:
        if isinstance(self.driver, Firefox):
            handle = self.driver.new_tab()
            self.driver.switch(handle)
        else:
            self.driver.switch_to.new_window("tab")
            handle = self.driver.current_window_handle
        query = "".join(f"&topic={topic}" for topic in topics) + (share and f"&share={share}")
        self.driver.get(f"http://localhost:{self.server.port}/tab?user_id={user}{query}")
        return handle

    def turn(self, handle: str) -> None:
        if isinstance(self.driver, Firefox):
            self.driver.switch(handle)
        else:
            self.driver.switch_to.window(handle)

    def run(self, handle: str, script: str) -> Any:
        self.turn(handle)
        return self.driver.execute_script(script)

    def got(self, handle: str) -> list[int]:
        return self.run(handle, "return got")

    def close(self, handle: str) -> None:
        self.turn(handle)
        self.driver.close()
        self.turn(self.home)


@pytest.fixture
def server() -> Iterator[Server]:
    port = free_port()
    command = gunicorn(port, "-k", "gthread", "--threads", "40", app=APP)
    server = Server(command, port, SSE_PUBLISH_TOKEN=TOKEN, SSE_RETRY="1000", SSE_DEV_AUTH="1")
    yield server.start()
    server.stop()


@pytest.fixture(params=["chromium", "firefox"])
def tabs(request, server: Server, tmp_path) -> Iterator[Tabs]:
    if request.param == "chromium":
        yield Tabs(request.getfixturevalue("browser"), server)
        return
    driver = Firefox(need("firefox-esr", "firefox-esr"), tmp_path / "firefox")
    yield Tabs(driver, server)
    driver.quit()


def say(server: Server, n: int, topic: str = "a") -> None:
    server.publish(target="topic", topic=topic, event="n", data=n)


def streams(server: Server) -> int:
    return server.json("/numbers")["clients"]


def test_twelve_tabs_have_one_stream_and_the_site_answers(tabs: Tabs) -> None:
    started = time.monotonic()
    handles = [tabs.open("a", f"only:{n}") for n in range(TABS)]
    for handle in handles:
        until(lambda handle=handle: tabs.run(handle, "return stream.state") == "open")
    until(lambda: streams(tabs.server) == 1)
    print("open after", time.monotonic() - started)
    say(tabs.server, 1)
    for n in range(TABS):
        say(tabs.server, 100 + n, f"only:{n}")

    for n, handle in enumerate(handles):
        until(lambda handle=handle: len(tabs.got(handle)) >= 2)
        assert tabs.got(handle) == [1, 100 + n]
    assert tabs.run(handles[0], "return fetch('/healthz').then((answer) => answer.text())") == "ok"
    assert streams(tabs.server) == 1


def test_the_leader_is_closed_twenty_times_under_traffic(tabs: Tabs) -> None:
    handles = [tabs.open("a", share="true") for _ in range(3)]
    for handle in handles:
        until(lambda handle=handle: tabs.run(handle, "return stream.state") == "open")
    stop = threading.Event()
    sent: list[int] = []

    def send() -> None:
        while not stop.wait(0.01):
            say(tabs.server, len(sent))
            sent.append(len(sent))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(KILLS):
            leader = handles.pop(0)
            tabs.close(leader)
            handles.append(new := tabs.open("a", share="true"))
            until(lambda new=new: tabs.run(new, "return got.length"))
    finally:
        stop.set()
        sender.join()
    for handle in handles:
        until(lambda handle=handle: tabs.got(handle)[-1] == sent[-1])
        got = tabs.got(handle)
        assert got == list(range(got[0], sent[-1] + 1))
        assert tabs.run(handle, "return resets") == []
    until(lambda: streams(tabs.server) == 1)


def test_a_leader_that_crashes_freezes_or_goes_back_hands_over(browser, server: Server) -> None:
    tabs = Tabs(browser, server)
    handles = [tabs.open("a", "b") for _ in range(4)]
    for handle in handles:
        until(lambda handle=handle: tabs.run(handle, "return stream.state") == "open")
    until(lambda: streams(server) == 1)
    sent = 0

    def all_have(*some: str) -> None:
        nonlocal sent
        say(server, sent)
        sent += 1
        for handle in some:
            until(lambda handle=handle: len(tabs.got(handle)) >= sent)
            assert tabs.got(handle) == list(range(sent))

    def freeze(state: str) -> None:
        browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": state})

    all_have(*handles)
    crashing, freezing, going, staying = handles
    tabs.turn(crashing)
    with contextlib.suppress(Exception):  # there is nobody to answer
        browser.set_script_timeout(1)
        browser.execute_cdp_cmd("Page.crash", {})
    tabs.turn(staying)
    all_have(freezing, going, staying)
    tabs.turn(freezing)
    freeze("frozen")
    all_have(going, staying)
    tabs.turn(going)
    browser.get(f"http://localhost:{server.port}/healthz")
    all_have(staying)
    tabs.turn(going)
    browser.back()
    all_have(staying, going)
    tabs.turn(freezing)
    freeze("active")
    all_have(staying, going, freezing)
    until(lambda: streams(server) == 1)


def test_another_user_and_who_wants_its_own_stream_do_not_share(browser, server: Server) -> None:
    tabs = Tabs(browser, server)
    ada, again, other = tabs.open("a"), tabs.open("b"), tabs.open("a", user=OTHER)
    own = tabs.open("a", share="false")
    for handle in (ada, again, other, own):
        until(lambda handle=handle: tabs.run(handle, "return stream.state") == "open")
    until(lambda: streams(server) == 3)

    server.publish(target="user", user_id=USER, event="n", data="ada")
    server.publish(target="user", user_id=OTHER, event="n", data="other")
    say(server, 1, "b")
    until(lambda: tabs.got(again) == ["ada", 1])
    for handle, expected in ((ada, ["ada"]), (other, ["other"]), (own, ["ada"])):
        until(lambda handle=handle: tabs.got(handle))
        assert tabs.got(handle) == expected

    tabs.run(ada, "return stream.subscribe('c')")
    say(server, 2, "c")
    until(lambda: tabs.got(ada) == ["ada", 2])
    assert tabs.got(again) == ["ada", 1]
    assert tabs.run(ada, "return stream.tabs()") == 2


def test_pages_that_render_and_connect_while_messages_are_sent_have_all_of_them(
    browser, server: Server
) -> None:
    browser.get(f"http://localhost:{server.port}/frames")
    missing = f"return {ALL}.filter((one) => (one.all?.length ?? 0) < 1000).length"
    until(lambda: browser.execute_script("return frames.length") == 50, 30)
    until(lambda: browser.execute_script(missing) == 0, 40, 0.2)

    script = f"return {ALL}.map((one) => [one.rendered, one.all])"
    pages = browser.execute_script(script)

    for rendered, numbers in pages:
        assert numbers == list(range(1000)), rendered
    assert len({rendered for rendered, _ in pages}) > 10, "they rendered at the same moment"
