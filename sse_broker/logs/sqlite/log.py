"""The log of all processes of one machine.

A message is recorded when ``append`` returns, in the one order that all
processes read.  Other processes are woken by a datagram (:mod:`.wake`).

Positions are row ids, given inside ``BEGIN IMMEDIATE``: no other process can be
between "has its position" and "visible", so who has read up to a position has
missed nothing before it.  Who asks for what follows a position proves with it
that the file is of the same history: the row is there, or was the last to be
trimmed.  No read transaction is left open while anything is sent, so the
write-ahead log stays short.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict

from sse_broker.core.ports import (
    Clock,
    Interest,
    Listener,
    LogLimits,
    Lost,
    PositionLost,
    Record,
    Wants,
)
from sse_broker.logs.entries import MOST_SCOPES, read_entry, readable, up_to_unreadable
from sse_broker.logs.feed import Feed
from sse_broker.logs.pages import Pages
from sse_broker.logs.recent import Recent
from sse_broker.logs.retained import Evictions
from sse_broker.logs.shared import SharedLog
from sse_broker.logs.sqlite.database import COLUMNS, Database, Row, State
from sse_broker.logs.sqlite.files import File
from sse_broker.logs.sqlite.options import Options, parse
from sse_broker.logs.sqlite.roster import SqliteRoster, revoking
from sse_broker.logs.sqlite.schema import Names
from sse_broker.logs.sqlite.since import READ_BACK, boundary
from sse_broker.logs.sqlite.wake import POLL, Bell, Ringer
from sse_broker.logs.sqlite.writing import Keeping, Writing
from sse_broker.wire.command import Command
from sse_broker.wire.message import Message

__all__ = ["SqliteLog"]

READ_RECORDS = 256  # records that the feed reads at once
READ_BYTES = 1024 * 1024  # of entries in one read, give or take one

_NEXT = f"SELECT {COLUMNS} FROM {{message}} m WHERE position >= ? ORDER BY position LIMIT 2"  # noqa: S608 (constants)
_AFTER = _NEXT.replace(">=", ">").replace("LIMIT 2", "LIMIT 1")
_READ = (
    "SELECT position, CASE WHEN position > ?1 THEN entry ELSE x'' END"
    " FROM {message} WHERE position >= ?1 ORDER BY position LIMIT ?2"
)
_OWNERS = "SELECT position, entry FROM {message} WHERE own_id = ? ORDER BY position DESC LIMIT ?"
_OF_SCOPE = "SELECT position, entry FROM {message} WHERE own_id = ? AND scope = ?"


class SqliteLog(SharedLog):
    """A log in a file, for any number of processes of one machine.

    ``sqlite:///app.db`` is relative to the working directory at this moment,
    ``sqlite:////var/lib/app/sse.db`` absolute.  Options, as a query:
    ``synchronous`` (``normal`` or ``full``), ``timeout`` (seconds that a call
    takes at most, 2), ``prefix`` (of the tables, for several applications in one
    file) and ``group`` (which may use the file too; else its user alone may).

    :raises InvalidConfig: the URL names no file, or an option is wrong.
    """

    def __init__(self, url: str) -> None:
        options = parse(url)
        super().__init__(url, lambda limits, clock: _Life(options, limits, clock))


class _Life:
    """The log of one process id."""

    def __init__(self, options: Options, limits: LogLimits, clock: Clock) -> None:
        file, self._names = File(options.path, options.group), Names(options.prefix)
        self.database = Database(file, self._names, options.synchronous, options.timeout)
        self.epochs = self.database.epochs
        self.recent = Recent()
        self.pages = Pages(self.recent, self.read)
        self.roster = SqliteRoster(self.database, lambda: self._keeping.clock.time())
        self._keeping = Keeping(self.database, limits, clock)
        self._writing = Writing(self.database, self._keeping)
        self.evictions = Evictions()
        self._ringer = Ringer(file)
        self._feeds: list[Feed] = []

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        self._keeping.limits, self._keeping.clock = limits, clock
        if self._feeds:
            self._store_limits()

    def append(self, message: Message | Command) -> Record:
        return self._append(message)

    def _append(
        self, message: Message | Command, also: Callable[[sqlite3.Connection], object] | None = None
    ) -> Record:
        record, wrote = self._writing.append(message, also)
        if wrote:
            self._ringer.ring()
            self.evictions.note(self._writing.evicted())
        return record

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        act = revoking(self._names, token_id, until, self._keeping.clock.time())
        self._append(command, act)

    def read(self, after: int, limit: int, *, feed: bool = False) -> list[Record]:
        self.tail_known()
        epochs = self.epochs
        try:
            number = epochs.number(after)
        except PositionLost:
            began = self.database.read(self.database.state).start
            raise PositionLost("epoch", goes_on=epochs.position(began)) from None
        rows = self.database.read(lambda db: self._rows(db, number, limit), feed=feed)
        return up_to_unreadable([self.record(row, entry) for row, entry in rows])

    def record(self, number: int, entry: object) -> Record:
        """Return the record of a row of the current epoch."""
        return read_entry(self.epochs.position(number), self.epochs.id, entry)

    def _rows(self, db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, object]]:
        """Return the rows after one, which has to be there or the last that was trimmed.

        The rows first: had they been trimmed before they were read, the look at
        the state would say so.
        """
        rows, size = [], 0
        found = db.execute(self._names(_READ), (after, limit + 1))
        for row in found:
            rows.append(row)
            size += len(row[1]) if isinstance(row[1], bytes | str) else 0
            if size >= READ_BYTES:
                break
        found.close()
        state = self.database.state(db)
        if state.gone > after:
            raise PositionLost("trimmed")
        if rows and rows[0][0] == after:
            return rows[1:]
        if state.gone != after:
            raise PositionLost("unknown" if rows else self._ahead(db, after))
        return rows

    def _ahead(self, db: sqlite3.Connection, number: int) -> str:
        tail = self.database.state_and_last(db)[1][0]
        return "ahead" if number > tail else "unknown"

    def tail_known(self) -> None:
        """Open the file if it was not yet, so that there is an epoch."""
        self.database.look()
        if not self.epochs.current:
            self.tail()

    def locate(self, id: str, wants: Wants, scopes: Callable[[], Sequence[str]]) -> int:
        self.tail_known()
        owned = readable(self._owners(id, scopes), wants)
        number = self.epochs.parse(id) if owned is None else self.epochs.number(owned)
        self.database.read(lambda db: self._prove(db, number))
        return self.epochs.position(number)

    def _owners(self, id: str, scopes: Callable[[], Sequence[str]]) -> list[Record]:
        """Return the records with an own id: the newest ones, and those of some scopes."""
        rows = self._own(_OWNERS, id, MOST_SCOPES)
        found = dict(rows)
        if len(rows) == MOST_SCOPES:
            for scope in scopes():
                found.update(self._own(_OF_SCOPE, id, scope))
        return [self.record(number, entry) for number, entry in found.items()]

    def _own(self, query: str, *values: str | int) -> list[tuple[int, object]]:
        query = self._names(query)
        return self.database.read(lambda db: db.execute(query, values).fetchall())

    def _prove(self, db: sqlite3.Connection, number: int) -> None:
        """Make sure that everything after a number is there."""
        state, last = self._keeping.look(db)
        if number > last[0]:
            raise PositionLost("ahead")
        if number < state.gone:
            raise PositionLost("trimmed")
        rows = db.execute(self._names(_NEXT), (number,)).fetchall()
        if rows and rows[0][0] == number:
            rows = rows[1:]
        elif number != state.gone:
            raise PositionLost("unknown")
        if rows and not self._keeping.keeps(rows[0], last):
            raise PositionLost("trimmed")

    def tail(self) -> int:
        self.database.look()

        def newest(db: sqlite3.Connection) -> int:
            return self._keeping.look(db)[1][0]

        number = self.database.read(newest)
        return self.epochs.position(number)

    def since(self, seconds: float | None) -> tuple[int, bool]:
        self.tail_known()
        number, is_whole = self.database.read(lambda db: self._since(db, seconds))
        return self.epochs.position(number), is_whole

    def _since(self, db: sqlite3.Connection, seconds: float | None) -> tuple[int, bool]:
        keeping = self._keeping
        query = self._names(_AFTER)
        state, last = keeping.look(db)

        def next_row(number: int) -> Row | None:
            row: Row | None = db.execute(query, (number,)).fetchone()
            return row

        floor = boundary(next_row, state.gone, last[0], lambda row: keeping.keeps(row, last))
        if seconds is None:
            return floor, floor == 0
        oldest = keeping.clock.time() - seconds
        start = boundary(next_row, floor, last[0], lambda row: row[1] >= oldest)
        return start, start > floor or self._gone_at(db, floor, state) < oldest

    def _gone_at(self, db: sqlite3.Connection, floor: int, state: State) -> float:
        """Return when the newest message that is kept no more was created, as far as is known."""
        if floor == 0:
            return float("-inf")
        if floor == state.gone:
            return state.gone_at or float("inf")
        row = db.execute(self._names("SELECT created FROM {message} WHERE position = ?"), (floor,))
        found = row.fetchone()
        return float("inf") if found is None else float(found[0])

    def before(self, position: int, limit: int) -> list[Record]:
        self.tail_known()
        query, number = self._names(READ_BACK), self.epochs.number(position)
        rows = self.database.read(lambda db: db.execute(query, (number, limit)).fetchall())
        return [self.record(row, entry) for row, entry in reversed(rows)]

    def retained(self, interest: Interest) -> list[Record]:
        self.tail_known()
        kept, now = self.database.retained, self._keeping.clock.time()
        found = self.database.read(lambda db: kept.find(db, interest, now))
        return kept.records(found, self.record)

    def clear_retained(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        kept = self.database.retained
        return self.database.write(lambda db: kept.clear(db, tenant, target, addressee, event)) or 0

    def listen(self, listener: Listener, lost: Lost) -> Feed:
        after = self.tail()
        self._store_limits()
        self._feeds = [feed for feed in self._feeds if not feed.is_stopped]
        first = not self._feeds
        bell = Bell(self.database.file)
        follower = _Follower(self, bell, self.recent if first else None, after)
        feed = Feed(follower, after, listener, lost, follower.end)
        self._feeds.append(feed)
        return feed

    def _store_limits(self) -> None:
        self._keeping.store(json.dumps(asdict(self._keeping.limits)))

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

    def begin(self, after: int | None) -> int:
        position = self._life.tail() if after is None else after
        if self._recent is not None:
            self._began = self._recent.begin(position)
        return position

    def interrupt(self) -> None:
        self._bell.ring()

    def end(self) -> None:
        if self._recent is not None:
            self._recent.end(self._began)
        self._bell.close()
