"""What this process has read of a shared log: each record is read and parsed once, not per client.

``live`` is an unbroken run that ends where the feed is.  A reader that has come
to its end has nothing to ask: whatever follows is handed to it.  ``missed`` are
runs of older records, kept as they were read for the first client that asked;
after a restart a thousand clients ask for the same ones.

Lock map
    _lock     guards the runs; native; O(1) work, or O(n) for the n records of a read
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from sse_broker.core.ports import Record
from sse_broker.core.sync import native_lock

__all__ = ["Recent"]

MOST_RECORDS = 4096
MOST_BYTES = 8 * 1024 * 1024


class Recent:
    """The newest records, and older ones that were asked for.  Any thread; never waits."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._live: _Run | None = None  # none while nobody follows the log
        self._missed: list[_Run] = []  # the one that was used last is last
        self.life = 0  # one more each time everything was forgotten

    def begin(self, after: int) -> int:
        """Forget everything; the next record follows *after*.  Return the new :attr:`life`."""
        with self._lock:
            self._live, self._missed = _Run(after), []
            self.life += 1
            return self.life

    def end(self, life: int) -> None:
        """Forget everything: who began that life follows the log no more."""
        with self._lock:
            if life == self.life:
                self._live, self._missed = None, []
                self.life += 1

    def add(self, record: Record) -> None:
        """Take the record that follows the last one."""
        with self._lock:
            if self._live is not None:
                self._live.extend((record,))
                if self._live.is_over(2):  # now and then and not each time, so that it is cheap
                    self._live.cut()

    def read(self, after: int, limit: int) -> Sequence[Record] | None:
        """Return the records after a position, at most *limit*; ``None`` says ask the log.

        None at all says that there are none yet: those that come are handed out.
        """
        with self._lock:
            live = self._live
            if live is None:
                return None
            if after >= live.after:
                return live.after_position(after, limit)
            for index in range(len(self._missed) - 1, -1, -1):
                run = self._missed[index]
                if run.after <= after < run.end:
                    self._missed.append(self._missed.pop(index))
                    return run.after_position(after, limit)
            return None

    def keep(self, after: int, records: Sequence[Record], life: int) -> None:
        """Take what the log returned as following *after*, for the next who asks.

        *life* is what :attr:`life` was before the log was asked: what was forgotten
        meanwhile does not come back.
        """
        with self._lock:
            live = self._live
            if live is None or life != self.life or after >= live.after:
                return
            run = _Run(after)
            run.extend([record for record in records if record.position <= live.after])
            if records and records[-1].position >= live.after:
                run.end = live.after  # positions need not be dense
            self._join_locked(run)
            while len(self._missed) > 1 and sum(map(len, self._missed)) > MOST_RECORDS:
                self._missed.pop(0)
            while len(self._missed) > 1 and sum(one.size for one in self._missed) > MOST_BYTES:
                self._missed.pop(0)
            if self._missed and self._missed[-1].is_over(1):
                self._missed[-1].cut()

    def _join_locked(self, new: _Run) -> None:
        """Put a run among the others, joined with those that it touches."""
        touching = [run for run in self._missed if run.after <= new.end and new.after <= run.end]
        whole = min([new, *touching], key=lambda run: run.after)
        for run in sorted([new, *touching], key=lambda run: run.after):
            if run is not whole and run.end > whole.end:
                whole.extend([one for one in run.records if one.position > whole.end])
                whole.end = run.end
        self._missed = [run for run in self._missed if run not in touching]
        if whole.end > whole.after:
            self._missed.append(whole)


class _Run:
    """All records of the log after one position and up to another."""

    __slots__ = ("after", "end", "positions", "records", "size")

    def __init__(self, after: int) -> None:
        self.after = self.end = after
        self.positions: list[int] = []
        self.records: list[Record] = []
        self.size = 0  # bytes of frames

    def __len__(self) -> int:
        return len(self.records)

    def extend(self, records: Sequence[Record]) -> None:
        """Take the records that follow the last one."""
        for record in records:
            self.positions.append(record.position)
            self.records.append(record)
            self.size += len(record.frame)
            self.end = record.position

    def after_position(self, position: int, limit: int) -> list[Record]:
        """Return the next records, at most *limit*."""
        first = bisect.bisect_right(self.positions, position)
        return self.records[first : first + limit]

    def is_over(self, times: int) -> bool:
        """Whether it is longer than that many times what is kept of it."""
        return len(self.records) > times * MOST_RECORDS or self.size > times * MOST_BYTES

    def cut(self) -> None:
        """Keep the newer part."""
        keep, size = 0, 0
        for record in reversed(self.records):
            size += len(record.frame)
            if keep >= MOST_RECORDS or size > MOST_BYTES:
                break
            keep += 1
        cut = len(self.records) - max(1, keep)
        if cut > 0:
            self.after = self.positions[cut - 1]
            del self.positions[:cut], self.records[:cut]
            self.size = sum(len(record.frame) for record in self.records)
