"""Lanes: what is slow costs only itself, and no call is lost."""

from __future__ import annotations

import threading

from sse_broker.core.lanes import SLOW, Lane
from sse_broker.testing import FakeClock


def test_calls_that_take_long_do_not_hold_up_the_others() -> None:
    clock, gate, done = FakeClock(), threading.Event(), threading.Event()
    lane = Lane("test", 2, 8, clock.monotonic)
    inside = threading.Semaphore(0)

    def hang() -> None:
        inside.release()
        gate.wait(20)

    for _ in range(2):
        lane.submit(hang)
    for _ in range(2):
        assert inside.acquire(timeout=20)
    lane.submit(done.set)
    assert lane.waits
    assert len(lane._began) == 2

    clock.advance(2 * SLOW)
    lane.look()

    assert done.wait(20)
    gate.set()
    lane.stop()


def test_there_are_never_more_threads_than_was_said() -> None:
    clock, gate, ran = FakeClock(), threading.Event(), []
    lane = Lane("test", 2, 3, clock.monotonic)
    for _ in range(10):
        lane.submit(lambda: (gate.wait(20), ran.append(1)))
        clock.advance(2 * SLOW)
        lane.look()
    assert len(lane._began) + lane._starting <= 3

    gate.set()
    lane.stop()

    assert len(ran) == 10


def test_a_call_that_raises_or_ends_its_thread_is_not_the_others_trouble(caplog) -> None:
    lane, done = Lane("test", 2), threading.Event()

    def die() -> None:
        raise SystemExit

    def fail() -> None:
        raise ValueError("on purpose")

    for call in (fail, die, die, die, done.set):
        lane.submit(call)
    while not done.wait(0.01):
        lane.look()

    assert "a call of test failed" in caplog.text
    lane.stop()
