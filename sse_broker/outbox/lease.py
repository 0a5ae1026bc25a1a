"""Which worker drains: one at a time, over all processes and machines."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sse_broker.core.ports import Clock

if TYPE_CHECKING:
    from sqlalchemy import Engine, Table
    from sqlalchemy.sql import ColumnElement

__all__ = ["Lease"]


class Lease:
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
