"""Every refusal that a client gets, in the server's log: once a minute per kind, with a count.

Lock map
    _lock   guards the counts; native; held for dictionary work only, never while logging
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sse_broker.core.forks import process_id
from sse_broker.core.ports import Clock, SystemClock
from sse_broker.core.sync import native_lock

__all__ = ["Refused", "refused_here"]

EVERY = 60.0  # seconds between two lines of a kind
MOST_KINDS = 100
MOST_CHARS = 300  # of a reason: it may quote what a client sent

_log = logging.getLogger("sse_broker.refused")


class _Kind:
    def __init__(self) -> None:
        self.count = 0
        self.said_at: float | None = None
        self.words = ""


class Refused:
    """The refusals of one process.  Any thread; never waits."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._lock = native_lock()
        self._kinds: dict[str, _Kind] = {}

    def note(self, kind: str, request: str, status: int, reason: str) -> None:
        """Count one refusal and say what is due.

        *kind* groups refusals and must not hold what a client chose; *request* is
        method and path, *reason* what the client was told.
        """
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
                kind = "others"
            one = self._kinds.setdefault(kind, _Kind())
            one.count += 1
            one.words = f"{request} was refused ({status}): {reason[:MOST_CHARS]}"
        self.say_due()

    def say_due(self) -> None:
        """Log each kind that has refusals to say and was not said for a minute."""
        now, due = self._clock.monotonic(), []
        with self._lock:
            for one in self._kinds.values():
                if one.count and (one.said_at is None or now - one.said_at >= EVERY):
                    due.append((one.words, one.count, one.said_at is None))
                    one.count, one.said_at = 0, now
        for words, count, is_new in due:
            if count == 1 and is_new:
                _log.warning("%s", words)
            else:
                _log.warning("%s; %d of this kind since the last such line", words, count)


_here: dict[int, Refused] = {}


def refused_here(make: Callable[[], Refused] = Refused) -> Refused:
    """Return this process's refusals.  A fork has its own: the parent's lock may be stuck."""
    pid = process_id()
    found = _here.get(pid)
    return found if found is not None else _here.setdefault(pid, make())
