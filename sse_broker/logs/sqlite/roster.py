"""Who is online over all processes of one machine, in the log's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from sse_broker.core.ports import Census, RosterSync
from sse_broker.core.roster import unheard
from sse_broker.logs.sqlite.database import Database
from sse_broker.logs.sqlite.schema import Names

__all__ = ["SqliteRoster", "revoking"]

_LIVE = (
    "SELECT user_id FROM {presence} JOIN {process} ON process = name"
    " WHERE online AND until >= ? AND process <> ?"
)
_LIVE_COUNT = _LIVE.replace("user_id", "count(DISTINCT user_id)", 1)


class SqliteRoster:
    """The roster in a SQLite log's file.  *now* returns seconds since the Unix epoch."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._names = database, database.names
        self._now = now

    def sync(
        self, process: str, clients: int, users: Mapping[str, bool | None], ttl: float
    ) -> RosterSync:
        """See :class:`~sse_broker.core.ports.Roster`."""

        def act(db: sqlite3.Connection) -> RosterSync:
            run, now = _Run(db, self._names), self._now()
            run.forgive(now)
            left = run.bury(now, process)
            known = run.is_known(process)
            run("REPLACE INTO {process} VALUES (?, ?, ?)", process, now + ttl, clients)
            came = []
            for user, online in users.items():
                if online is None:
                    left += run.remove(user, process)
                    continue
                if not run.has_entries(user):
                    came.append(user)
                run("REPLACE INTO {presence} VALUES (?, ?, ?)", user, process, online)
            return RosterSync(came, left, known, run.census(now))

        answer = self._database.write(act)
        assert answer is not None
        return answer

    def is_online(self, user_id: str, but: str = "") -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        query = f"{_LIVE} AND user_id = ? LIMIT 1"
        return bool(self._read(query, self._now(), but, user_id))

    def online(self, but: str = "") -> set[str]:
        """See :class:`~sse_broker.core.ports.Roster`."""
        return {row[0] for row in self._read(_LIVE, self._now(), but)}

    def census(self) -> Census:
        """See :class:`~sse_broker.core.ports.Roster`."""
        return self._database.read(lambda db: _Run(db, self._names).census(self._now()))

    def revoke(self, token_id: str, until: float) -> None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        self._database.write(revoking(self._names, token_id, until, self._now()))

    def is_revoked(self, token_id: str) -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        query = "SELECT 1 FROM {revoked} WHERE token_id = ? AND until > ?"
        return bool(self._read(query, token_id, self._now()))

    def _read(self, query: str, *values: Any) -> list[Any]:
        query = self._names(query)
        return self._database.read(lambda db: db.execute(query, values).fetchall())

    def keep(self, name: str, value: str, until: float) -> str:
        """See :class:`~sse_broker.core.ports.Roster`."""
        table = self._database.kept
        answer = self._database.write(lambda db: table.put(db, name, value, until, self._now()))
        assert answer is not None
        return answer

    def kept(self, name: str) -> str | None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        table = self._database.kept
        return self._database.read(lambda db: table.get(db, name, self._now()))


def revoking(
    names: Names, token_id: str, until: float, now: float
) -> Callable[[sqlite3.Connection], None]:
    """Return what has a token remembered as revoked, in a transaction that has begun."""

    def act(db: sqlite3.Connection) -> None:
        db.execute(names("DELETE FROM {revoked} WHERE until <= ?"), (now,))
        db.execute(
            names(
                "INSERT INTO {revoked} VALUES (?, ?)"
                " ON CONFLICT (token_id) DO UPDATE SET until = max(until, excluded.until)"
            ),
            (token_id, until),
        )

    return act


class _Run:
    """The roster's statements, in one transaction."""

    def __init__(self, db: sqlite3.Connection, names: Names) -> None:
        self._db, self._names = db, names

    def __call__(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self._db.execute(self._names(query), values)

    def forgive(self, now: float) -> None:
        """Note that a process was heard; take out of all lives the time in which none was."""
        silence = unheard(now, float(self("SELECT CAST(heard AS REAL) FROM {state}").fetchone()[0]))
        if silence:
            self("UPDATE {process} SET until = until + ?", silence)
        self("UPDATE {state} SET heard = ?", now)

    def is_known(self, process: str) -> bool:
        """Whether a process has reported and is not buried."""
        return self("SELECT 1 FROM {process} WHERE name = ?", process).fetchone() is not None

    def has_entries(self, user: str) -> bool:
        """Whether any process has a user."""
        found = self("SELECT 1 FROM {presence} WHERE user_id = ? LIMIT 1", user)
        return found.fetchone() is not None

    def remove(self, user: str, process: str) -> list[str]:
        """Take one entry out; return the user if it was the last one."""
        query = "DELETE FROM {presence} WHERE user_id = ? AND process = ?"
        gone = self(query, user, process).rowcount
        return [user] if gone and not self.has_entries(user) else []

    def bury(self, now: float, but: str) -> list[str]:
        """Take dead processes out with their entries; return the users that have none left."""
        left: list[str] = []
        dead = self("SELECT name FROM {process} WHERE until < ? AND name <> ?", now, but)
        for (name,) in dead.fetchall():
            for (user,) in self(
                "SELECT user_id FROM {presence} WHERE process = ?", name
            ).fetchall():
                left += self.remove(user, name)
            self("DELETE FROM {process} WHERE name = ?", name)
        return left

    def census(self, now: float) -> Census:
        """Return the sums over the live processes."""
        processes, clients = self(
            "SELECT count(*), coalesce(sum(clients), 0) FROM {process} WHERE until >= ?", now
        ).fetchone()
        return Census(processes, clients, self(_LIVE_COUNT, now, "").fetchone()[0])
