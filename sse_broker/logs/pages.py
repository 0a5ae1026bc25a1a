"""Reading a shared log for many at once: one asks it, and the others get what that one got.

A failure is shared too.  While the log is away a thousand readers wait for one
try and not for a thousand tries, one after another.

Lock map
    _turn     held while the log is asked, over I/O; a greenlet's lock under
              gevent, because that I/O may switch; no other lock is held then
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from sse_broker.core.ports import Record
from sse_broker.errors import LogUnavailable
from sse_broker.logs.recent import Recent

__all__ = ["Pages"]

PAGE = 256  # records that the log is asked for, at least: the next client wants them too


class Pages:
    """The reading of one process: from memory where it can be, else from *read*."""

    def __init__(self, recent: Recent, read: Callable[[int, int], Sequence[Record]]) -> None:
        self._recent = recent
        self._read = read
        # Made at first use: gevent may patch threading after a log has been made.
        self._turns: dict[str, threading.Lock] = {}
        self._failures = 0
        self._failure = ""

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """Return the records after a position, at most *limit*, as the log's own method does.

        :raises PositionLost: something after *after* is gone already.
        :raises LogUnavailable: the log cannot be read now.
        """
        found = self._recent.read(after, limit)
        if found is not None:
            return found
        seen = self._failures
        with self._turns.get("turn") or self._turns.setdefault("turn", threading.Lock()):
            found = self._recent.read(after, limit)
            if found is not None:
                return found
            if self._failures != seen:
                raise LogUnavailable(f"as another reader was told: {self._failure}")
            return self._ask(after, limit)

    def _ask(self, after: int, limit: int) -> Sequence[Record]:
        life = self._recent.life
        try:
            records = self._read(after, max(limit, PAGE))
        except LogUnavailable as err:
            self._failure = str(err)
            self._failures += 1
            raise
        self._recent.keep(after, records, life)
        return records[:limit]
