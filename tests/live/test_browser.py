"""client.js in a real Chromium behind a real nginx, while what is behind that comes and goes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from sse_broker import Broker
from tests.live.conftest import need
from tests.live.servers import USER, Server, free_port, serve, until

pytestmark = pytest.mark.live

KEY = "k" * 32
STREAM = f"/sse/stream?user_id={USER}&topics=a"
AWAY = 30.0  # seconds
CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 100; }}
http {{
    log_format asked '$uri $status $http_last_event_id';
    access_log {folder}/access.log asked;
    default_type text/html;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 '<!doctype html><title>page</title>
            <script src="http://127.0.0.1:{port}/sse/client.js"></script>'; }}
        location = /away {{ return 200 '<!doctype html><title>away</title>'; }}
        location = /token {{ return 200 '{token}'; }}
        location = /204 {{ return 204; }}
        location = /401 {{ return 401; }}
        location = /403 {{ return 403; }}
        location = /429 {{ add_header Retry-After 20 always; return 429; }}
        location = /503 {{ return 503; }}
        location /sse/ {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; }}
    }}
}}
"""
CONNECT = """
const [name, url, token, hook] = arguments;
const page = window[name] = { got: [], resets: [], states: [] };
page.stream = SSEBroker.connect(url, {
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  onReset: (data) => page.resets.push(data.reason),
  onState: (state, { reason, status, wait }) => {
    if (state !== "connecting") page.states.push([state, reason, status, wait]);
  },
  share: false,                            // these are about one stream; test_tabs.py has the others
  renew: hook ? async () => {
    const fresh = await (await fetch("/token")).text();
    return { headers: { Authorization: `Bearer ${fresh}` } };
  } : null,
  lastEventId: name === "stale" ? "nobody-1" : "",
});
page.stream.addEventListener("n", (event) => page.got.push(event.data));
"""


class Page:
    """One page of a browser, and the streams that it has by name."""

    def __init__(self, driver: Any, port: int, folder: Path) -> None:
        self._driver, self.port, self._folder = driver, port, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def open(self, path: str = "/", host: str = "127.0.0.1") -> Page:
        self._driver.get(f"http://{host}:{self.port}{path}")
        return self

    def run(self, script: str, *arguments: object) -> Any:
        return self._driver.execute_script(script, *arguments)

    def connect(self, name: str, url: str = STREAM, token: str = "", hook: bool = False) -> None:
        self.run(CONNECT, name, url, token, hook)

    def of(self, name: str, what: str) -> Any:
        return self.run(f"return {name}.{what}")

    def asked(self, path: str) -> list[list[str]]:
        """Status and Last-Event-ID of the requests that nginx has seen the end of."""
        lines = (self._folder / "access.log").read_text().splitlines()
        return [line.split()[1:] for line in lines if line.split()[0] == path]


@pytest.fixture
def site(browser, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts the test app with settings, nginx before it, and opens the page."""
    nginx = need("nginx", "nginx-light")
    with contextlib.ExitStack() as stack:

        def start(**settings: str) -> tuple[Page, Server]:
            settings.setdefault("SSE_LOG_URL", f"sqlite:///{tmp_path}/log.db")
            server = stack.enter_context(
                serve("gthread", SSE_RETRY="1000", SSE_HISTORY_SIZE="1000", **settings)
            )
            port = free_port()
            token = jwt.encode({"sub": USER, "exp": time.time() + 3600}, KEY)
            config = tmp_path / "nginx.conf"
            config.write_text(
                CONFIG.format(folder=tmp_path, upstream=server.port, port=port, token=token)
            )
            process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(config)])
            stack.callback(process.wait, 5)
            stack.callback(process.terminate)
            front = Server([], port)
            until(lambda: answers(front))
            return Page(browser, port, tmp_path).open(), server

        yield start


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.ask("GET", "/away")[0] == 200
    return False


def say(server: Server, *numbers: int) -> None:
    for n in numbers:
        server.publish(target="topic", topic="a", event="n", data=n)


def test_half_a_minute_of_502_costs_nothing(site, tmp_path: Path) -> None:
    page, server = site()
    page.connect("ours")
    page.run("window.native = new EventSource(arguments[0])", STREAM)
    until(lambda: server.json("/numbers")["clients"] == 2)
    say(server, 0, 1)
    until(lambda: page.of("ours", "got") == [0, 1])
    last = page.of("ours", "stream.lastEventId")

    server.stop()
    gone = time.monotonic()
    log = Broker(log=f"sqlite:///{tmp_path}/log.db")
    for n in (2, 3, 4):
        log.send_to_topic("a", "n", n)
    until(lambda: time.monotonic() - gone > AWAY, AWAY + 5, 0.2)
    refused = [asked for asked in page.asked("/sse/stream") if asked == ["502", last]]
    assert len(refused) >= 2
    assert page.run("return native.readyState") == 2  # what this script is for
    assert page.of("ours", "stream.state") != "closed"
    server.start()
    say(server, 5)

    until(lambda: 5 in page.of("ours", "got"), 60)
    say(server, 6)
    until(lambda: 6 in page.of("ours", "got"))
    assert page.of("ours", "got") == [0, 1, 2, 3, 4, 5, 6]
    assert page.of("ours", "resets") == []
    assert page.of("ours", "stream.state") == "open"


def test_an_expired_token_is_renewed_by_the_pages_hook_and_ends_the_stream_without_one(
    site,
) -> None:
    page, server = site(SSE_JWT_KEY=KEY)
    short = jwt.encode({"sub": USER, "exp": time.time() + 4}, KEY)
    page.connect("renewing", "/sse/stream?topics=a", short, True)
    page.connect("plain", "/sse/stream?topics=a", short)
    until(lambda: server.json("/numbers")["clients"] == 2)
    say(server, 0)
    until(lambda: page.of("renewing", "got") == page.of("plain", "got") == [0])

    until(lambda: page.of("plain", "stream.state") == "closed", 20)
    say(server, 1)
    until(lambda: page.of("renewing", "got") == [0, 1], 20)

    *_, end = page.of("plain", "states")
    assert (end[0], end[2]) == ("closed", 401)
    assert "authentication failed" in end[1]
    assert page.of("plain", "got") == [0]
    assert page.of("renewing", "resets") == []
    assert ["waiting", "expired"] in [state[:2] for state in page.of("renewing", "states")]


def test_some_answers_stop_and_others_wait(site) -> None:
    page, _ = site()
    for status in (204, 401, 403, 429, 503):
        page.connect(f"s{status}", f"/{status}")
    page.connect("wrong", "/away")  # 200, but a page

    for status in (204, 401, 403):
        until(lambda status=status: page.of(f"s{status}", "stream.state") == "closed")
        assert [state[2] for state in page.of(f"s{status}", "states")] == [status]
    until(lambda: len(page.asked("/503")) >= 3, 30)
    ((state, _, status, wait),) = page.of("s429", "states")
    assert (state, status) == ("waiting", 429)
    assert wait >= 20
    assert "text/html" in page.of("wrong", "states")[0][1]
    for status in (204, 401, 403, 429):
        assert len(page.asked(f"/{status}")) == 1


def test_a_full_house_is_waited_out(site) -> None:
    page, _ = site(SSE_MAX_CONNECTIONS="1")
    page.connect("first")
    until(lambda: page.of("first", "stream.state") == "open")
    page.connect("second")
    until(lambda: page.of("second", "states"))
    page.run("first.stream.close()")

    until(lambda: page.of("second", "stream.state") == "open", 20)

    states = page.of("second", "states")
    assert "too many connections" in states[0][1]
    assert [state[0] for state in states].count("open") == 1
    assert len(page.asked("/sse/stream")) >= 2  # the first, and the refusal of the second


def test_an_id_that_proves_nothing_is_a_reset(site) -> None:
    page, server = site()
    page.connect("stale")
    until(lambda: page.of("stale", "resets"))
    say(server, 0)

    until(lambda: page.of("stale", "got") == [0])

    assert len(page.of("stale", "resets")) == 1


def test_a_server_that_stands_still_is_left_and_a_quiet_one_is_not(site) -> None:
    page, server = site(SSE_HEARTBEAT_INTERVAL="5", SSE_HEARTBEAT_STYLE="comment")
    page.connect("ours")
    until(lambda: page.of("ours", "stream.state") == "open")
    say(server, 0)
    until(lambda: page.of("ours", "got") == [0])
    quiet = time.monotonic()
    until(lambda: time.monotonic() - quiet > 15, 20, 0.2)
    assert [state[0] for state in page.of("ours", "states")] == ["open"]

    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        until(lambda: len(page.of("ours", "states")) > 1, 25)
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    assert page.of("ours", "states")[1][:2] == ["waiting", "silent for 12.5 s"]
    say(server, 1)
    until(lambda: page.of("ours", "got") == [0, 1], 30)
    assert page.of("ours", "resets") == []


def test_a_page_that_went_away_and_came_back_goes_on(site) -> None:
    page, server = site()
    page.connect("ours")
    page.run("addEventListener('pageshow', (event) => { window.persisted = event.persisted; });")
    until(lambda: page.of("ours", "stream.state") == "open")
    say(server, 0)
    until(lambda: page.of("ours", "got") == [0])

    page.open("/away")
    until(lambda: server.json("/numbers")["clients"] == 0)
    say(server, 1, 2)
    page.back()

    until(lambda: page.title == "page")
    assert page.run("return window.persisted") is True, "Chromium made the page anew"
    until(lambda: page.of("ours", "got") == [0, 1, 2])
    say(server, 3)
    until(lambda: page.of("ours", "got") == [0, 1, 2, 3])
    assert page.of("ours", "resets") == []


def test_a_page_of_another_site_and_a_module_can_load_it(site) -> None:
    page, _ = site()

    page.open(host="localhost")  # where the script's address is another site's
    assert page.run("return typeof SSEBroker.connect") == "function"

    page.open()
    loaded = "delete globalThis.SSEBroker; const done = arguments[0];"
    loaded += "import('/sse/client.js').then(() => done(typeof SSEBroker.connect), done);"
    assert page.execute_async_script(loaded) == "function"
