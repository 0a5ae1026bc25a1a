"""A thread of ours that dies: the log says so, readiness says so, and another goes on.

What kills them here is a ``SystemExit`` out of an application's function: loops catch
every ``Exception``, and the interpreter ends a thread on this one without a word.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import flask
import pytest

from sse_broker import Broker, create_blueprint
from sse_broker.core import reaper
from sse_broker.core.threads import spawn
from sse_broker.logs.feed import Feed
from sse_broker.transport import watch
from sse_broker.transport.pump import Pump
from sse_broker.transport.sockets import MOST_HEARD
from tests.core.test_client import record


def until(what: Callable[[], object]) -> None:
    pause, end = threading.Event(), time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        pause.wait(0.01)


class Killer:
    """Raises SystemExit so many times, and then no more."""

    def __init__(self, times: int = 1) -> None:
        self.left = times

    def __call__(self, *args: object) -> None:
        if self.left:
            self.left -= 1
            raise SystemExit


def test_what_ends_a_thread_is_said(caplog) -> None:
    thread = spawn("odd", Killer())
    thread.join(10)

    assert [one.levelno for one in caplog.records] == [logging.CRITICAL]
    assert "sse-broker-odd-" in caplog.text
    assert "SystemExit" in caplog.text


@pytest.fixture
def ready(monkeypatch):
    monkeypatch.setattr(reaper, "TICK", 0.02)
    with Broker() as broker:
        app = flask.Flask(__name__)
        app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
        client = app.test_client()

        def checks() -> dict[str, bool]:
            answer = client.get("/sse/readyz")
            assert answer.status_code == (200 if all(answer.json["checks"].values()) else 503)
            return answer.json["checks"]

        checks.broker = broker
        yield checks


def test_a_dead_reaper_is_said_once_and_goes_on(ready) -> None:
    broker, ticks = ready.broker, []
    broker.streams.each_tick(Killer())
    broker.streams.each_tick(lambda: ticks.append(1))
    until(lambda: not broker.streams.here().reaper.is_alive)

    assert ready()["reaper"] is False
    assert ready()["reaper"] is True
    until(lambda: ticks)


def test_a_part_that_cannot_be_mended_leaves_the_others_mended(ready) -> None:
    mended = []

    def fail() -> None:
        raise RuntimeError

    ready.broker.streams.look_after("odd", lambda: False, fail)
    ready.broker.streams.look_after("even", lambda: True, lambda: mended.append(1))
    until(lambda: mended)

    assert (ready()["odd"], ready()["even"]) == (False, True)


class Source:
    """Records that a feed follows."""

    def __init__(self, *positions: int) -> None:
        self.records = [record(n) for n in positions]
        self.bell = threading.Event()

    def follow(self, after: int):
        found = [one for one in self.records if one.position > after]
        if not found:
            self.bell.wait(0.02)
        return found

    def begin(self, after: int | None) -> int:
        return self.records[-1].position

    def interrupt(self) -> None:
        self.bell.set()


@pytest.mark.parametrize("how", [SystemExit, ValueError])
def test_a_feed_whose_listener_fails_goes_on_and_has_the_record_looked_for(how) -> None:
    got: list[object] = []
    failing = [how]

    def listener(one) -> None:
        if one.position == 2 and failing:
            raise failing.pop()
        got.append(one.position)

    feed = Feed(Source(1, 2, 3), 0, listener, lambda at: got.append(("lost", at)), lambda: None)
    if how is SystemExit:
        feed._thread.join(10)
        assert not feed.is_healthy
        feed.restart()
    until(lambda: 3 in got)

    assert feed.is_healthy
    assert got == [1, ("lost", 2), 3]
    feed.stop()
    feed.restart()
    assert not feed._thread.is_alive()


@pytest.mark.usefixtures("own_watcher")
def test_a_dead_watcher_goes_on_with_the_sockets_it_has() -> None:
    gone: list[str] = []
    pairs = {name: socket.socketpair() for name in ("deadly", "other")}
    ends = [
        watch.watch(pairs["deadly"][0], Killer()),
        watch.watch(pairs["other"][0], lambda why: gone.append("other")),
    ]
    pairs["deadly"][1].close()
    until(lambda: not watch.is_well())
    pairs["other"][1].close()

    watch.mend()

    until(lambda: gone == ["other"])
    assert watch.is_well()
    for end in ends:
        end()
    for pair in pairs.values():
        pair[0].close()


@pytest.mark.usefixtures("own_watcher")
def test_a_watcher_outlives_a_stream_that_cannot_be_told(caplog) -> None:
    gone: list[str] = []
    one, two = socket.socketpair(), socket.socketpair()
    ends = [
        watch.watch(one[0], lambda why: gone.pop()),  # raises IndexError
        watch.watch(two[0], lambda why: gone.append("two")),
    ]
    one[1].close()
    until(lambda: "could not be told" in caplog.text)
    two[1].close()

    until(lambda: gone == ["two"])
    for end in ends:
        end()
    for pair in (one, two):
        pair[0].close()


@pytest.mark.usefixtures("own_watcher")
def test_who_sends_and_sends_up_a_watched_stream_is_cut() -> None:
    why: list[str] = []
    ours, theirs = socket.socketpair()
    end = watch.watch(ours, why.append)
    theirs.sendall(b"x" * MOST_HEARD)
    theirs.sendall(b"x")

    until(lambda: why == ["flood"])
    end()
    ours.close()
    theirs.close()


def test_a_dead_pump_goes_on_and_a_stopped_one_does_not(caplog) -> None:
    pump, done = Pump(), threading.Event()
    pump.start()
    pump.post(Killer())
    until(lambda: not pump.is_alive)
    pump.post(done.set)

    pump.restart()

    assert done.wait(10)
    pump.stop()
    pump.restart()
    assert caplog.text.count("the pump had died") == 1


def test_a_thread_that_is_a_greenlet_does_not_go_on_in_a_forked_child() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.core.gevent_fork"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)
