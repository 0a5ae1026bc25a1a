"""The outbox itself: rows that are written with the application's data, and sent from there."""

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
from sse_broker.core.sending import Sender, check_message
from sse_broker.errors import (
    InvalidConfig,
    InvalidMessage,
    InvalidTopic,
    InvalidUserID,
    LogUnavailable,
    QueueFull,
    TopicsNotEnabled,
)
from sse_broker.outbox.lease import Lease
from sse_broker.outbox.tables import load, make_tables
from sse_broker.outbox.worker import Worker
from sse_broker.wire.envelope import pack
from sse_broker.wire.message import Message

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData
    from sqlalchemy.sql import ColumnElement

__all__ = ["Outbox", "Writer"]

BATCH = 100
SAY_EVERY = 60.0
STOP_TIMEOUT = 5.0
REASON_CHARS = 500
REFUSED = (InvalidMessage, InvalidTopic, InvalidUserID, TopicsNotEnabled)  # no wait helps

StoredRow: TypeAlias = tuple[int, str]
"""Its number and the message as text."""

_log = logging.getLogger("sse_broker.outbox")


@dataclass
class _Round:
    """What one round of draining came to."""

    sent: int = 0
    goes_on: bool = True
    refused: bool = False  # the log did not take a message


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
        self._messages, self._lease_table = make_tables(name, self.metadata)
        self._lease_seconds = lease
        self._workers: dict[int, Worker] = {}
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

    def run_round(self, stopping: threading.Event) -> bool:
        """Drain as :meth:`drain` does until *stopping* is set; say whether the log took all."""
        return not self._round(stopping).refused

    def _round(self, stopping: threading.Event) -> _Round:
        """Drain until nothing waits, the log is away, the lease is lost or *stopping* is set."""
        result = _Round()
        if not self._read(1):  # so that an idle worker only reads
            return result
        lease = Lease(
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
            self.complain("messages wait in the outbox: %s", err)
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

    def complain(self, text: str, err: Exception) -> None:
        """Log a warning, but not more than one a minute."""
        now = self.broker.streams.clock.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            _log.warning(text, err, exc_info=err)

    def _here(self) -> Worker:
        pid = os.getpid()
        worker = self._workers.get(pid)
        if worker is None:  # setdefault is one step; a lock could be stuck after a fork
            worker = self._workers.setdefault(pid, Worker(self))
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


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidConfig(f"{name} must be above 0, not {value!r}", field=name)
