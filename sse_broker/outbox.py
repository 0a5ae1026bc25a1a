"""Messages that are written with the application's data, and sent from there.

``broker.after_commit`` loses a message when the process dies between the commit
and the send, or when the log is away just then.  An :class:`Outbox` does not:
the message is a row in the application's own database, written in the same
transaction, and stays there until the log has it.

Flow::

    within(session).send_to_user ──▶ row ──commit──▶ drain ──▶ broker.publish ──▶ row deleted

One worker drains at a time, whoever holds the lease: a row of its own with an
owner and the time until which that is true.  A worker that dies between publish
and delete leaves a row that is published again under the same id, which the log
records once as long as it remembers that id.  No transaction is open while
publishing.

Threads: ``sse-broker-outbox-<pid>``, from ``start()``, one per process.

Lock map
    _Worker._starting   held while the thread is started or let go; a greenlet's
                        lock under gevent, because starting a thread waits; no
                        other lock is taken inside
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sse_broker.broker import Broker
from sse_broker.commit import AnySession, need_sqlalchemy, session_of, when_committed
from sse_broker.core.ports import Clock
from sse_broker.core.sending import Sender, check_message
from sse_broker.core.threads import is_alive, spawn
from sse_broker.errors import (
    InvalidConfig,
    InvalidMessage,
    InvalidTopic,
    InvalidUserID,
    LogUnavailable,
    QueueFull,
    TopicsNotEnabled,
)
from sse_broker.wire.envelope import pack, unpack
from sse_broker.wire.message import Message

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table
    from sqlalchemy.sql import ColumnElement

__all__ = ["Outbox", "Writer"]

BATCH = 100
MAX_PAUSE = 60.0  # seconds between two tries while the log or the database is away
SAY_EVERY = 60.0
STOP_TIMEOUT = 5.0
REASON_CHARS = 500
REFUSED = (InvalidMessage, InvalidTopic, InvalidUserID, TopicsNotEnabled)  # no wait helps

StoredRow: TypeAlias = tuple[int, str]
"""Its number and the message as text."""

_log = logging.getLogger("sse_broker.outbox")


class Outbox:
    """Sends what committed transactions have written, at least once, in order.

    *engine* is the application's, *name* the name of the table; a second one,
    ``<name>_lease``, says who drains.  Both are in ``metadata``, which may be
    the application's own, for its migrations, and are made by :meth:`create`.
    *interval* is the number of seconds between two looks at the table, *lease*
    the number of seconds after which another worker takes over from one that
    died; the clocks of the machines should differ by less than that.

    Clients see a message once, because each row has an id that the log records
    once while it remembers it (``resume_window`` and the history).  Any thread
    may call any method, and so may a forked process, once it has disposed of the
    engine's connections as SQLAlchemy wants (``engine.dispose(close=False)``).
    Nothing starts here.

    :raises InvalidConfig: SQLAlchemy is not installed, or a number is not above 0.
    """

    def __init__(
        self,
        broker: Broker,
        engine: Engine,
        name: str = "sse_outbox",
        *,
        metadata: MetaData | None = None,
        interval: float = 1.0,
        lease: float = 30.0,
    ) -> None:
        need_sqlalchemy("the outbox")
        from sqlalchemy import MetaData

        _check_positive("interval", interval)
        _check_positive("lease", lease)
        self.broker = broker
        self.engine = engine
        self.interval = interval
        self.metadata: MetaData = MetaData() if metadata is None else metadata
        self._messages, self._lease_table = _tables(name, self.metadata)
        self._lease_seconds = lease
        self._workers: dict[int, _Worker] = {}
        self._said = -SAY_EVERY
        broker.streams.look_after("outbox", self._is_well, self._mend)

    def __repr__(self) -> str:
        worker = self._workers.get(os.getpid())
        running = "running" if worker is not None and worker.is_alive else "not running"
        return f"<Outbox {self._messages.name} {running}>"

    def create(self) -> None:
        """Make the two tables if they are missing.  Waits for the database."""
        self.metadata.create_all(self.engine, tables=[self._messages, self._lease_table])

    def within(self, where: AnySession | Connection) -> Writer:
        """Return what sends by writing into the transaction of *where*.

        *where* is a Session, a scoped_session or a Connection of the database
        that the outbox is in.

        :raises TypeError: it is something else.
        """
        return Writer(self, where)

    def drain(self) -> int:
        """Send what waits, oldest first; return how many the log took.

        Waits for the database and for the log.  Returns 0 at once while another
        worker drains.  When the log is away or full the rest stays, in order, and
        that is logged once a minute.  A row that no message can be read from, or
        that the broker refuses, is set aside with the reason in the column
        ``failed`` and logged; set that to NULL to have it tried again.

        :raises sqlalchemy.exc.SQLAlchemyError: the database did not answer as it should.
        """
        return self._round(threading.Event()).sent

    def waiting(self) -> int:
        """Return how many messages wait to be sent.  Asks the database."""
        return self._count(self._messages.c.failed.is_(None))

    def failed(self) -> int:
        """Return how many messages are set aside.  Asks the database."""
        return self._count(self._messages.c.failed.is_not(None))

    def start(self) -> None:
        """Drain in a thread of this process, from now on.  Idempotent; also after :meth:`stop`.

        It looks after each commit of a session of this process, and every
        *interval* seconds.  After a failure it waits longer each time, up to a
        minute.  Should the thread die, the broker's reaper or the next commit starts
        another.  Call it where the process lives, not before a fork.
        """
        self._here().start()

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End this process's thread and let another worker go on.  Idempotent.

        Waits up to *timeout* seconds for the message being sent; what waits stays.
        """
        self._here().stop(timeout)

    def nudge(self) -> None:
        """Have this process's thread look now, if there is one.  Any thread; never waits.

        A session's commit does it by itself; a Connection's cannot.
        """
        worker = self._workers.get(os.getpid())
        if worker is not None:
            worker.mend()
            worker.nudge()

    def _is_well(self) -> bool:
        worker = self._workers.get(os.getpid())
        return worker is None or worker.is_well

    def _mend(self) -> None:
        worker = self._workers.get(os.getpid())
        if worker is not None:
            worker.mend()

    def _write(self, where: AnySession | Connection, message: Message) -> None:
        from sqlalchemy import Connection, insert

        row = insert(self._messages).values(message=pack(message, ascii=True).decode())
        if isinstance(where, Connection):
            where.execute(row)
            return
        session = session_of(where)
        session.execute(row)
        when_committed(session, self.nudge)

    def _count(self, which: ColumnElement[bool]) -> int:
        from sqlalchemy import func, select

        with self.engine.connect() as connection:
            count = select(func.count()).select_from(self._messages).where(which)
            return connection.execute(count).scalar_one()

    def _read(self, limit: int) -> list[StoredRow]:
        from sqlalchemy import select

        table = self._messages
        rows = select(table.c.id, table.c.message).where(table.c.failed.is_(None))
        with self.engine.connect() as connection:
            found = connection.execute(rows.order_by(table.c.id).limit(limit))
            return [(row.id, row.message) for row in found]

    def _round(self, stopping: threading.Event) -> _Round:
        """Drain until nothing waits, the log is away, the lease is lost or *stopping* is set."""
        result = _Round()
        if not self._read(1):  # so that an idle worker only reads
            return result
        lease = _Lease(
            self.engine, self._lease_table, self.broker.streams.clock, self._lease_seconds
        )
        if not lease.take():
            return result
        try:
            while result.goes_on and (rows := self._read(BATCH)):
                self._send(rows, result, lambda: not stopping.is_set() and lease.keep())
        finally:
            lease.release()
        return result

    def _send(self, rows: list[StoredRow], result: _Round, may_go_on: Callable[[], bool]) -> None:
        done: list[int] = []
        try:
            for row_id, text in rows:
                if not may_go_on():
                    result.goes_on = False
                    break
                if self._publish(row_id, text):
                    done.append(row_id)
        except (LogUnavailable, QueueFull) as err:
            result.goes_on, result.refused = False, True
            self._say("messages wait in the outbox: %s", err)
        finally:
            self._delete(done)
            result.sent += len(done)

    def _publish(self, row_id: int, text: str) -> bool:
        """Publish one row, or set it aside; return whether the log has it."""
        try:
            self.broker.publish(load(text))
        except REFUSED as err:
            self._set_aside(row_id, str(err))
            return False
        return True

    def _delete(self, row_ids: list[int]) -> None:
        from sqlalchemy import delete

        if row_ids:
            with self.engine.begin() as connection:
                connection.execute(delete(self._messages).where(self._messages.c.id.in_(row_ids)))

    def _set_aside(self, row_id: int, reason: str) -> None:
        from sqlalchemy import update

        table = self._messages
        aside = update(table).where(table.c.id == row_id).values(failed=reason[:REASON_CHARS])
        with self.engine.begin() as connection:
            connection.execute(aside)
        _log.error("row %d of %s is set aside: %s", row_id, table.name, reason)

    def _say(self, text: str, err: Exception) -> None:
        """Log a warning, but not more than one a minute."""
        now = self.broker.streams.clock.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            _log.warning(text, err, exc_info=err)

    def _here(self) -> _Worker:
        pid = os.getpid()
        worker = self._workers.get(pid)
        if worker is None:  # setdefault is one step; a lock could be stuck after a fork
            worker = self._workers.setdefault(pid, _Worker(self))
        return worker


class Writer(Sender[str]):
    """Sends by writing into a transaction.  Made by :meth:`Outbox.within`.

    It belongs to whoever uses the session or connection; one made from a
    ``scoped_session`` asks it for the caller's own at each call.
    """

    def __init__(self, outbox: Outbox, where: AnySession | Connection) -> None:
        from sqlalchemy import Connection
        from sqlalchemy.orm import Session, scoped_session

        if not isinstance(where, Session | scoped_session | Connection):
            raise TypeError(
                "a SQLAlchemy Session, scoped_session or Connection is needed,"
                f" not {type(where).__name__}"
            )
        self._outbox = outbox
        self._where = where

    def publish(self, message: Message) -> str:
        """Write *message* into the transaction; return the id it will have.

        It is checked now, and sent some time after the commit; a rollback takes
        it back.  Waits for the database, never for the log.

        :raises MessageTooLarge: longer than ``max_message_bytes``.
        :raises TopicsNotEnabled: it is for a topic and ``enable_topics`` is off.
        :raises sqlalchemy.exc.SQLAlchemyError: the row could not be written.
        """
        check_message(self._outbox.broker.config, message)
        if not message.id:
            message = message.with_id(uuid.uuid4().hex)
        self._outbox._write(self._where, message)
        return message.id


@dataclass
class _Round:
    """What one round of draining came to."""

    sent: int = 0
    goes_on: bool = True
    refused: bool = False  # the log did not take a message


class _Lease:
    """The right to drain, for one round.

    It is a row with an owner and a time; whoever can change the row has it.
    """

    def __init__(self, engine: Engine, table: Table, clock: Clock, seconds: float) -> None:
        self._engine = engine
        self._table = table
        self._clock = clock
        self._seconds = seconds
        self._owner = uuid.uuid4().hex
        self._renew_at = 0.0

    def take(self) -> bool:
        """Take it if nobody has it; say whether it is ours now."""
        now = self._clock.time()
        return self._claim(self._table.c.until < now, now) or self._make(now)

    def keep(self) -> bool:
        """Renew it when a third of it has passed; say whether it is ours still."""
        now = self._clock.time()
        if now < self._renew_at:
            return True
        return self._claim(self._table.c.owner == self._owner, now)

    def release(self) -> None:
        """Let the next one have it at once."""
        self._update(self._table.c.owner == self._owner, until=0.0)

    def _claim(self, condition: ColumnElement[bool], now: float) -> bool:
        self._renew_at = now + self._seconds / 3
        return self._update(condition, owner=self._owner, until=now + self._seconds)

    def _update(self, condition: ColumnElement[bool], **values: object) -> bool:
        from sqlalchemy import update

        change = update(self._table).where(self._table.c.id == 1, condition).values(**values)
        with self._engine.begin() as connection:
            return connection.execute(change).rowcount == 1

    def _make(self, now: float) -> bool:
        """Make the row, which only the very first worker must; say whether we did."""
        from sqlalchemy import insert, select
        from sqlalchemy.exc import IntegrityError

        with self._engine.connect() as connection:
            if connection.execute(select(self._table.c.id)).first() is not None:
                return False
        row = insert(self._table).values(id=1, owner=self._owner, until=now + self._seconds)
        try:
            with self._engine.begin() as connection:
                connection.execute(row)
        except IntegrityError:  # another one was faster
            return False
        return True


class _Worker:
    """The thread of one process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0

    @property
    def is_alive(self) -> bool:
        return is_alive(self._thread)

    @property
    def is_well(self) -> bool:
        """Whether the thread lives, if there should be one."""
        return self._thread is None or is_alive(self._thread)

    def mend(self) -> None:
        """Start the thread again if it died."""
        with self._starting:
            if not self.is_well:
                _log.error("the outbox's thread had died; it is started again")
                self._start_locked()

    def start(self) -> None:
        with self._starting:
            if not self.is_alive:
                self._start_locked()

    def _start_locked(self) -> None:
        # New ones, because an old thread may still be about to end by its own.
        wake, stopping = self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = spawn("outbox", lambda: self._run(wake, stopping))

    def stop(self, timeout: float) -> None:
        with self._starting:
            thread, self._thread = self._thread, None
            self._stopping.set()
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def nudge(self) -> None:
        self._wake.set()

    def _run(self, wake: threading.Event, stopping: threading.Event) -> None:
        while True:
            wake.clear()  # first, so that a nudge or a stop from here on ends the wait below
            if stopping.is_set():
                return
            if self.guarded_round(stopping):
                wake.wait(self._outbox.interval)
            else:
                stopping.wait(self.pause())

    def guarded_round(self, stopping: threading.Event) -> bool:
        """Drain; log what that raises, at most once a minute; return whether all went well."""
        try:
            well = not self._outbox._round(stopping).refused
        except Exception as err:  # the loop must outlive whatever it meets
            self._outbox._say("the outbox cannot be drained now: %s", err)
            well = False
        self._failures = 0 if well else self._failures + 1
        return well

    def pause(self) -> float:
        """Return the seconds to wait after a failure: twice as long each time, up to a minute."""
        return min(MAX_PAUSE, self._outbox.interval * 2.0 ** min(self._failures, 16))


def load(text: str) -> Message:
    """Return the message that a row holds.

    :raises InvalidMessage: *text* is something else, or has no id.
    """
    message = unpack(text.encode())
    if not isinstance(message, Message) or not message.id:
        raise InvalidMessage("the stored one is no message with an id", field="id")
    return message


def _tables(name: str, metadata: MetaData) -> tuple[Table, Table]:
    from sqlalchemy import BigInteger, Column, Double, Integer, String, Table, Text

    messages = Table(
        name,
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("message", Text, nullable=False),
        Column("failed", Text),
        sqlite_autoincrement=True,  # or SQLite gives a deleted row's number to another message
    )
    lease = Table(
        f"{name}_lease",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
        Column("owner", String(32), nullable=False),
        Column("until", Double, nullable=False),  # seconds since the Unix epoch
    )
    return messages, lease


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidConfig(f"{name} must be above 0, not {value!r}", field=name)
