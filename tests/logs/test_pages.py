"""The log is asked once for what many want, also when it does not answer."""

from __future__ import annotations

import threading

import pytest

from sse_broker import LogUnavailable, Message, Target
from sse_broker.core.ports import Record
from sse_broker.logs.pages import Pages
from sse_broker.logs.recent import Recent

LOG = [Record(n, f"e-{n}", Message(Target.BROADCAST, str(n))) for n in range(1, 1001)]


def through(pages: Pages, after: int) -> list[Record]:
    """Read as a client does that resumes, in pieces of a size of its own."""
    seen: list[Record] = []
    while found := pages.read(after, 50 + after % 7):
        seen += found
        after = found[-1].position
    return seen


def test_two_hundred_that_missed_the_same_cost_one_reading() -> None:
    asked: list[int] = []

    def read(after: int, limit: int) -> list[Record]:
        asked.append(after)
        return LOG[after : after + limit]

    recent = Recent()
    recent.begin(1000)
    pages = Pages(recent, read)

    for client in range(200):
        assert through(pages, client % 3) == LOG[client % 3 :]
    assert len(asked) <= 2 * len(LOG) // 256 + 3


def test_without_a_feed_the_log_is_asked_each_time() -> None:
    asked: list[int] = []
    pages = Pages(Recent(), lambda after, limit: asked.append(after) or LOG[after : after + limit])

    assert pages.read(0, 5) == pages.read(0, 5) == LOG[:5]
    assert asked == [0, 0]


def test_who_waited_for_a_try_that_failed_does_not_try_again() -> None:
    """Gate: the first reader's try fails once all the others wait behind it."""
    inside, go = threading.Event(), threading.Event()
    tries: list[int] = []

    def read(after: int, limit: int) -> list[Record]:
        tries.append(after)
        inside.set()
        assert go.wait(5)
        raise LogUnavailable("not now")

    recent = Recent()
    recent.begin(1000)
    pages = Pages(recent, read)
    said: list[str] = []
    counted = _Counting(pages)

    def ask() -> None:
        with pytest.raises(LogUnavailable) as caught:
            pages.read(0, 9)
        said.append(str(caught.value))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    threads[0].start()
    assert inside.wait(5)
    for thread in threads[1:]:
        thread.start()
    counted.wait_for(8)
    go.set()
    for thread in threads:
        thread.join(5)

    assert len(said) == 8
    assert len(tries) == 1
    with pytest.raises(LogUnavailable):  # who comes later tries again
        pages.read(0, 9)
    assert len(tries) == 2


class _Counting:
    """Puts a lock into *pages* that says how many have come to it."""

    def __init__(self, pages: Pages) -> None:
        self._lock = pages._turns["turn"] = self  # type: ignore[assignment]
        self._inner = threading.Lock()
        self._came = threading.Semaphore(0)

    def __enter__(self) -> None:
        self._came.release()
        self._inner.acquire()

    def __exit__(self, *args: object) -> None:
        self._inner.release()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._came.acquire(timeout=5)
