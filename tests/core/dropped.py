"""An app that had a stream and is dropped leaves no thread and no descriptor.  A program of its own:

in a process that has run other tests, whatever keeps a frame of theirs keeps the app as well.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path

import flask

from sse_broker import SSE, Broker, default_authenticator
from sse_broker.core import reaper
from sse_broker.testing import read_events


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("sse-broker-")]


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


def until_gone() -> None:
    for _ in range(1_000):  # in its turn a thread holds what it looks after
        gc.collect()
        left = ours()
        if not left:
            break
        left[0].join(0.01)
    assert not ours(), ours()
    gc.collect()


def main(url: str) -> None:
    reaper.TICK = 0.01
    an_app_that_had_a_stream(url)  # once before, for what a process has only one of
    until_gone()
    before = descriptors()
    for _ in range(3):
        broker = an_app_that_had_a_stream(url)
        until_gone()
        assert broker() is None
    assert descriptors() <= before


if __name__ == "__main__":
    main(sys.argv[1])
