"""The file behind a SQLite log: its connections, and what its errors mean.

Opened at first use, and again whenever the file was replaced or an error left a
connection in doubt; so a log whose file is broken works again once it is mended.

Who finds the file locked by another process lets go of everything, waits a
moment and tries again, until the deadline of its call: so one deadline covers
the queue of this process and the lock of the file, and nothing is held meanwhile.

SQLite keeps in memory what a process has locked, and a fork copies that: a child
would wait for ever for a lock that it believes to hold, or not take one that it
needs.  So a fork waits until nobody here reads or writes, and the file is closed
over it; the parent opens it again at the next use.

Lock map
    _turn     held while this process writes, over file I/O; native; nothing
              waits for another process while it is held
    order     _turn before those of the two readers (:mod:`.reading`); a fork takes all
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from sse_broker.core.sync import NativeLock, native_lock
from sse_broker.errors import LogUnavailable
from sse_broker.logs.epochs import Epochs
from sse_broker.logs.sqlite.files import File
from sse_broker.logs.sqlite.kept import SqliteKept
from sse_broker.logs.sqlite.reading import Reading
from sse_broker.logs.sqlite.retained import SqliteRetained
from sse_broker.logs.sqlite.schema import Names, check, prepare
from sse_broker.logs.waits import Deadline, take

__all__ = ["BITS", "COLUMNS", "Database", "Row", "State"]

T = TypeVar("T")

BITS = 63  # of a row id
JOURNAL_LIMIT = 16 * 1024 * 1024  # bytes; a longer write-ahead log is cut at the next checkpoint

_log = logging.getLogger("sse_broker.logs")


class State(NamedTuple):
    """The one row of the table ``state``."""

    epoch: str
    gone: int
    total: int
    limits: str
    key: bytes
    start: int
    gone_at: float


Row = tuple[int, float, int, int, int]
"""Of a message: position, when it was created, size, running total of sizes, running number."""

COLUMNS = (
    "position, CAST(created AS REAL), CAST(size AS INTEGER), CAST(m.total AS INTEGER),"
    " CAST(number AS INTEGER)"
)
_TYPES = (str, int, int, str, bytes, int, float)
_STATE = "SELECT epoch, gone, total, limits, key, start, gone_at FROM {state}"
_STATE_AND_LAST = (
    f"SELECT epoch, gone, s.total, limits, key, start, gone_at, {COLUMNS}"  # noqa: S608 (constants)
    " FROM {state} s LEFT JOIN {message} m ON position = (SELECT max(position) FROM {message})"
)


class Database:
    """One process's connections to a file, for the tables of one prefix.

    *synchronous* is SQLite's word, ``NORMAL`` or ``FULL``; *timeout* bounds
    each call, in seconds.
    """

    def __init__(self, file: File, names: Names, synchronous: str, timeout: float) -> None:
        self.file, self.path = file, file.path
        self.names = names
        self.timeout = timeout
        self.epochs = Epochs(BITS)
        self.retained = SqliteRetained(names)
        self.kept = SqliteKept(names)
        self._turn = native_lock()
        self._synchronous = synchronous
        self._writer: sqlite3.Connection | None = None
        # The feed has its own: all streams of the process wait for what it reads.
        self._reader, self._feed = Reading(self._connect), Reading(self._connect)
        self._row: Sequence[object] = ()  # of the state, as it was last checked
        self._file: tuple[int, int] | None = None  # device and inode of what is open
        _databases.add(self)

    def write(
        self,
        act: Callable[[sqlite3.Connection], T],
        deadline: Deadline | None = None,
        needed: Callable[[], bool] = lambda: True,
        settle: Callable[[T | None, LogUnavailable | None], None] = lambda _, __: None,
    ) -> T | None:
        """Return what *act* does in one transaction, alone among all processes.

        *act* is called once at most.  Before it would have to wait it is asked
        whether it is still *needed*; ``None`` says that it was not.  *settle* is
        told what came of it before anybody else may write.

        :raises LogUnavailable: nothing was written, or, with ``maybe_recorded``,
            nobody knows.
        """
        deadline = deadline or Deadline(self.timeout)
        while needed():
            self._take(self._turn, deadline)
            try:
                if not needed():
                    break
                if self._begin():
                    return self._finish(act, settle)
            finally:
                self._turn.release()
            if not deadline.pause():
                raise self._busy()
        return None

    def read(
        self,
        act: Callable[[sqlite3.Connection], T],
        deadline: Deadline | None = None,
        *,
        feed: bool = False,
    ) -> T:
        """Return what *act* reads.  Any thread; leaves no transaction open.

        *act* may be called again where the file was locked.  *feed* is said by
        the one thread that follows the file: it waits for no other that reads.

        :raises LogUnavailable: it cannot be read now.
        """
        deadline = deadline or Deadline(self.timeout)
        if self._file is None:
            self.write(_open_only, deadline)
        reading = self._feed if feed else self._reader
        while True:
            try:
                self._take(reading.lock, deadline)
                try:
                    return reading.read_locked(act)
                finally:
                    reading.lock.release()
            except sqlite3.Error as err:
                if not _is_busy(err):
                    raise self._unavailable(err) from err
            if not deadline.pause():
                raise self._busy()

    def look(self) -> None:
        """Open the file anew if it was replaced or taken away.  Any thread."""
        if self._is_replaced():
            self.write(_open_only)

    def close(self) -> None:
        """Close every connection.  Idempotent; the next use opens them again."""
        self._take(self._turn, Deadline(self.timeout))
        try:
            self._drop()
        finally:
            self._turn.release()

    def state(self, db: sqlite3.Connection) -> State:
        """Return the row of ``state``; notes the epoch."""
        return self._state_of(db.execute(self.names(_STATE)).fetchone())

    def state_and_last(self, db: sqlite3.Connection) -> tuple[State, Row]:
        """Return the row of ``state``, and the newest row or where the log stands without one."""
        found = db.execute(self.names(_STATE_AND_LAST)).fetchone()
        state = self._state_of(found and found[: len(_TYPES)])
        last: Row = found[len(_TYPES) :]
        return state, last if last[0] is not None else (state.gone, 0.0, 0, state.total, 0)

    def _state_of(self, row: Sequence[object] | None) -> State:
        if row is None or (row != self._row and tuple(map(type, row)) != _TYPES):
            raise sqlite3.DatabaseError("the log's state is missing or damaged")
        self._row = row
        state = State._make(row)
        if state.epoch != self.epochs.current:
            self.epochs.enter(state.epoch, state.key)
        return state

    def _take(self, lock: NativeLock, deadline: Deadline) -> None:
        if not lock.acquire(False) and not take(lock, deadline):
            raise self._busy()

    def _busy(self) -> LogUnavailable:
        return LogUnavailable(f"{self.path}: database is locked", retry_after=1.0)

    def _begin(self) -> bool:
        """Begin to write; say whether no other process is at it.  The caller holds the turn."""
        if self._is_replaced():
            self._drop()
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as err:
            if _is_busy(err):
                return False
            raise self._failed(err, "begin") from err
        return True

    def _finish(
        self,
        act: Callable[[sqlite3.Connection], T],
        settle: Callable[[T | None, LogUnavailable | None], None],
    ) -> T:
        """Do the rest of a transaction that has begun."""
        db, step, result = self._writer, "write", None
        assert db is not None
        error: LogUnavailable | None = None
        try:
            result = act(db)
            step = "commit"
            db.execute("COMMIT")
            step = "done"
            return result
        except sqlite3.Error as err:
            error = self._failed(err, step)
            raise error from err
        finally:
            if step != "done":
                self._roll_back(db)
                error = error or LogUnavailable(
                    "the writing thread was interrupted", maybe_recorded=True
                )
            settle(result, error)

    def _is_replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._file

    def _connect(self) -> sqlite3.Connection:
        """Return a connection that never waits for a lock; waiting is our own affair."""
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _open(self) -> sqlite3.Connection:
        """Open the file for writing; make it if it is not there."""
        self.file.make()
        db = self._connect()
        try:
            check(db, self.path)
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded while the file is empty
                db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            found = os.stat(self.path)
            self.epochs.enter(*prepare(db, self.path, self.names, found.st_ino))
            self.retained.prepare(db)
            self.kept.prepare(db)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        self._file = (found.st_dev, found.st_ino)
        return db

    def _failed(self, err: sqlite3.Error, step: str) -> LogUnavailable:
        """Return what an error while writing means; a connection in doubt is closed."""
        certain = _is_busy(err) or "full" in str(err)
        if not certain:
            self._drop()
        return self._unavailable(err, maybe_recorded=step == "commit" and not certain)

    def _unavailable(self, err: sqlite3.Error, maybe_recorded: bool = False) -> LogUnavailable:
        return LogUnavailable(f"{self.path}: {err}", retry_after=1.0, maybe_recorded=maybe_recorded)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        if db is not self._writer:
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()

    def _drop(self) -> None:
        """Close everything; the caller holds the turn."""
        with self._reader.lock, self._feed.lock:
            self._close_all()

    def _close_all(self) -> None:
        writer, self._writer = self._writer, None
        self._file = None
        self._reader.close_locked()
        self._feed.close_locked()
        if writer is not None:
            try:
                writer.close()
            except sqlite3.Error:
                pass

    def before_fork(self) -> bool:
        """Close the file once nobody uses it; say whether the locks were to be had."""
        deadline = Deadline(self.timeout + 1)
        taken: list[NativeLock] = []
        for lock in self._locks():
            if not take(lock, deadline):
                for one in reversed(taken):
                    one.release()
                return False
            taken.append(lock)
        self._close_all()
        return True

    def after_fork(self) -> None:
        """Let go of the locks, in the parent and in the child."""
        for lock in reversed(self._locks()):
            lock.release()

    def _locks(self) -> tuple[NativeLock, ...]:
        return self._turn, self._reader.lock, self._feed.lock


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_held: dict[int, list[Database]] = {}  # by the thread that forks


def _before_fork() -> None:
    held = _held[threading.get_ident()] = []
    for database in list(_databases):
        if database.before_fork():
            held.append(database)
        else:
            _log.error("forked while %s was in use: the child may not use it", database.path)


def _after_fork() -> None:
    for database in _held.pop(threading.get_ident(), ()):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def _is_busy(err: sqlite3.Error) -> bool:
    """Whether somebody else has what was needed, and may let go of it."""
    return "locked" in str(err)


def _open_only(db: sqlite3.Connection) -> None:
    """Write nothing: opening the file was the point."""
