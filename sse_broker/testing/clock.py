"""A clock that is moved by hand."""

from __future__ import annotations

__all__ = ["FakeClock"]


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
