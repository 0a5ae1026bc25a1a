"""A call of ``sqlite://`` is over in time, whoever has the file, and however many wait for it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sse_broker import Broker, LogUnavailable

TIMEOUT = 0.4  # seconds


@pytest.fixture
def locked(tmp_path):
    """A broker over a file that another process writes to, for as long as the test runs."""
    path = Path(tmp_path) / "log.db"
    broker = Broker(log=f"sqlite:///{path}?timeout={TIMEOUT}")
    broker.broadcast("e", "makes the file")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield broker, other
    if other.in_transaction:
        other.execute("ROLLBACK")
    other.close()
    broker.log.close()


def timed(act: Callable[[], object], took: list[tuple[float, str]]) -> None:
    began = time.monotonic()
    try:
        act()
        end = "done"
    except LogUnavailable as err:
        end = "nobody knows" if err.maybe_recorded else "unavailable"
    took.append((time.monotonic() - began, end))


def test_many_calls_at_once_share_nothing_but_their_own_deadlines(locked) -> None:
    """With a queue and a lock that are waited for one after the other, the last would take 24."""
    broker, _ = locked
    acts: list[Callable[[], object]] = [
        lambda: broker.broadcast("e", "x"),
        lambda: broker.revoke("token"),
        lambda: broker.disconnect_user("u"),
        lambda: broker.log.roster.sync("p", 1, {"u": True}, 15),
    ]
    took: list[tuple[float, str]] = []
    threads = [threading.Thread(target=timed, args=(act, took)) for act in acts * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [end for _, end in took] == ["unavailable"] * 24
    assert min(seconds for seconds, _ in took) >= 0.9 * TIMEOUT
    assert max(seconds for seconds, _ in took) < 6 * TIMEOUT


def test_what_was_given_up_is_not_recorded_later(locked) -> None:
    broker, other = locked
    after = broker.log.tail()
    with pytest.raises(LogUnavailable):
        broker.broadcast("e", "given up")
    other.execute("ROLLBACK")
    broker.broadcast("e", "sent")

    assert [one.message.data for one in broker.log.read(after, 9)] == ["sent"]


def test_reads_wait_for_no_writer(locked) -> None:
    broker, _ = locked

    assert broker.log.tail()
    assert not broker.log.roster.is_revoked("token")
    assert not broker.is_user_online("u")
