"""The newest records of a shared log, as this process's feed has read them.

A thousand clients that come back at one moment ask for the same few records;
each record is then read and parsed once per process and not once per client.

Lock map
    _lock     guards the records; native; O(1) work, or O(n) for the n records of a read
"""

from __future__ import annotations

import bisect

from sse_broker.core.ports import Record
from sse_broker.core.sync import native_lock

__all__ = ["Recent"]

MOST_RECORDS = 4096
MOST_BYTES = 8 * 1024 * 1024


class Recent:
    """An unbroken run of records that ends where the feed is."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._after = -1  # the run begins after this position
        self._positions: list[int] = []
        self._records: list[Record] = []
        self._bytes = 0

    def begin(self, after: int) -> None:
        """Forget everything; the next record follows *after*."""
        with self._lock:
            self._after, self._bytes = after, 0
            self._positions, self._records = [], []

    def add(self, record: Record) -> None:
        """Take the record that follows the last one."""
        with self._lock:
            self._positions.append(record.position)
            self._records.append(record)
            self._bytes += len(record.frame)
            if len(self._records) > 2 * MOST_RECORDS or self._bytes > 2 * MOST_BYTES:
                self._trim_locked()

    def read(self, after: int, limit: int) -> list[Record]:
        """Return records after a position if the run has them; none says ask the log."""
        with self._lock:
            if after < self._after or not self._positions or after >= self._positions[-1]:
                return []
            first = bisect.bisect_right(self._positions, after)
            return self._records[first : first + limit]

    def _trim_locked(self) -> None:
        """Keep the newer half; cutting now and then and not each time is what makes it cheap."""
        keep, size = 0, 0
        for record in reversed(self._records):
            size += len(record.frame)
            if keep >= MOST_RECORDS or size > MOST_BYTES:
                break
            keep += 1
        cut = len(self._records) - max(1, keep)
        self._after = self._positions[cut - 1]
        del self._positions[:cut], self._records[:cut]
        self._bytes = sum(len(record.frame) for record in self._records)
