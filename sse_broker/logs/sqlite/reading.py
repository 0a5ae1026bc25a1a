"""A connection that only reads, with the lock that lets one thread at a time use it.

Lock map
    lock      held while it reads, over file I/O, and never behind a writer; native
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from sse_broker.core.sync import native_lock

__all__ = ["Reading"]

T = TypeVar("T")


class Reading:
    """One connection for reading; opened by *connect* at first use, and again after an error."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self.lock = native_lock()
        self._connect = connect
        self._db: sqlite3.Connection | None = None

    def read_locked(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *act* reads; the caller holds the lock.

        :raises sqlite3.Error: it cannot be read; the next read opens the file again.
        """
        try:
            if self._db is None:
                self._db = self._connect()
            return act(self._db)
        except sqlite3.Error:
            self.close_locked()
            raise

    def close_locked(self) -> None:
        """Close the connection; the caller holds the lock.  Idempotent."""
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass
