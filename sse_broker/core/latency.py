"""How long it takes from publishing to writing: a histogram that a batch adds one number to."""

from __future__ import annotations

import bisect

from sse_broker.core.ports import Clock, Record, SystemClock
from sse_broker.wire.message import Message

__all__ = ["BOUNDS", "Latency"]

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds; one more is for what took longer."""


class Latency:
    """Seconds from a message's creation to its write, counted once for each stream.

    One thread notes; any may read.  A clock of another machine that is ahead counts as 0.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._now = (clock or SystemClock()).time
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def note(self, record: Record, clients: int) -> None:
        """Note that a batch that ends with *record* was written to so many streams."""
        message = record.message
        if type(message) is Message:
            took = max(0.0, self._now() - message.created_at.timestamp())
            self.buckets[bisect.bisect_left(BOUNDS, took)] += clients
            self.sum += took * clients

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket that holds a share of all; 0 if there is none."""
        total = sum(self.buckets)
        if not total:
            return 0.0
        seen = 0
        for bound, count in zip(BOUNDS, self.buckets, strict=False):
            seen += count
            if seen >= share * total:
                return bound
        return BOUNDS[-1]
