"""Retained messages in the file of a SQLite log, written in the transaction of their message."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence

from sse_broker.core.ports import Interest, LogLimits, Record
from sse_broker.logs.retained import Decoded, Key, keys_of, tenants_of, wanted
from sse_broker.wire.message import Message

__all__ = ["SCHEMA", "SqliteRetained", "Wanted"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS {retained} (
    tenant TEXT NOT NULL,     -- see sse_broker.logs.retained.tenant_key
    target TEXT NOT NULL,     -- user or topic
    addressee TEXT NOT NULL,
    event TEXT NOT NULL,
    position INTEGER NOT NULL,
    until REAL NOT NULL,      -- seconds since the Unix epoch, or 0 for ever
    size INTEGER NOT NULL,    -- of the entry, in bytes
    entry BLOB NOT NULL,      -- JSON, see sse_broker.wire.envelope
    PRIMARY KEY (tenant, target, addressee, event)
);
CREATE INDEX IF NOT EXISTS {retained_position} ON {retained} (position);
CREATE TABLE IF NOT EXISTS {retained_sum} (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO {retained_sum} VALUES (1, 0, 0)
"""

_KEY = "tenant = ? AND target = ? AND addressee = ? AND event = ?"
_OF = "tenant = ? AND target = ? AND addressee = ?"
# What somebody else has put there, of another type, is passed over.
_FIND = (
    "SELECT position, addressee FROM {retained} WHERE typeof(position) = 'integer'"
    " AND typeof(addressee) = 'text' AND (until <= 0 OR until > ?) AND "
)
_IN_ONE = 500  # values in one statement; SQLite takes 999 in its oldest builds

Wanted = tuple[int, bytes | None]
"""A position, and the entry there if it is not known in this process already."""


class SqliteRetained:
    """The tables.  *names* fills the names in braces in.  Every method is part of a transaction."""

    def __init__(self, names: Callable[[str], str]) -> None:
        self._names = names
        self.decoded = Decoded()

    def prepare(self, db: sqlite3.Connection) -> None:
        """Have the tables there.  Called when the file is opened: it may be another one."""
        self.decoded = Decoded()
        for statement in self._names(SCHEMA).split(";"):
            db.execute(statement)

    def put(
        self,
        db: sqlite3.Connection,
        message: Message,
        position: int,
        entry: bytes,
        now: float,
        limits: LogLimits,
    ) -> int:
        """Keep an entry in place of what was under its keys; return how many others had to go."""
        until = 0.0 if message.retain_for is None else now + message.retain_for
        for key in keys_of(message):
            self._drop(db, _KEY, key)
            db.execute(
                self._names("INSERT INTO {retained} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"),
                (*key, position, until, len(entry), entry),
            )
            self._count(db, 1, len(entry))
        if self._is_over(db, limits):
            self._drop(db, "until > 0 AND until <= ?", (now,))
        evicted = 0
        while self._is_over(db, limits):
            oldest = db.execute(self._names("SELECT min(position) FROM {retained}")).fetchone()[0]
            if oldest == position:
                break
            evicted += self._drop(db, "position = ?", (oldest,))
        return evicted

    def clear(
        self, db: sqlite3.Connection, tenant: str, target: str, addressee: str, event: str | None
    ) -> int:
        """Drop what is kept for an addressee, of one event or of all; return how many."""
        if event is None:
            return self._drop(db, _OF, (tenant, target, addressee))
        return self._drop(db, _KEY, Key(tenant, target, addressee, event))

    def find(self, db: sqlite3.Connection, interest: Interest, now: float) -> list[Wanted]:
        """Return what a client may be for, each position once, oldest first."""
        positions = sorted(set(self._positions(db, interest, now)))
        entry_at = self._names("SELECT entry FROM {retained} WHERE position = ? LIMIT 1")
        found: list[Wanted] = []
        for position in positions:
            if self.decoded.get(position) is not None:
                found.append((position, None))
                continue
            row = db.execute(entry_at, (position,)).fetchone()
            if row is not None:  # else it was replaced a moment ago
                found.append((position, row[0]))
        return found

    def records(
        self, found: Sequence[Wanted], read: Callable[[int, bytes], Record]
    ) -> list[Record]:
        """Return the records of what was found; *read* decodes one."""
        records = []
        for position, entry in found:
            record = self.decoded.get(position)
            if record is None and entry is not None:
                record = read(position, entry)
                self.decoded.put(position, record)
            if record is not None and type(record.message) is Message:
                records.append(record)
        return records

    def _positions(self, db: sqlite3.Connection, interest: Interest, now: float) -> Iterator[int]:
        yield from self._of(db, tenants_of(interest, "user"), "user", [interest.user_id], now)
        tenants = tenants_of(interest, "topic")
        if not interest.patterns:
            yield from self._of(db, tenants, "topic", list(interest.names), now)
            return
        query = self._names(_FIND + "target = 'topic' AND tenant IN (?, ?)")
        for position, topic in db.execute(query, (now, tenants[0], tenants[-1])):
            if wanted(interest, topic):
                yield position

    def _of(
        self,
        db: sqlite3.Connection,
        tenants: Sequence[str],
        target: str,
        addressees: list[str],
        now: float,
    ) -> Iterator[int]:
        for start in range(0, len(addressees), _IN_ONE):
            some = addressees[start : start + _IN_ONE]
            marks, where = ",".join("?" * len(tenants)), ",".join("?" * len(some))
            query = self._names(
                _FIND + "target = ? AND tenant IN (@tenants) AND addressee IN (@some)"
            )
            query = query.replace("@tenants", marks).replace("@some", where)
            for position, _ in db.execute(query, (now, target, *tenants, *some)):
                yield position

    def _drop(self, db: sqlite3.Connection, where: str, values: Sequence[object]) -> int:
        sums = self._names("SELECT count(*), coalesce(sum(size), 0) FROM {retained} WHERE ")
        count, size = db.execute(sums + where, values).fetchone()
        if count:
            db.execute(self._names("DELETE FROM {retained} WHERE ") + where, values)
            self._count(db, -count, -size)
        return int(count)

    def _count(self, db: sqlite3.Connection, count: int, size: int) -> None:
        query = "UPDATE {retained_sum} SET count = count + ?, bytes = bytes + ?"
        db.execute(self._names(query), (count, size))

    def _is_over(self, db: sqlite3.Connection, limits: LogLimits) -> bool:
        count, size = db.execute(self._names("SELECT count, bytes FROM {retained_sum}")).fetchone()
        return bool(count > limits.retained_size or size > limits.retained_bytes)
