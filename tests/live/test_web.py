"""What pages may do, with real proxies in between, and over several workers."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sse_broker.testing import read_events
from tests.live.conftest import need
from tests.live.servers import TOKEN, USER, Server, free_port
from tests.live.test_deploy_files import PROXIES, hub, in_front  # noqa: F401  # a fixture

pytestmark = pytest.mark.live

WORKERS = {
    "handoff": ["-k", "sse_broker.gunicorn.StreamWorker", "--threads", "8"],
    "gthread": ["-k", "gthread", "--threads", "8"],
    "gevent": ["-k", "gevent"],
}


@pytest.mark.parametrize("name", PROXIES)
def test_an_origin_agrees_with_the_documented_proxy_on_a_port_of_its_own(
    name: str,
    hub: Server,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    curl = [need("curl", "curl"), "-sI", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"]
    if name == "nginx":
        curl.append("--http2-prior-knowledge")  # all that its file lets this port speak

    def status(port: int, origin: str) -> int:
        url = f"http://localhost:{port}/sse/stream?user_id={USER}"
        done = subprocess.run([*curl, "-H", f"Origin: {origin}", url], capture_output=True)
        return int(done.stdout)

    with in_front(name, hub, tmp_path) as port:
        assert status(port, f"http://localhost:{port}") == 200
        assert status(port, f"https://localhost:{port}") == 200  # TLS ended before the proxy
        for foreign in ("http://localhost", f"http://localhost:{hub.port}", "http://evil.example"):
            assert status(port, foreign) == 403, foreign


@pytest.mark.parametrize("worker", WORKERS)
def test_topics_are_changed_from_whatever_worker(worker: str, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", *WORKERS[worker]]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "--graceful-timeout", "2"]
    server = Server(
        [*command, "sse_broker.app:create_app()"],
        port,
        SSE_LOG_URL=f"sqlite:///{tmp_path}/log.db",
        SSE_DEV_AUTH="1",
        SSE_PUBLISH_TOKEN=TOKEN,
    ).start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        plain = {"Accept": "text/event-stream"}
        connection.request("GET", f"/sse/stream?user_id={USER}&topics=old", headers=plain)
        lines = iter(connection.getresponse())
        client_id = json.loads(data_after(lines, b"event: welcome\n"))["client_id"]
        for n in range(12):  # over new connections: some meet the other worker
            body = {"client_id": client_id, "add": [f"t{n}"], "remove": ["old", f"t{n - 1}"]}
            status, answer, _ = server.ask("POST", f"/sse/subscriptions?user_id={USER}", body)
            assert (status, json.loads(answer)["topics"]) == (200, [f"t{n}"])
            for topic in ("old", f"t{n - 1}", f"t{n}"):
                message = {"target": "topic", "topic": topic, "event": "e", "data": topic}
                bearer = f"Bearer {TOKEN}"
                assert server.ask("POST", "/sse/publish", message, Authorization=bearer)[0] == 200
            assert data_after(lines, b"event: e\n") == f"t{n}"
        other = "11111111-1111-4111-8111-111111111111"
        stranger = server.ask("POST", f"/sse/subscriptions?user_id={other}", body)
        assert stranger[0] == 404
        connection.close()
    finally:
        server.stop()


def data_after(lines: object, event: bytes) -> str:
    """Read on to an event and return its data."""
    frame = b""
    for line in lines:  # type: ignore[attr-defined]
        frame = b"" if line == b"\n" else frame + line
        if event in frame and line.startswith(b"data: "):
            return read_events(frame + b"\n")[0].data
    raise AssertionError("the stream has ended")
