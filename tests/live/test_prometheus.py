"""Prometheus itself scrapes three workers, and every query of the samples has an answer."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.live import zoo
from tests.live.conftest import need
from tests.live.servers import ROOT, free_port, read_until, until

pytestmark = pytest.mark.live

OPS = ROOT / "samples" / "ops"
STREAMS = 12


def queries() -> list[str]:
    panels = json.loads((OPS / "grafana.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = re.findall(r"expr: (.*) > [\d.]+$", (OPS / "alerts.yml").read_text(), re.MULTILINE)
    assert len(rules) == (OPS / "alerts.yml").read_text().count("expr:")
    return [*shown, *rules]


def test_every_query_of_the_samples_returns_data_over_three_workers(tmp_path: Path) -> None:
    prometheus, promtool = need("prometheus", "prometheus"), need("promtool", "prometheus")
    checked = subprocess.run(
        [promtool, "check", "rules", str(OPS / "alerts.yml")], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    folder, port = tmp_path / "metrics", free_port()
    folder.mkdir()
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    options = (*zoo.HANDOFF, "-w", "3")
    with zoo.hub(tmp_path, *options, **settings) as hub, contextlib.ExitStack() as held:
        config = (OPS / "prometheus.yml").read_text()
        config = config.replace("15s", "1s").replace("localhost:8000", f"127.0.0.1:{hub.port}")
        (tmp_path / "prometheus.yml").write_text(
            config.replace("alerts.yml", str(OPS / "alerts.yml"))
        )
        command = [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        held.callback(process.wait, 10)
        held.callback(process.terminate)
        for _ in range(STREAMS):
            sock = held.enter_context(contextlib.closing(hub.stream()))
            read_until(sock, b"event: welcome", 5)
        bearer = {"Authorization": f"Bearer {zoo.TOKEN}"}

        def value(query: str) -> list[object]:
            hub.ask("POST", "/sse/publish", {"target": "broadcast", "data": "x"}, **bearer)
            return found(port, query)

        until(lambda: value("sse_active_connections_total == 12"), 20, pause=0.3)
        for query in queries():
            until(lambda query=query: value(query), 20, pause=0.3)
        sums = "sse_messages_sent_total == 12 * sse_messages_published_total"
        until(lambda: found(port, sums), 20, pause=0.3)


def found(port: int, query: str) -> list[object]:
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return list(json.load(answer)["data"]["result"])
    return []
