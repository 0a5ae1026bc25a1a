"""For the tests of applications: a clock that stands still, and streams as lists of events."""

from __future__ import annotations

from collections.abc import Iterable

from sse_broker.wire.parse import Event, Parser

__all__ = ["Event", "FakeClock", "read_events"]


class FakeClock:
    """A clock that moves only when told to; pass it as ``Broker(clock=...)``.

    Waits of threads are real all the same: call what they would call.
    """

    def __init__(self, now: float = 1_000.0, unix_time: float = 1_700_000_000.0) -> None:
        self._now = now
        self._unix_time = unix_time

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._now

    def time(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._unix_time

    def advance(self, seconds: float) -> None:
        """Move both forward."""
        self._now += seconds
        self._unix_time += seconds


def read_events(chunks: bytes | Iterable[bytes], count: int | None = None) -> list[Event]:
    """Return the events in *chunks*, all of them or the first *count*.

    *chunks* may be the body of a Flask test client's response (``response.response``
    or ``response.iter_encoded()``); with *count* it is read only that far.
    """
    parser, found = Parser(), []
    for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
        found.extend(parser.feed(chunk))
        if count is not None and len(found) >= count:
            return found[:count]
    return found
