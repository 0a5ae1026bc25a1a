"""A fast sender is slowed: what is on its way to this process's streams is bounded.

The bound is half of what the log keeps, so that a stream which has fallen behind
and goes on from the log finds there what it has not read.  A sender in this process
waits while more than that is on its way: while delivery, or a stream that makes
progress, is so far behind.  A stream that stands still or drips is waited for no
longer than :data:`WINDOW`, once, until it has caught up.

How far behind somebody is, is measured in bytes by marks: positions, and how much
had been sent up to each.

Lock map
    _lock     guards the sums and marks; native; held for O(1) work; a leaf
    _looking  one sender looks at the clients at a time; native; never waited for;
              the lock of the process is taken inside
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence

from sse_broker.core.client import Client
from sse_broker.core.ports import LogLimits
from sse_broker.core.sync import native_lock
from sse_broker.errors import QueueFull

__all__ = ["Flow", "kept_bytes"]

OVERHEAD = 512  # bytes; what a message costs beside its frame while it is on its way
STEP = 0.005  # seconds between two looks of a sender that waits
WINDOW = 1.0  # seconds in which a stream that is waited for has to make its progress
FASTEST, ALL = 256 * 1024, 32 * 1024 * 1024  # bytes a second: of one stream, of all that are behind
MARK_BYTES = 64 * 1024  # between two marks
MOST_MARKS = 4096


def kept_bytes(limits: LogLimits) -> tuple[int, int]:
    """Return how many bytes a log keeps for sure, and what a message counts beside its own.

    Both are 0 for a log that keeps nothing.
    """
    if limits.resume_window:
        return limits.resume_bytes, OVERHEAD
    if not limits.history_size:
        return 0, 0
    kept = limits.history_bytes or 64 * 1024 * 1024
    return kept, max(OVERHEAD, kept // limits.history_size)


class _Watched:
    """A stream that is far behind: where it was, and when."""

    __slots__ = ("at", "given_up", "since")

    def __init__(self, at: int, since: float) -> None:
        self.at, self.since, self.given_up = at, since, False


class Flow:
    """How much is on its way in one process, and the wait of its senders.

    *clients* returns the clients of the process, *delivered* the position up to which
    they were offered everything, *is_on* whether anything is being delivered here and
    the caller may wait for it; *now* is the monotonic clock.
    """

    def __init__(
        self,
        limits: LogLimits,
        patience: float,
        clients: Callable[[], Sequence[Client]],
        delivered: Callable[[], int],
        is_on: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._now = now
        kept, self._overhead = kept_bytes(limits)
        self._most = kept // 2 if patience else 0
        self._patience = patience
        self._clients = clients
        self._delivered = delivered
        self._is_on = is_on
        self._lock = native_lock()
        self._looking = native_lock()
        self._seen = 0  # what the last look found
        self.messages = 0  # sent by this process
        self._total = 0
        self._look_at = 0  # the sum at which somebody has to look again
        self._next_mark = 0
        self._marks: list[tuple[int, int]] = []  # positions, and the sums up to them
        self._watched: dict[str, _Watched] = {}
        self._waited = 0.0  # the time of all waits: what a stream's progress is measured by
        self.waiting = 0  # senders

    def sent(self, position: int, size: int) -> None:
        """Note a message that this process has sent."""
        with self._lock:
            self.messages += 1
            self._total = total = self._total + size + self._overhead
            if total >= self._next_mark:
                self._mark_locked(position, total)

    def _mark_locked(self, position: int, total: int) -> None:
        marks = self._marks
        if not marks or position > marks[-1][0]:
            marks.append((position, total))
            self._next_mark = total + MARK_BYTES
            if len(marks) > MOST_MARKS:
                del marks[: MOST_MARKS // 2]

    def wait(self) -> None:
        """Wait while too much is on its way.  Called by a sender, with no lock held.

        :raises QueueFull: it still is after the setting ``send_timeout``.
        """
        if self._total < self._look_at or not self._most:
            return
        behind = self._behind()
        if behind > self._most and self._is_on():
            behind = self._wait(behind)
        self._look_at = self._total + max(MARK_BYTES, (self._most - behind) // 4)

    def _wait(self, behind: int) -> int:
        waited = 0.0
        with self._lock:
            self.waiting += 1
        try:
            while behind > self._most * 3 // 4 and self._is_on():
                if waited >= self._patience:
                    raise QueueFull(
                        f"{behind} bytes are on their way to the streams of this process; the"
                        f" log keeps too little for more, and {self._patience:g} s did not help"
                    )
                before = self._now()
                self._pause()
                took = max(STEP, self._now() - before)
                waited += took
                self._waited += took / max(1, self.waiting)
                behind = self._behind()
        finally:
            with self._lock:
                self.waiting -= 1
        return behind

    def _pause(self) -> None:
        threading.Event().wait(STEP)

    def _behind(self) -> int:
        """Return how many bytes delivery, or the slowest stream that is waited for, is behind.

        Of several senders one looks, and the others take what was seen last.
        """
        if self._looking.acquire(blocking=False):
            try:
                self._seen = self._look()
            finally:
                self._looking.release()
        return self._seen

    def _look(self) -> int:
        most = self._since(self._delivered())
        far: dict[str, tuple[int, int]] = {}
        for client in self._clients():
            at = client.waits_from
            if at is not None:
                behind = self._since(at)
                if behind > self._most // 4:
                    far[client.id] = at, behind
        self._watch(far)
        for client_id, (_, behind) in far.items():
            if behind > most and not self._watched[client_id].given_up:
                most = behind
        return most

    def _watch(self, far: dict[str, tuple[int, int]]) -> None:
        """Give up on streams that made too little progress while they were waited for."""
        now, watched = self._waited, self._watched
        for client_id in [one for one in watched if one not in far]:
            del watched[client_id]
        wanted = min(FASTEST, ALL // max(1, len(far))) * WINDOW
        for client_id, (at, _) in far.items():
            one = watched.get(client_id)
            if one is None:
                watched[client_id] = _Watched(at, now)
            elif now - one.since >= WINDOW:
                one.given_up = self._since(one.at) - self._since(at) < wanted
                one.at, one.since = at, now

    def _since(self, position: int) -> int:
        """Return about how many bytes were sent after a position."""
        with self._lock:
            marks = self._marks
            index = bisect.bisect_right(marks, (position, 1 << 62)) - 1
            if index < 0:
                return self._total if marks else 0
            if index == len(marks) - 1:
                return self._total - marks[-1][1]
            return self._total - marks[index][1]
