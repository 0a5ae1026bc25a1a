"""What is scraped, by one process and by several, read by the real parser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from sse_broker import BrokerConfig
from sse_broker.core.latency import BOUNDS
from sse_broker.metrics import GAUGES, LATENCY, NAMES, exposition
from tests.core.streams import Hub, Tab

FIVE = (
    "sse_active_connections_total",
    "sse_messages_sent_total",
    "sse_messages_dropped_total",
    "sse_client_connect_total",
    "sse_client_disconnect_total",
)


def scraped(broker) -> dict[str, float]:
    text = exposition(broker.streams)[0].decode()
    return {
        one.name + "".join(f"{{{k}={v}}}" for k, v in one.labels.items()): one.value
        for family in parse(text)
        for one in family.samples
    }


@pytest.fixture
def hub():
    with Hub(BrokerConfig(client_buffer_size=4)) as broker:
        yield broker


def test_every_name_is_there_before_anything_happens(hub) -> None:
    found = scraped(hub)

    for name in (*FIVE, *(name for name, _ in NAMES.values()), *(g[0] for g in GAUGES.values())):
        assert name in found
    assert found[f"{LATENCY[0]}_count"] == 0
    assert found["sse_open_descriptors"] > 0


def test_latency_is_a_histogram_with_one_observation_for_each_stream(hub) -> None:
    tabs = [Tab(hub, user=n).connect() for n in range(3)]
    hub.broadcast("e", "x")
    for tab in tabs:
        tab.read_on()

    found = scraped(hub)

    assert found[f"{LATENCY[0]}_count"] == 3
    assert found[f"{LATENCY[0]}_bucket{{le=+Inf}}"] == 3
    below = [found[f"{LATENCY[0]}_bucket{{le={bound!r}}}"] for bound in BOUNDS]
    assert below == sorted(below)
    assert 0 <= found[f"{LATENCY[0]}_sum"] < 30


def test_queues_and_clients_that_fell_behind_are_seen(hub) -> None:
    slow, quick = Tab(hub, user=1).connect().read_on(), Tab(hub, user=2).connect().read_on()
    for n in range(3):
        hub.broadcast("e", str(n))
    quick.read_on()
    found = scraped(hub)
    assert (found["sse_queued_frames"], found["sse_deepest_queue_frames"]) == (3, 3)

    for n in range(9):
        hub.broadcast("e", str(n))
        quick.read_on()
    assert scraped(hub)["sse_clients_behind"] == 1
    slow.read_on()
    found = scraped(hub)
    assert found["sse_clients_behind"] == 0
    assert found["sse_replayed_messages_total"] == 8  # four were in its queue


def test_replays_and_resets_are_counted_by_reason(hub) -> None:
    tab = Tab(hub, user=1).connect().read_on()
    tab.leave()
    hub.broadcast("e", "x")
    tab.connect().read_on()
    for last in ("0000000000-foreign", "000000000000-7"):
        other = Tab(hub, user=2)
        other.last_event_id = last
        other.connect().read_on()

    found = scraped(hub)

    assert found["sse_replays_total"] == 1
    assert found["sse_replayed_messages_total"] == 1
    assert found["sse_resets_total"] == 2
    reasons = [name for name in found if name.startswith("sse_resets_by_reason_total{")]
    assert sum(found[name] for name in reasons) == 2


WORKER = """
import sys
from sse_broker import Broker
from sse_broker.metrics import carry_over, exposition
from tests.core.streams import Tab
broker = Broker()
broker.start()
for n in range(int(sys.argv[1])):
    tab = Tab(broker, user=n).connect()
    broker.send_to_user(n, "e", "x")
    tab.read_on()
carry_over(broker.streams)
print(exposition(broker.streams)[0].decode(), flush=True)
sys.stdin.read()
broker.stop(timeout=0)
"""


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = []
    try:
        for count in (2, 3):
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(count)],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            workers.append(process)
            text = ""
            while "sse_publish_to_write_seconds_bucket" not in text or "+Inf" not in text:
                line = process.stdout.readline()
                assert line
                text += line
            rest = process.stdout.readline()
            while rest.strip():
                text += rest
                rest = process.stdout.readline()
        found = {
            one.name: one.value
            for family in parse(text)
            for one in family.samples
            if not one.labels
        }
    finally:
        for process in workers:
            process.stdin.close()
            process.wait(10)
            process.stdout.close()

    assert found["sse_active_connections_total"] == 5
    assert found["sse_messages_sent_total"] == 5
    assert found["sse_client_connect_total"] == 5
    assert found["sse_publish_to_write_seconds_count"] == 5
    assert found["sse_open_descriptors"] > 6


def test_a_worker_that_sends_and_has_no_streams_is_counted(tmp_path: Path) -> None:
    code = (
        "import flask\n"
        "from sse_broker import Broker, create_blueprint\n"
        "app, broker = flask.Flask('shop'), Broker()\n"
        "app.register_blueprint(create_blueprint(broker))\n"
        "app.add_url_rule('/send', view_func=lambda: broker.broadcast('e', 'x'))\n"
        "for _ in range(3): app.test_client().get('/send')\n"
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "registry = CollectorRegistry()\n"
        "MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())\n"
    )
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )

    assert "sse_messages_published_total 3.0" in done.stdout
