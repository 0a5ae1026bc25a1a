"""Writing to a SQLite log: threads that publish at one moment share a commit.

Life of a write: WAITING ──a thread that has the file takes it──▶ TAKEN ──▶ DONE
                    └── its deadline passes: it takes itself out

Lock map
    _lock     guards the writes that wait; native; O(n) work for the n that wait
"""

from __future__ import annotations

import collections
import dataclasses
import json
import random
import sqlite3
from collections.abc import Callable, Sequence

from sse_broker.core.ports import Clock, LogLimits, Record
from sse_broker.core.sync import native_lock
from sse_broker.errors import BrokerError, IdConflict, LogUnavailable
from sse_broker.logs.entries import read_entry, same
from sse_broker.logs.sqlite.database import COLUMNS, Database, Row, State
from sse_broker.logs.sqlite.schema import GAP_BITS
from sse_broker.logs.waits import Deadline
from sse_broker.wire.command import Command
from sse_broker.wire.envelope import pack
from sse_broker.wire.message import Message
from sse_broker.wire.scope import scope_of

__all__ = ["Keeping", "Writing"]

BATCH = 512  # messages in one commit, at most
TRIM_EVERY = 64  # messages

_OLDEST = f"SELECT {COLUMNS} FROM {{message}} m ORDER BY position LIMIT ?"  # noqa: S608 (constants)
_OWN = f"SELECT {COLUMNS}, entry FROM {{message}} m WHERE own_id = ? AND scope = ?"  # noqa: S608 (constants)
_INSERT = (
    "INSERT INTO {message} (position, number, created, size, total, own_id, scope, entry)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_FORGET = "UPDATE {message} SET own_id = NULL WHERE position = ?"


class Keeping:
    """What the log keeps: as this process was told, until the file says otherwise."""

    def __init__(self, database: Database, limits: LogLimits, clock: Clock) -> None:
        self._database = database
        self.limits, self.clock = limits, clock
        self._stored = ""  # the limits in the file, as they were last read or written

    def look(self, db: sqlite3.Connection) -> tuple[State, Row]:
        """Return the file's state and its newest row; what it says of the limits is what counts."""
        state, last = self._database.state_and_last(db)
        if state.limits != self._stored and state.limits:
            self._stored = state.limits
            self.limits = _limits_of(state.limits, self.limits)
        return state, last

    def store(self, text: str) -> None:
        """Have the file say the limits, for all processes."""
        query = self._database.names("UPDATE {state} SET limits = ?")
        self._database.write(lambda db: db.execute(query, (text,)))
        self._stored = text

    def keeps(self, row: Row, last: Row) -> bool:
        """Whether a row stays, given the newest one."""
        _, created, size, total, number = row
        age = self.clock.time() - created
        return self.limits.keeps(age, last[4] - number + 1, last[3] - total + size)


class _Ticket:
    """A write that waits, and then its outcome."""

    __slots__ = ("also", "entry", "error", "message", "record", "scope")

    def __init__(
        self, message: Message | Command, also: Callable[[sqlite3.Connection], object] | None
    ) -> None:
        self.message = message
        self.also = also
        self.entry = pack(message)
        own = message.id and isinstance(message, Message)
        self.scope = scope_of(message) if own else None  # type: ignore[arg-type]  # own says so
        self.record: Record | None = None
        self.error: BrokerError | None = None

    @property
    def waits(self) -> bool:
        """Whether there is no outcome yet."""
        return self.record is None and self.error is None


class Writing:
    """The writes of one process."""

    def __init__(self, database: Database, keeping: Keeping) -> None:
        self._database = database
        self._keeping = keeping
        self._lock = native_lock()
        self._waiting: collections.deque[_Ticket] = collections.deque()
        self._evicted = 0  # retained messages that had to go, and nobody was told yet
        self._gap = random.Random()  # of its own: what the application seeds must not repeat

    def append(
        self,
        message: Message | Command,
        also: Callable[[sqlite3.Connection], object] | None = None,
    ) -> tuple[Record, bool]:
        """Record a message, and do *also* in the same transaction.

        Returns the record, and whether it was this thread that wrote.

        :raises LogUnavailable: it was not recorded, or, with ``maybe_recorded``, nobody knows.
        :raises IdConflict: its own id stands for another message.
        """
        ticket = _Ticket(message, also)
        deadline = Deadline(self._database.timeout)
        wrote = False
        with self._lock:
            self._waiting.append(ticket)
        try:
            while ticket.waits:
                wrote = self._write(deadline, ticket) or wrote
        except BrokerError as err:
            if self._is_taken(ticket) and isinstance(err, LogUnavailable):
                err.maybe_recorded = True  # another thread has it and is not through
            if ticket.waits:
                raise
        if ticket.record is None:
            assert ticket.error is not None
            raise ticket.error
        return ticket.record, wrote

    def evicted(self) -> int:
        """Return how many retained messages had to go since this was last asked."""
        with self._lock:
            count, self._evicted = self._evicted, 0
            return count

    def _is_taken(self, ticket: _Ticket) -> bool:
        """Take a write out of those that wait; say whether it is in somebody else's hands."""
        with self._lock:
            try:
                self._waiting.remove(ticket)
            except ValueError:
                return ticket.waits
            return False

    def _write(self, deadline: Deadline, mine: _Ticket) -> bool:
        """Write what waits, once the file is to be had; say whether this thread did."""
        batch: list[_Ticket] = []

        def act(db: sqlite3.Connection) -> list[Record | BrokerError]:
            with self._lock:
                batch.extend(self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting))))
            return self._insert(db, batch)

        def settle(outcomes: list[Record | BrokerError] | None, error: BrokerError | None) -> None:
            for index, ticket in enumerate(batch):
                outcome = error or outcomes[index]  # type: ignore[index]  # one of the two is there
                if isinstance(outcome, Record):
                    ticket.record = outcome
                else:
                    ticket.error = outcome

        return self._database.write(act, deadline, lambda: mine.waits, settle) is not None

    def _insert(
        self, db: sqlite3.Connection, batch: Sequence[_Ticket]
    ) -> list[Record | BrokerError]:
        last = before = self._keeping.look(db)[1]
        now, epochs = self._keeping.clock.time(), self._database.epochs
        query, outcomes = self._database.names(_INSERT), list[Record | BrokerError]()
        for ticket in batch:
            if ticket.also is not None:
                ticket.also(db)
            message, own_id = ticket.message, ticket.message.id or None
            known = self._known(db, ticket, last) if own_id else None
            if known is not None:
                outcomes.append(known)
                continue
            size = len(ticket.entry)
            number = last[0] + 1 + self._gap.getrandbits(GAP_BITS)
            last = (number, now, size, last[3] + size, last[4] + 1)
            db.execute(
                query, (number, last[4], now, size, last[3], own_id, ticket.scope, ticket.entry)
            )
            if isinstance(message, Message) and message.retain:
                self._evicted += self._database.retained.put(
                    db, message, number, ticket.entry, now, self._keeping.limits
                )
            position = epochs.position(number)
            outcomes.append(Record(position, own_id or epochs.id(position), message))
        if last[4] // TRIM_EVERY != before[4] // TRIM_EVERY:
            self._trim(db, last, 4 * max(TRIM_EVERY, len(batch)))
        return outcomes

    def _known(
        self, db: sqlite3.Connection, ticket: _Ticket, last: Row
    ) -> Record | BrokerError | None:
        """Return what an own id stands for already; forget what is kept or readable no more."""
        row = db.execute(self._database.names(_OWN), (ticket.message.id, ticket.scope)).fetchone()
        if row is None:
            return None
        *row, entry = row
        epochs = self._database.epochs
        record = read_entry(epochs.position(row[0]), epochs.id, entry)
        if not self._keeping.keeps(tuple(row), last) or not isinstance(record.message, Message):
            db.execute(self._database.names(_FORGET), (row[0],))
            return None
        try:
            return same(record, ticket.message)
        except IdConflict as err:
            return err

    def _trim(self, db: sqlite3.Connection, last: Row, most: int) -> None:
        """Delete what is kept no more, at most *most* rows: more than come in meanwhile."""
        names, gone = self._database.names, None
        rows = db.execute(names(_OLDEST), (most,))
        for row in rows:
            if self._keeping.keeps(row, last):
                break
            gone = row
        rows.close()
        if gone is not None:
            position, created, _, total, _ = gone
            db.execute(names("DELETE FROM {message} WHERE position <= ?"), (position,))
            db.execute(
                names("UPDATE {state} SET gone = ?, gone_at = ?, total = ?"),
                (position, created, total),
            )
            db.execute("PRAGMA incremental_vacuum(64)").fetchall()


def _limits_of(text: str, otherwise: LogLimits) -> LogLimits:
    """Return limits as the file has them; what cannot be read counts as not said."""
    try:
        found = json.loads(text)
        known = {field.name for field in dataclasses.fields(LogLimits)}
        return LogLimits(**{name: found[name] + 0 for name in found if name in known})
    except (ValueError, TypeError, RecursionError):
        return otherwise
