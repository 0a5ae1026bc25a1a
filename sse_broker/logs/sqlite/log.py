"""The log of all processes of one machine.

A message is recorded when ``append`` returns, in the one order that all
processes read.  Threads that publish at one moment share a commit.  Other
processes are woken by a datagram (:mod:`.wake`).

Positions are AUTOINCREMENT row ids, given inside ``BEGIN IMMEDIATE``: no other
process can be between "has its position" and "visible", so who has read up to a
position has missed nothing before it.  No read transaction is left open while
anything is sent, so the write-ahead log stays short.

Lock map
    turn      (the database's) held while a batch is written, over file I/O: it
              is what makes threads share a commit
    _lock     guards the writes that wait; native; O(1) work
    order     turn before _lock
"""

from __future__ import annotations

import collections
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from urllib.parse import parse_qsl, unquote, urlsplit

from sse_broker.core.ports import (
    Clock,
    Interest,
    Listener,
    LogLimits,
    Lost,
    PositionLost,
    Record,
)
from sse_broker.core.sync import native_lock
from sse_broker.errors import InvalidConfig, LogUnavailable
from sse_broker.logs.entries import read_entry
from sse_broker.logs.feed import Feed
from sse_broker.logs.pages import Pages
from sse_broker.logs.recent import Recent
from sse_broker.logs.retained import Evictions
from sse_broker.logs.shared import SharedLog
from sse_broker.logs.sqlite.database import Database, State
from sse_broker.logs.sqlite.roster import SqliteRoster
from sse_broker.logs.sqlite.since import READ_BACK, Row, boundary
from sse_broker.logs.sqlite.wake import POLL, Bell, Ringer
from sse_broker.wire.command import Command
from sse_broker.wire.envelope import pack
from sse_broker.wire.message import Message

__all__ = ["SqliteLog"]

BATCH = 512  # messages in one commit, at most
READ_RECORDS = 256  # records that the feed reads at once
READ_BYTES = 1024 * 1024  # of entries in one read, give or take one
TRIM_EVERY = 64  # positions
SYNCHRONOUS = ("normal", "full")

_TAIL = "SELECT position, total FROM message ORDER BY position DESC LIMIT 1"
_OLDEST = "SELECT position, created, size, total FROM message ORDER BY position LIMIT ?"
_NEXT = "SELECT position, created, size, total FROM message WHERE position > ? ORDER BY position"
_READ = "SELECT position, own_id, entry FROM message WHERE position > ? ORDER BY position LIMIT ?"
_INSERT = "INSERT INTO message (created, size, total, own_id, entry) VALUES (?, ?, ?, ?, ?)"
_OWN = "SELECT position, created, size, total, entry FROM message WHERE own_id = ?"


class SqliteLog(SharedLog):
    """A log in a file, for any number of processes of one machine.

    ``sqlite:///app.db`` is relative to the working directory at this moment,
    ``sqlite:////var/lib/app/sse.db`` absolute.  Options, as a query:
    ``synchronous`` (``normal`` or ``full``) and ``timeout`` (seconds that a
    publish waits for other writers, 5).

    :raises InvalidConfig: the URL names no file, or an option is wrong.
    """

    def __init__(self, url: str) -> None:
        path, synchronous, timeout = _parse(url)
        super().__init__(
            url, lambda limits, clock: _Life(path, synchronous, timeout, limits, clock)
        )


class _Ticket:
    """A write that waits for its turn, and then its outcome."""

    __slots__ = ("entry", "error", "message", "record")

    def __init__(self, message: Message | Command) -> None:
        self.message = message
        self.entry = pack(message)
        self.record: Record | None = None
        self.error: LogUnavailable | None = None


class _Life:
    """The log of one process id."""

    def __init__(
        self, path: str, synchronous: str, timeout: float, limits: LogLimits, clock: Clock
    ) -> None:
        self.database = Database(path, synchronous, timeout)
        self.epochs = self.database.epochs
        self.roster = SqliteRoster(self.database, lambda: self._clock.time())
        self.recent = Recent()
        self.pages = Pages(self.recent, self.read)
        self._ringer = Ringer(path)
        self._limits, self._clock = limits, clock
        self._stored = ""  # the limits in the file, as they were last read
        self._feeds: list[Feed] = []
        self._lock = native_lock()
        self._waiting: collections.deque[_Ticket] = collections.deque()
        self.evictions, self._evicted = Evictions(), 0

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        self._limits, self._clock = limits, clock
        if self._feeds:
            self._store_limits()

    def append(self, message: Message | Command) -> Record:
        ticket = _Ticket(message)
        with self._lock:
            self._waiting.append(ticket)
        wrote = False
        with self.database.turn:
            while ticket.record is None and ticket.error is None:
                with self._lock:
                    batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                self._commit(batch)
                wrote = True
        if ticket.record is None:
            assert ticket.error is not None
            raise ticket.error
        if wrote:
            self._ringer.ring()
        if self._evicted:
            evicted, self._evicted = self._evicted, 0
            self.evictions.note(evicted)
        return ticket.record

    def _commit(self, batch: Sequence[_Ticket]) -> None:
        """Write a batch in one transaction; every ticket then has its outcome."""
        error = LogUnavailable("the writing thread was interrupted", maybe_recorded=True)
        records: Sequence[Record] = ()
        try:
            records = self.database.write(lambda db: self._insert(db, batch))
        except LogUnavailable as err:
            error = err
        finally:
            for index, ticket in enumerate(batch):
                if records:
                    ticket.record = records[index]
                else:
                    ticket.error = error

    def _insert(self, db: sqlite3.Connection, batch: Sequence[_Ticket]) -> list[Record]:
        state, now = self._state(db), self._clock.time()
        tail, total = db.execute(_TAIL).fetchone() or (state.gone, state.total)
        epochs, records, before = self.epochs, [], tail
        for ticket in batch:
            message, own_id = ticket.message, ticket.message.id
            known = self._known(db, own_id, now, tail, total) if own_id else None
            if known is not None:
                records.append(known)
                continue
            size = len(ticket.entry)
            total += size
            row = (now, size, total, own_id or None, ticket.entry)
            tail = db.execute(_INSERT, row).lastrowid or 0
            if type(message) is Message and message.retain:
                self._evicted += self.database.retained.put(
                    db, message, tail, ticket.entry, now, self._limits
                )
            position = epochs.position(tail)
            records.append(Record(position, own_id or epochs.id(position), message))
        if tail // TRIM_EVERY != before // TRIM_EVERY:
            self._trim(db, state, now, tail, total, 4 * max(TRIM_EVERY, len(batch)))
        return records

    def _known(
        self, db: sqlite3.Connection, own_id: str, now: float, tail: int, total: int
    ) -> Record | None:
        """Return the record that has an own id already; forget it if it is kept no more."""
        row = db.execute(_OWN, (own_id,)).fetchone()
        if row is None:
            return None
        position, created, size, upto, entry = row
        if not self._limits.keeps(now - created, tail - position + 1, total - upto + size):
            db.execute("UPDATE message SET own_id = NULL WHERE position = ?", (position,))
            return None
        return read_entry(self.epochs.position(position), own_id, entry)

    def _trim(
        self, db: sqlite3.Connection, state: State, now: float, tail: int, total: int, most: int
    ) -> None:
        """Delete what is kept no more, at most *most* rows: more than come in meanwhile."""
        gone, upto = state.gone, state.total
        for position, created, size, running in db.execute(_OLDEST, (most,)).fetchall():
            if self._limits.keeps(now - created, tail - position + 1, total - running + size):
                break
            gone, upto = position, running
        if gone != state.gone:
            db.execute("DELETE FROM message WHERE position <= ?", (gone,))
            db.execute("UPDATE state SET gone = ?, total = ?", (gone, upto))
            db.execute("PRAGMA incremental_vacuum(64)").fetchall()

    def _state(self, db: sqlite3.Connection) -> State:
        """Return the file's state; what it says of the limits is what counts."""
        state = self.database.state(db)
        self.epochs.enter(state.epoch)
        if state.limits and state.limits != self._stored:
            self._stored = state.limits
            self._limits = LogLimits(**json.loads(state.limits))
        return state

    def read(self, after: int, limit: int, *, feed: bool = False) -> list[Record]:
        self.tail_known()
        number = self.epochs.number(after)
        rows, gone = self.database.read(lambda db: _read_rows(db, number, limit), feed=feed)
        if gone > number:
            raise PositionLost("trimmed")
        epochs, records = self.epochs, []
        for row, own_id, entry in rows:
            position = epochs.position(row)
            records.append(read_entry(position, own_id or epochs.id(position), entry))
        if not records and number > self._number_of_tail(feed=feed):
            raise PositionLost("ahead")
        return records

    def tail_known(self) -> None:
        """Open the file if it was not yet, so that there is an epoch."""
        self.database.look()
        if not self.epochs.current:
            self.tail()

    def locate(self, id: str) -> int:
        self.tail_known()
        return self.epochs.position(self.database.read(lambda db: self._locate(db, id)))

    def _locate(self, db: sqlite3.Connection, id: str) -> int:
        row = db.execute(_OWN, (id,)).fetchone()
        number = self.epochs.parse(id) if row is None else int(row[0])
        state = self._state(db)
        tail, total = db.execute(_TAIL).fetchone() or (state.gone, state.total)
        if number > tail:
            raise PositionLost("ahead")
        if number < state.gone:
            raise PositionLost("trimmed")
        following = db.execute(_NEXT, (number,)).fetchone()
        if following is not None:
            position, created, size, upto = following
            age = self._clock.time() - created
            if not self._limits.keeps(age, tail - position + 1, total - upto + size):
                raise PositionLost("trimmed")
        return number

    def tail(self) -> int:
        self.database.look()
        number = self._number_of_tail()
        return self.epochs.position(number)

    def _number_of_tail(self, *, feed: bool = False) -> int:
        def newest(db: sqlite3.Connection) -> int:
            state = self._state(db)
            row = db.execute(_TAIL).fetchone()
            return state.gone if row is None else int(row[0])

        return self.database.read(newest, feed=feed)

    def since(self, seconds: float | None) -> tuple[int, bool]:
        self.tail_known()
        number, is_whole = self.database.read(lambda db: self._since(db, seconds))
        return self.epochs.position(number), is_whole

    def _since(self, db: sqlite3.Connection, seconds: float | None) -> tuple[int, bool]:
        state, now = self._state(db), self._clock.time()
        tail, total = db.execute(_TAIL).fetchone() or (state.gone, state.total)

        def next_row(number: int) -> Row | None:
            row: Row | None = db.execute(f"{_NEXT} LIMIT 1", (number,)).fetchone()
            return row

        def is_kept(row: Row) -> bool:
            position, created, size, upto = row
            return self._limits.keeps(now - created, tail - position + 1, total - upto + size)

        floor = boundary(next_row, state.gone, tail, is_kept)
        if seconds is None:
            return floor, floor == 0
        oldest = now - seconds
        start = boundary(next_row, floor, tail, lambda row: row[1] >= oldest)
        return start, start > floor or self._gone_at(db, floor) < oldest

    def _gone_at(self, db: sqlite3.Connection, floor: int) -> float:
        """Return when the newest message that is kept no more was created, as far as is known."""
        if floor == 0:
            return float("-inf")
        row = db.execute("SELECT created FROM message WHERE position = ?", (floor,)).fetchone()
        return float("inf") if row is None else float(row[0])

    def before(self, position: int, limit: int) -> list[Record]:
        self.tail_known()
        query = READ_BACK.replace("{message}", "message")
        number = self.epochs.number(position)
        rows = self.database.read(lambda db: db.execute(query, (number, limit)).fetchall())
        epochs, records = self.epochs, []
        for row, own_id, entry in reversed(rows):
            place = epochs.position(row)
            records.append(read_entry(place, own_id or epochs.id(place), entry))
        return records

    def retained(self, interest: Interest) -> list[Record]:
        self.tail_known()
        kept, epochs, now = self.database.retained, self.epochs, self._clock.time()

        def decode(number: int, entry: bytes) -> Record:
            position = epochs.position(number)
            return read_entry(position, epochs.id(position), entry)

        return kept.records(self.database.read(lambda db: kept.find(db, interest, now)), decode)

    def clear_retained(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        kept = self.database.retained
        with self.database.turn:
            return self.database.write(lambda db: kept.clear(db, tenant, target, addressee, event))

    def listen(self, listener: Listener, lost: Lost) -> Feed:
        after = self.tail()
        self._store_limits()
        self._feeds = [feed for feed in self._feeds if not feed.is_stopped]
        first = not self._feeds
        follower = _Follower(self, Bell(self.database.path), self.recent if first else None, after)
        feed = Feed(follower, after, listener, lost, follower.end)
        self._feeds.append(feed)
        return feed

    def _store_limits(self) -> None:
        text = json.dumps(asdict(self._limits))
        with self.database.turn:
            self.database.write(lambda db: db.execute("UPDATE state SET limits = ?", (text,)))
        self._stored = text

    def close(self) -> None:
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.stop()
        self._ringer.close()
        self.database.close()


class _Follower:
    """What a feed asks of one life: the next records, or a wait at the bell."""

    def __init__(self, life: _Life, bell: Bell, recent: Recent | None, after: int) -> None:
        self._life = life
        self._bell = bell
        self._recent = recent
        self._began = 0 if recent is None else recent.begin(after)

    def follow(self, after: int) -> Sequence[Record]:
        records = self._life.read(after, READ_RECORDS, feed=True)
        if not records:
            self._bell.wait(POLL)
            records = self._life.read(after, READ_RECORDS, feed=True)
        if self._recent is not None:
            for record in records:
                self._recent.add(record)
        return records

    def tail(self) -> int:
        position = self._life.tail()
        if self._recent is not None:
            self._began = self._recent.begin(position)
        return position

    def interrupt(self) -> None:
        self._bell.ring()

    def end(self) -> None:
        if self._recent is not None:
            self._recent.end(self._began)
        self._bell.close()


def _read_rows(
    db: sqlite3.Connection, after: int, limit: int
) -> tuple[list[tuple[int, str | None, bytes]], int]:
    """Return rows after a number, and up to where there are none any more.

    The rows first: had they been trimmed before they were read, the second
    look would say so.
    """
    rows, size = [], 0
    found = db.execute(_READ, (after, limit))
    for row in found:
        rows.append(row)
        size += len(row[2])
        if size >= READ_BYTES:
            break
    found.close()
    return rows, int(db.execute("SELECT gone FROM state").fetchone()[0])


def _parse(url: str) -> tuple[str, str, float]:
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if parts.netloc or not path or path == ":memory:":
        raise InvalidConfig(
            f"{url!r} names no file; sqlite:///app.db or sqlite:////var/lib/app/sse.db does,"
            " and memory:// is the log without one",
            field="log",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", SYNCHRONOUS[0]).lower()
    try:
        timeout = float(options.pop("timeout", "5"))
    except ValueError:
        timeout = 0.0
    if synchronous not in SYNCHRONOUS or not 0 < timeout <= 60 or options:
        raise InvalidConfig(
            f"{url!r}: the options are synchronous (normal or full)"
            " and timeout (seconds, more than 0 and at most 60)",
            field="log",
        )
    return os.path.abspath(path), synchronous.upper(), timeout
