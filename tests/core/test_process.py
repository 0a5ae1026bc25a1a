"""The life of a broker in one process."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import flask
import pytest

from sse_broker import SSE, Broker, Client, create_blueprint, default_authenticator
from sse_broker.core import reaper
from sse_broker.core.process import Life
from sse_broker.signals import client_disconnected
from sse_broker.testing import read_events


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


def ours() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("sse-broker-")]


def descriptors() -> int:
    shown = Path("/proc/self/fd")
    return len(list(shown.iterdir())) if shown.is_dir() else 0


def an_app_that_had_a_stream(url: str) -> weakref.ref[Broker]:
    app = flask.Flask(__name__)
    SSE(app, broker=Broker(log=url), authenticator=default_authenticator)
    broker: Broker = app.extensions["sse"]
    user = "6f1c8a2e-0000-4000-8000-000000000001"
    with app.test_client() as browser:
        response = browser.get(f"/sse/stream?user_id={user}", buffered=False)
        read_events(response.response, 1)
        response.close()
        assert browser.get("/sse/metrics").status_code == 200
    assert ours()
    return weakref.ref(broker)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_an_app_that_is_dropped_leaves_no_thread_and_no_descriptor(
    kind, tmp_path, monkeypatch
) -> None:
    gc.collect()  # else what tests before left open is found in a request below, whose frames
    # pytest keeps with its warning, and the app with them
    monkeypatch.setattr(reaper, "TICK", 0.01)
    url = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/log.db"
    an_app_that_had_a_stream(url)  # once before, for what a process has only one of
    until_gone()
    before = descriptors()
    for _ in range(3):
        broker = an_app_that_had_a_stream(url)
        until_gone()
        assert broker() is None

    assert descriptors() <= before


def until_gone() -> None:
    for _ in range(1_000):  # in its turn a thread holds what it looks after
        gc.collect()
        left = [t for t in threading.enumerate() if t.name.startswith("sse-broker-")]
        if not left:
            break
        left[0].join(0.01)
    assert not ours()
    gc.collect()


def test_blueprints_of_one_broker_share_what_is_done_each_second() -> None:
    broker = Broker()
    create_blueprint(broker, name="one")
    before = len(broker.streams._ticks), len(broker.streams._parts)
    create_blueprint(broker, name="another")

    assert (len(broker.streams._ticks), len(broker.streams._parts)) == before
