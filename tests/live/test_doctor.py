"""The doctor names each broken set-up, and has nothing to say of a healthy one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from sse_broker.doctor.findings import Report
from sse_broker.doctor.remote import Question, look
from tests.live import zoo
from tests.live.servers import Server, free_port, read_until

pytestmark = pytest.mark.live


def examine(server: Server, path: str = "/sse", **options: object) -> Report:
    options.setdefault("publish_token", zoo.TOKEN)
    return look(Question(f"http://127.0.0.1:{server.port}{path}", **options))


def names(report: Report) -> list[str]:
    return [finding.name for finding in report.findings]


def test_of_a_healthy_set_up_there_is_nothing_to_say(tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub, zoo.nginx(tmp_path, hub.port, zoo.HTTP11) as front:
        report = examine(front)

        assert report.findings == []
        assert report.exit_status == 0
        assert any("ms to arrive" in note for note in report.notes)
        program = [sys.executable, "-m", "sse_broker", "doctor", "--quick", "--json"]
        command = [*program, f"http://127.0.0.1:{front.port}/sse/stream"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "well")


FRONTS = {
    "buffering": "proxy_http_version 1.0; proxy_ignore_headers X-Accel-Buffering;",
    "compression": zoo.HTTP11 + "gzip on; gzip_types text/event-stream; gzip_proxied any;"
    " gzip_min_length 0;",
    "idle_timeout": zoo.HTTP11 + "proxy_read_timeout 2s;",
    "http10": "proxy_http_version 1.0;",
}


@pytest.mark.parametrize("name", FRONTS)
def test_nginx(name: str, tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub, zoo.nginx(tmp_path, hub.port, FRONTS[name]) as front:
        report = examine(front)

    # nginx holds back what came in HTTP/1.0; chunks it passes on as they come.
    assert names(report) == (["http10", name] if name == "buffering" else [name])
    assert report.exit_status == 1


def test_apache_that_deflates(tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub, zoo.apache(tmp_path, hub.port) as front:
        assert names(examine(front)) == ["compression"]


def test_haproxy_with_a_short_timeout(tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub, zoo.haproxy(tmp_path, hub.port, "2s") as front:
        report = examine(front)

    assert names(report) == ["idle_timeout"]
    assert "5 s" in report.findings[0].seen


def test_a_sync_worker(tmp_path: Path) -> None:
    with zoo.hub(tmp_path, "-k", "sync") as hub:
        assert names(examine(hub)) == ["sync_worker"]


def test_a_log_for_each_of_two_workers(tmp_path: Path) -> None:
    with zoo.hub(tmp_path, *zoo.HANDOFF, "-w", "2", SSE_LOG_URL="memory://") as hub:
        assert names(examine(hub, wait=False)) == ["memory_log"]


def test_an_origin_that_is_not_on_the_list(tmp_path: Path) -> None:
    with zoo.hub(tmp_path, SSE_CORS_ORIGINS="https://shop.example.com") as hub:
        assert names(examine(hub, origin="https://www.example.com")) == ["cors"]
        assert names(examine(hub, origin="https://shop.example.com", wait=False)) == []


def test_an_expired_token(tmp_path: Path) -> None:
    claims = {"sub": "7", "exp": int(time.time()) - 60}
    with zoo.hub(tmp_path, SSE_JWT_KEY=zoo.KEY) as hub:
        report = examine(hub, token=jwt.encode(claims, zoo.KEY))
        assert names(report) == ["authentication"]
        assert "the token has expired" in report.findings[0].seen
        claims["exp"] += 3600
        good = examine(hub, token=jwt.encode(claims, zoo.KEY), wait=False)
        assert names(good) == []


@pytest.mark.parametrize("reserve", ["0", "1"])
def test_threads_that_are_all_taken(reserve: str, tmp_path: Path) -> None:
    options = ("-k", "gthread", "--threads", "3")
    reserved = zoo.hub(tmp_path, *options, SSE_RESERVE_THREADS=reserve)
    with reserved as hub, contextlib.ExitStack() as held:
        for _ in range(3 - int(reserve)):
            sock = held.enter_context(contextlib.closing(hub.stream()))
            read_until(sock, b"event: welcome", 5)
        assert "full_threads" in names(examine(hub))


@pytest.mark.parametrize("strip", ["/", "/app/"])
def test_a_path_prefix_that_a_proxy_changes(strip: str, tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub:
        front = zoo.nginx(tmp_path, hub.port, zoo.HTTP11, location="/shop/", strip=strip)
        with front as server:
            path = "/sse" if strip == "/" else "/shop/sse"
            assert names(examine(server, path)) == ["subpath"]


def test_a_wrong_publish_token(tmp_path: Path) -> None:
    with zoo.hub(tmp_path) as hub:
        assert names(examine(hub, publish_token="wrong", wait=False)) == ["publish_refused"]


def test_a_proxy_whose_application_is_away(tmp_path: Path) -> None:
    with zoo.nginx(tmp_path, free_port(), zoo.HTTP11) as front:
        assert names(examine(front)) == ["server_down"]


def test_nobody_there_is_no_finding_but_no_look() -> None:
    report = look(Question(f"http://127.0.0.1:{free_port()}/sse"))

    assert report.exit_status == 2
    assert names(report) == ["unreachable"]
