"""The file behind a SQLite log: its connections, its schema, and what its errors mean.

Opened at first use, and again whenever the file was replaced or an error left a
connection in doubt; so a log whose file is broken works again once it is mended.

SQLite keeps in memory what a process has locked, and a fork copies that: a child
would wait for ever for a lock that it believes to hold, or not take one that it
needs.  So a fork waits until nobody here reads or writes, and the file is closed
over it; the parent opens it again at the next use.

Lock map
    turn      held while this process writes, over file I/O; native
    order     turn before those of the two readers (:mod:`.reading`); a fork takes all
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from sse_broker.core.sync import native_lock
from sse_broker.errors import LogUnavailable
from sse_broker.logs.epochs import Epochs
from sse_broker.logs.sqlite.reading import Reading
from sse_broker.logs.sqlite.retained import SqliteRetained

__all__ = ["BITS", "Database", "State"]

T = TypeVar("T")

BITS = 63  # of a row id
APPLICATION_ID = 0x53534542  # "SSEB"; says whose file it is
SCHEMA_VERSION = 1
JOURNAL_LIMIT = 16 * 1024 * 1024  # bytes; a longer write-ahead log is cut at the next checkpoint

SCHEMA = """
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,      -- names this life of the log
    inode INTEGER NOT NULL,   -- another one: the file was copied or restored
    gone INTEGER NOT NULL,    -- the newest position that was trimmed
    total INTEGER NOT NULL,   -- the running total at that position
    limits TEXT NOT NULL      -- what the brokers that serve say is kept, as JSON
);
CREATE TABLE message (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    created REAL NOT NULL,    -- seconds since the Unix epoch
    size INTEGER NOT NULL,    -- of the frame, in bytes
    total INTEGER NOT NULL,   -- of all frames up to this one
    own_id TEXT,
    entry BLOB NOT NULL       -- JSON, see sse_broker.wire.envelope
);
CREATE UNIQUE INDEX message_own_id ON message (own_id) WHERE own_id IS NOT NULL;
CREATE TABLE process (
    name TEXT PRIMARY KEY,
    until REAL NOT NULL,
    clients INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE presence (
    user_id TEXT NOT NULL,
    process TEXT NOT NULL,
    online INTEGER NOT NULL,
    PRIMARY KEY (user_id, process)
) WITHOUT ROWID;
CREATE INDEX presence_process ON presence (process);
CREATE TABLE revoked (
    token_id TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID;
"""


_log = logging.getLogger("sse_broker.logs")


class State(NamedTuple):
    """The one row of the table ``state``."""

    epoch: str
    gone: int
    total: int
    limits: str


class Database:
    """One process's connections to the file at *path*.

    *synchronous* is SQLite's word, ``NORMAL`` or ``FULL``; *timeout* bounds the
    wait for other writers, in seconds.
    """

    def __init__(self, path: str, synchronous: str, timeout: float) -> None:
        self.path = path
        self.epochs = Epochs(BITS)
        self.retained = SqliteRetained(lambda sql: sql.replace("{", "").replace("}", ""))
        self.turn = native_lock()
        self._synchronous = synchronous
        self._timeout = timeout
        self._writer: sqlite3.Connection | None = None
        # The feed has its own: all streams of the process wait for what it reads.
        self._reader, self._feed = Reading(self._connect), Reading(self._connect)
        self._file: tuple[int, int] | None = None  # device and inode of what is open
        _databases.add(self)

    def write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *act* does in one transaction, alone among all processes.

        The caller holds ``turn``.

        :raises LogUnavailable: nothing was written, or, with ``maybe_recorded``,
            nobody knows.
        """
        self._reopen_if_replaced()
        db = self._writer
        step = "open"
        try:
            if db is None:
                db = self._writer = self._open()
            step = "write"
            db.execute("BEGIN IMMEDIATE")
            result = act(db)
            step = "commit"
            db.execute("COMMIT")
            return result
        except sqlite3.Error as err:
            raise self._unavailable(err, step) from err
        finally:
            self._roll_back(db)

    def read(self, act: Callable[[sqlite3.Connection], T], *, feed: bool = False) -> T:
        """Return what *act* reads.  Any thread; leaves no transaction open.

        *feed* is said by the one thread that follows the file: it waits for no
        other that reads.

        :raises LogUnavailable: it cannot be read now.
        """
        if self._file is None:
            with self.turn:
                self.write(_open_only)
        try:
            return (self._feed if feed else self._reader).read(act)
        except sqlite3.Error as err:
            raise LogUnavailable(f"{self.path}: {err}", retry_after=1.0) from err

    def look(self) -> None:
        """Open the file anew if it was replaced or taken away.  Any thread."""
        if self._is_replaced():
            with self.turn:
                self.write(_open_only)

    def close(self) -> None:
        """Close every connection.  Idempotent; the next use opens them again."""
        with self.turn:
            self._drop()

    def state(self, db: sqlite3.Connection) -> State:
        """Return the row of ``state``; notes the epoch."""
        row = db.execute("SELECT epoch, gone, total, limits FROM state").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("the log's state is missing")
        return State(*row)

    def _reopen_if_replaced(self) -> None:
        if self._is_replaced():
            self._drop()

    def _is_replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._file

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _open(self) -> sqlite3.Connection:
        """Open the file for writing; make it if it is not there."""
        db = self._connect()
        try:
            self._check_owner(db)
            self._set_journal(db)
            db.execute("BEGIN IMMEDIATE")
            found = os.stat(self.path)
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                self._create(db, found.st_ino)
            self._note_epoch(db, found.st_ino)
            self.retained.prepare(db)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        self._file = (found.st_dev, found.st_ino)
        return db

    def _check_owner(self, db: sqlite3.Connection) -> None:
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        # Last: a process that makes the file in between has set it if it has made a table.
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        if owner != APPLICATION_ID and (version or tables):
            raise LogUnavailable(f"{self.path} is another application's database")
        if version > SCHEMA_VERSION:
            raise LogUnavailable(
                f"{self.path} has schema version {version}; this release knows up to"
                f" {SCHEMA_VERSION}: update sse-broker"
            )

    def _set_journal(self, db: sqlite3.Connection) -> None:
        """Switch to a write-ahead log; SQLite does not wait for others here, so this does."""
        end = time.monotonic() + self._timeout
        while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded while the file is empty
                db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                threading.Event().wait(0.01)

    def _create(self, db: sqlite3.Connection, inode: int) -> None:
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        db.execute("INSERT INTO state VALUES (1, ?, ?, 0, 0, '')", (_new_epoch(), inode))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _note_epoch(self, db: sqlite3.Connection, inode: int) -> None:
        row = db.execute("SELECT epoch, inode FROM state").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("the log's state is missing")
        epoch, written = row
        if written != inode:  # a copy: what was recorded after it was made is not here
            epoch = _new_epoch()
            db.execute("UPDATE state SET epoch = ?, inode = ?", (epoch, inode))
        self.epochs.enter(epoch)

    def _unavailable(self, err: sqlite3.Error, step: str) -> LogUnavailable:
        text = str(err)
        if "locked" not in text and "full" not in text:
            self._drop()
        unknown = step == "commit" and "locked" not in text and "full" not in text
        return LogUnavailable(f"{self.path}: {text}", retry_after=1.0, maybe_recorded=unknown)

    def _roll_back(self, db: sqlite3.Connection | None) -> None:
        if db is None or db is not self._writer:
            return
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()

    def _drop(self) -> None:
        """Close everything; the caller holds ``turn``."""
        with self._reader.lock, self._feed.lock:
            self._close_all()

    def _close_all(self) -> None:
        writer, self._writer = self._writer, None
        self._file = None
        self._reader.close_locked()
        self._feed.close_locked()
        _close(writer)

    def before_fork(self) -> bool:
        """Close the file once nobody uses it; say whether the locks were to be had."""
        if not self.turn.acquire(timeout=self._timeout + 1):
            return False
        for index, reading in enumerate((self._reader, self._feed)):
            if not reading.lock.acquire(timeout=1):
                if index:
                    self._reader.lock.release()
                self.turn.release()
                return False
        self._close_all()
        return True

    def after_fork(self) -> None:
        """Let go of the locks, in the parent and in the child."""
        self._feed.lock.release()
        self._reader.lock.release()
        self.turn.release()


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


def _close(db: sqlite3.Connection | None) -> None:
    if db is not None:
        try:
            db.close()
        except sqlite3.Error:
            pass


def _new_epoch() -> str:
    return secrets.token_hex(6)


def _open_only(db: sqlite3.Connection) -> None:
    """Write nothing: opening the file was the point."""
