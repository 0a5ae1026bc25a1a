"""The tables of a SQLite log, under a prefix, and how an older file becomes one of today.

Several applications may keep their logs in one file: each has tables of its own,
whose names begin with its prefix.

Positions have gaps of random length.  So a position proves its record: had the
file been restored to an older state and gone on from there, the new records
would be at other positions.
"""

from __future__ import annotations

import secrets
import sqlite3

from sse_broker.errors import InvalidMessage, LogUnavailable
from sse_broker.logs.cipher import new_key
from sse_broker.wire.envelope import unpack
from sse_broker.wire.message import Message
from sse_broker.wire.scope import scope_of

__all__ = ["GAP_BITS", "Names", "begin_epoch", "prepare"]

APPLICATION_ID = 0x53534542  # "SSEB"; says whose file it is
VERSION = 2
GAP_BITS = 22  # two million between neighbours: 2**41 messages, 60 years of 2,000 a second

SCHEMA = """
CREATE TABLE {state} (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,      -- names this life of the log
    inode INTEGER NOT NULL,   -- another one: the file was copied or restored
    gone INTEGER NOT NULL,    -- the newest position that was trimmed
    total INTEGER NOT NULL,   -- the running total at that position
    limits TEXT NOT NULL,     -- what the brokers that serve say is kept, as JSON
    key BLOB NOT NULL DEFAULT x'',       -- seals the positions, see sse_broker.logs.cipher
    gone_at REAL NOT NULL DEFAULT 0,     -- when the newest trimmed message was created
    heard REAL NOT NULL DEFAULT 0,       -- when any process last reported who is online
    start INTEGER NOT NULL DEFAULT 0     -- the newest position when the epoch began
);
CREATE TABLE {message} (
    position INTEGER PRIMARY KEY,
    created REAL NOT NULL,    -- seconds since the Unix epoch
    size INTEGER NOT NULL,    -- of the entry, in bytes
    total INTEGER NOT NULL,   -- of all entries up to this one
    own_id TEXT,
    entry BLOB NOT NULL,      -- JSON, see sse_broker.wire.envelope
    number INTEGER NOT NULL DEFAULT 0,   -- running, to be counted by
    scope TEXT                -- to whom the own id belongs, see sse_broker.wire.scope
);
CREATE UNIQUE INDEX {message_own} ON {message} (own_id, scope) WHERE own_id IS NOT NULL;
CREATE TABLE {process} (
    name TEXT PRIMARY KEY,
    until REAL NOT NULL,
    clients INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE {presence} (
    user_id TEXT NOT NULL,
    process TEXT NOT NULL,
    online INTEGER NOT NULL,
    PRIMARY KEY (user_id, process)
) WITHOUT ROWID;
CREATE INDEX {presence_process} ON {presence} (process);
CREATE TABLE {revoked} (
    token_id TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID
"""

FROM_1 = """
ALTER TABLE {state} ADD COLUMN key BLOB NOT NULL DEFAULT x'';
ALTER TABLE {state} ADD COLUMN gone_at REAL NOT NULL DEFAULT 0;
ALTER TABLE {state} ADD COLUMN heard REAL NOT NULL DEFAULT 0;
ALTER TABLE {state} ADD COLUMN start INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {message} ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {message} ADD COLUMN scope TEXT;
UPDATE {message} SET number = position;
DROP INDEX message_own_id
"""


class Names:
    """SQL with the names of one prefix: ``names("SELECT * FROM {message}")``."""

    def __init__(self, prefix: str = "") -> None:
        # SQLite folds the case of names, and a prefix is compared as it is written.
        self._prefix = "".join(f"^{char.lower()}" if char.isupper() else char for char in prefix)
        self._filled: dict[str, str] = {}

    def __call__(self, sql: str) -> str:
        """Return *sql* with each name in braces as the table or index of this prefix."""
        filled = self._filled.get(sql)
        if filled is None:
            filled = self._filled[sql] = sql.format_map(self)
        return filled

    def __getitem__(self, name: str) -> str:
        return f'"{self.table(name)}"'

    def table(self, name: str) -> str:
        """Return a table's name as ``sqlite_master`` has it."""
        return f"{self._prefix}:{name}" if self._prefix else name


def prepare(db: sqlite3.Connection, path: str, names: Names, inode: int) -> tuple[str, bytes]:
    """Have the tables there, of today's version; return the epoch and its key.

    Called in a transaction that is alone with the file.

    :raises LogUnavailable: the file is not ours, or of a later release.
    """
    version = check(db, path)
    if version == 1:
        _from_1(db)
    found = db.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (names.table("state"),)
    )
    if found.fetchone() is None:
        _run(db, SCHEMA, names)
        db.execute(
            names("INSERT INTO {state} VALUES (1, ?, ?, 0, 0, '', ?, 0, 0, 0)"),
            (_new_epoch(), inode, new_key()),
        )
    if version != VERSION:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    return _epoch(db, names, inode)


def check(db: sqlite3.Connection, path: str) -> int:
    """Return the version of the schema; 0 is a new file.

    :raises LogUnavailable: the file is not ours, or of a later release.
    """
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    # Last: a process that makes the file in between has set it if it has made a table.
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID and (version or tables):
        raise LogUnavailable(f"{path} is another application's database")
    if version > VERSION:
        raise LogUnavailable(
            f"{path} has schema version {version}; this release knows up to {VERSION}:"
            " update sse-broker"
        )
    return version


def begin_epoch(db: sqlite3.Connection, names: Names) -> str:
    """Begin another life of the log; return its name."""
    epoch = _new_epoch()
    newest = "coalesce((SELECT max(position) FROM {message}), gone)"
    db.execute(names(f"UPDATE {{state}} SET epoch = ?, start = {newest}"), (epoch,))  # noqa: S608
    return epoch


def _epoch(db: sqlite3.Connection, names: Names, inode: int) -> tuple[str, bytes]:
    row = db.execute(names("SELECT epoch, inode, key FROM {state}")).fetchone()
    if row is None or tuple(map(type, row)) != (str, int, bytes):
        raise sqlite3.DatabaseError("the log's state is missing or damaged")
    epoch, written, key = row
    if written != inode:  # a copy: what was recorded after it was made is not here
        epoch = begin_epoch(db, names)
        db.execute(names("UPDATE {state} SET inode = ?"), (inode,))
    return epoch, key


def _from_1(db: sqlite3.Connection) -> None:
    """Make a file of the first release one of today; its messages and places stay."""
    names = Names()  # the first release knew no prefix
    _run(db, FROM_1, names)
    rows = db.execute("SELECT position, entry FROM message WHERE own_id IS NOT NULL").fetchall()
    for position, entry in rows:
        try:
            message = unpack(entry)
        except InvalidMessage:
            message = None
        if isinstance(message, Message):
            scope = scope_of(message)
            db.execute("UPDATE message SET scope = ? WHERE position = ?", (scope, position))
        else:
            db.execute("UPDATE message SET own_id = NULL WHERE position = ?", (position,))
    db.execute(
        names(
            "CREATE UNIQUE INDEX {message_own} ON {message} (own_id, scope)"
            " WHERE own_id IS NOT NULL"
        )
    )
    db.execute("UPDATE state SET key = ?", (new_key(),))


def _run(db: sqlite3.Connection, script: str, names: Names) -> None:
    for statement in script.split(";"):
        db.execute(names(statement))


def _new_epoch() -> str:
    return secrets.token_hex(6)
