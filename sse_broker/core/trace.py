"""What a process remembers of its newest messages and streams, so that it can be explained.

Bounded by the setting ``trace_size``; off, and free, where that is 0.  A message costs
one entry however many clients it had: its audience is an object that neighbours share.

Lock map
    none: rings are appended to by one thread each, and read by copying them, which is
    one step of the interpreter
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

from sse_broker.core.client import Client
from sse_broker.core.ports import Clock, Record

__all__ = ["Departed", "Opened", "Trace"]


Matched = tuple[str, int, Sequence[Client], float]
"""A message's id and position, its audience, and when it was matched.  Plain, to cost little."""

Written = tuple[int, int, float]
"""The first and last position of a batch, and when it was written."""


class Opened(NamedTuple):
    """How a stream began: after which position it was replayed to, or why that was impossible."""

    client_id: str
    after: int | None
    lost: str
    at: float


class Departed(NamedTuple):
    """A stream that has ended."""

    client: Client
    reason: str
    at: float


class Trace:
    """The rings of one process.  Times are seconds since the Unix epoch."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._clock = clock
        self._time = clock.time
        self._matched: collections.deque[Matched] = collections.deque(maxlen=size)
        self._written: collections.deque[Written] = collections.deque(maxlen=size)
        self.opened: collections.deque[Opened] = collections.deque(maxlen=size)
        self.departed: collections.deque[Departed] = collections.deque(maxlen=size)
        self.drops: collections.deque[tuple[str, int, float]] = collections.deque(maxlen=size)

    def matched(self, record: Record, audience: Sequence[Client]) -> None:
        """Note who a message is for."""
        self._matched.append((record.id, record.position, audience, self._time()))

    def written(self, first: int, last: int) -> None:
        """Note that a batch was written, or queued, for its audience."""
        self._written.append((first, last, self._time()))

    def began(self, client: Client, after: int | None, lost: str) -> None:
        """Note a stream's beginning."""
        self.opened.append(Opened(client.id, after, lost, self._clock.time()))

    def ended(self, client: Client, reason: str) -> None:
        """Note a stream's end."""
        self.departed.append(Departed(client, reason, self._clock.time()))

    def dropped(self, client: Client, count: int) -> None:
        """Note that a full queue cost a client some messages."""
        self.drops.append((client.id, count, self._clock.time()))

    def of(self, message_id: str) -> tuple[int, frozenset[str], float, float | None] | None:
        """Return a message's position, its audience's client ids, when it was matched and written.

        ``None`` says that it is not remembered here.
        """
        for one, position, audience, at in reversed(self._matched.copy()):
            if one == message_id:
                batches = self._written.copy()
                wrote = [when for first, last, when in batches if first <= position <= last]
                ids = frozenset(client.id for client in audience)
                return position, ids, at, wrote[-1] if wrote else None
        return None
