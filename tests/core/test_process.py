"""The life of a broker in one process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sse_broker import Broker, Client, create_blueprint
from sse_broker.core.process import Life
from sse_broker.signals import client_disconnected


def test_a_start_during_a_stop_comes_after_it(tmp_path) -> None:
    broker = Broker(log=f"sqlite:///{tmp_path}/log.db")
    client, stopping, end = Client(1), threading.Event(), threading.Event()
    broker.register(client)
    here = broker.streams.here()

    def told(sender, **facts) -> None:
        stopping.set()
        end.wait(10)

    with client_disconnected.connected_to(told, broker):
        stop = threading.Thread(target=lambda: broker.stop(0))
        stop.start()
        stopping.wait(10)
        start = threading.Thread(target=broker.start)
        start.start()
        end.set()
        stop.join(10)
        start.join(10)

    assert here.life is Life.RUNNING
    assert here.follows
    assert here.reaper.is_alive
    broker.stop()
    assert here.life is Life.STOPPED


def test_a_receiver_may_stop_the_broker_that_stops() -> None:
    broker = Broker()
    broker.register(Client(1))

    def told(sender, **facts) -> None:
        broker.stop()

    with client_disconnected.connected_to(told, broker):
        broker.stop(0)

    assert broker.streams.here().life is Life.STOPPED


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_an_app_that_is_dropped_leaves_no_thread_and_no_descriptor(kind: str, tmp_path) -> None:
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/log.db"
    program = [sys.executable, "-W", "error", "-m", "tests.core.dropped", url]

    subprocess.run(program, check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_blueprints_of_one_broker_share_what_is_done_each_second() -> None:
    broker = Broker()
    create_blueprint(broker, name="one")
    before = len(broker.streams._ticks), len(broker.streams._parts)
    create_blueprint(broker, name="another")

    assert (len(broker.streams._ticks), len(broker.streams._parts)) == before
