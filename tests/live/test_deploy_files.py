"""The proxies' files of samples/deploy, each in front of the hub."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h2.connection
import h2.events
import pytest

from sse_broker.wire.parse import Event, Parser
from tests.live.conftest import need
from tests.live.servers import ROOT, TOKEN, USER, Server, free_port, until

pytestmark = pytest.mark.live

FILES = ROOT / "samples" / "deploy"
APACHE = """
ServerRoot {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/apache.log
Mutex file:{folder}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule env_module /usr/lib/apache2/modules/mod_env.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
User www-data
Group www-data
"""
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
"""
NGINX_HTTP = """http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""


def nginx(folder: Path, text: str) -> list[str]:
    program = need("nginx", "nginx-light")
    text = re.sub("worker_(processes|rlimit_nofile) .*\n", "", text)
    text = text.replace("32768", "500").replace("1h;", "7s;")
    text = NGINX.format(folder=folder) + text.replace("http {\n", NGINX_HTTP.format(folder=folder))
    (folder / "nginx.conf").write_text(text)
    return [program, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, text: str) -> list[str]:
    program = need("caddy", "caddy")
    (folder / "Caddyfile").write_text(text)
    return [program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def haproxy(folder: Path, text: str) -> list[str]:
    program = need("haproxy", "haproxy", path="/usr/sbin:/usr/bin")
    text = text.replace("maxconn 20000", "maxconn 500").replace(" 1h", " 7s")
    (folder / "haproxy.cfg").write_text(text)
    return [program, "-db", "-q", "-f", str(folder / "haproxy.cfg")]


def apache(folder: Path, text: str) -> list[str]:
    program = need("apache2", "apache2", path="/usr/sbin:/usr/bin")
    text = APACHE.format(folder=folder) + text.replace("ProxyTimeout 3600", "ProxyTimeout 7")
    (folder / "apache.conf").write_text(text)
    return [program, "-DFOREGROUND", "-f", str(folder / "apache.conf")]


PROXIES: dict[str, tuple[str, Callable[[Path, str], list[str]]]] = {
    "nginx": ("nginx.conf", nginx),
    "caddy": ("Caddyfile", caddy),
    "haproxy": ("haproxy.cfg", haproxy),
    "apache": ("apache.conf", apache),
}
AT_ONCE, AT_HEARTBEATS = ("nginx", "caddy"), ("haproxy", "apache")  # they notice who has left


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The hub on the hand-off worker, with the shortest heartbeat there is."""
    folder = tmp_path_factory.mktemp("hub")
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:sse_broker.gunicorn_conf"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "sse_broker.app:create_app()"]
    server = Server(
        command,
        port,
        SSE_LOG_URL=f"sqlite:///{folder}/log.db",
        SSE_DEV_AUTH="1",
        SSE_PROXIES="1",
        SSE_PUBLISH_TOKEN=TOKEN,
        SSE_HEARTBEAT_INTERVAL="5",
    ).start()
    yield server
    server.stop()


@contextlib.contextmanager
def in_front(name: str, hub: Server, folder: Path) -> Iterator[int]:
    """Start the proxy *name* with its file; return its port."""
    file, start = PROXIES[name]
    port = free_port()
    text = (FILES / file).read_text().replace("127.0.0.1:8000", f"127.0.0.1:{hub.port}")
    text = text.replace("bind :8080", "bind 127.0.0.1:8080").replace(
        "Listen 8080", "Listen 127.0.0.1:8080"
    )
    text = text.replace("listen 8080", "listen 127.0.0.1:8080").replace("8080", str(port))
    process = subprocess.Popen(start(folder, text), cwd=folder, stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), 15)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Reader:
    """The events of one stream, read by a thread."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.events: list[Event] = []
        self._chunks = chunks
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        parser = Parser()
        with contextlib.suppress(ValueError):
            for chunk in self._chunks:
                self.events += parser.feed(chunk)

    def of(self, name: str) -> list[Event]:
        return [one for one in self.events if one.event == name]


def url(port: int) -> str:
    return f"http://localhost:{port}/sse/stream?user_id={USER}&topics=news"


def publish(hub: Server, text: str) -> None:
    body = {"target": "topic", "topic": "news", "event": "news", "data": text}
    assert hub.ask("POST", "/sse/publish", body, Authorization=f"Bearer {TOKEN}")[0] == 200


def streams(hub: Server) -> int:
    status, body, _ = hub.ask("GET", "/sse/stats", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    return int(json.loads(body)["total_clients"])


class Tab:
    """A stream through one proxy, read by a curl: a process that can be killed, as a browser is."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.come("")

    def come(self, last_event_id: str) -> None:
        command = [need("curl", "curl"), "-sN", "--no-buffer", url(self.port)]
        if self.name == "nginx":
            command.append("--http2-prior-knowledge")
        if last_event_id:
            command += ["-H", f"Last-Event-ID: {last_event_id}"]
        self._curl = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._curl.stdout is not None
        self.reader = Reader(iter(functools.partial(self._curl.stdout.read1, 65_536), b""))

    def leave(self) -> None:
        self._curl.kill()
        self._curl.wait(5)


def test_a_stream_through_each_proxy(hub: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = streams(hub)
    with contextlib.ExitStack() as stack:
        tabs = []
        for name in PROXIES:
            folder = tmp_path / name
            folder.mkdir()
            tabs.append(Tab(name, stack.enter_context(in_front(name, hub, folder))))
        for tab in tabs:
            stack.callback(tab.leave)
        until(lambda: all(tab.reader.of("welcome") for tab in tabs), 15)
        publish(hub, "at once")
        until(lambda: all(tab.reader.of("news") for tab in tabs), 3)

        # The proxies' timeouts are 7 s here: it is the heartbeats that keep the streams open.
        until(lambda: all(len(tab.reader.of("heartbeat")) >= 2 for tab in tabs), 15)

        left = before + len(tabs)
        for names, seconds in ((AT_ONCE, 4), (AT_HEARTBEATS, 14)):
            for tab in tabs:
                if tab.name in names:
                    tab.leave()
            left -= len(names)
            until(functools.partial(lambda count: streams(hub) == count, left), seconds)

        publish(hub, "missed")
        for tab in tabs:
            tab.come(tab.reader.events[-1].id)
        until(lambda: all(tab.reader.of("news") for tab in tabs), 5)
        assert {one.data for tab in tabs for one in tab.reader.of("news")} == {"missed"}


class OneConnection:
    """Many streams over one HTTP/2 connection, as a browser has them."""

    def __init__(self, port: int, streams: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 10)
        self._h2 = h2.connection.H2Connection()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2**24)
        self.parsers: dict[int, Parser] = {}
        self.events: dict[int, list[Event]] = {}
        for _ in range(streams):
            self._ask(f"/sse/stream?user_id={USER}&topics=news")

    def _ask(self, path: str) -> None:
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]
        self._h2.send_headers(stream, [*head, (":path", path)], end_stream=True)
        self.parsers[stream], self.events[stream] = Parser(), []
        self._sock.sendall(self._h2.data_to_send())

    def read_until_all_have(self, name: str) -> None:
        def all_have() -> bool:
            return all(any(e.event == name for e in came) for came in self.events.values())

        while not all_have():
            for event in self._h2.receive_data(self._sock.recv(65_536)):
                if isinstance(event, h2.events.DataReceived):
                    self.events[event.stream_id] += self.parsers[event.stream_id].feed(event.data)
            self._sock.sendall(self._h2.data_to_send())

    def close(self) -> None:
        self._sock.close()


def test_fifty_streams_of_one_browser_share_one_connection(hub: Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with in_front("nginx", hub, tmp_path) as port:
        browser = OneConnection(port, 50)
        browser.read_until_all_have("welcome")
        publish(hub, "to all")
        browser.read_until_all_have("news")
        assert streams(hub) >= 50
        browser.close()
        until(lambda: streams(hub) == 0, 5)


def test_the_files_that_are_not_started_here_are_well_formed() -> None:
    import yaml

    for name in ("compose.yml", "traefik.yml", "kubernetes.yml"):
        assert list(yaml.safe_load_all((FILES / name).read_text())), name
    for name in ("sse-broker.service", "sse-broker.socket"):
        sections = re.findall(r"^\[(\w+)\]$", (FILES / name).read_text(), re.MULTILINE)
        assert sections[0] == "Unit", name
