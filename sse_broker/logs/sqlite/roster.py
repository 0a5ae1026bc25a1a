"""Who is online over all processes of one machine, in the log's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from sse_broker.core.ports import Census, RosterSync
from sse_broker.logs.sqlite.database import Database

__all__ = ["SqliteRoster"]

_LIVE = (
    "SELECT user_id FROM presence JOIN process ON process = name"
    " WHERE online AND until >= ? AND process <> ?"
)
_LIVE_COUNT = _LIVE.replace("user_id", "count(DISTINCT user_id)", 1)


class SqliteRoster:
    """The roster in a SQLite log's file.  *now* returns seconds since the Unix epoch."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def sync(
        self, process: str, clients: int, users: Mapping[str, bool | None], ttl: float
    ) -> RosterSync:
        """See :class:`~sse_broker.core.ports.Roster`."""

        def act(db: sqlite3.Connection) -> RosterSync:
            now = self._now()
            left = _bury(db, now, process)
            known = _is_known(db, process)
            db.execute("REPLACE INTO process VALUES (?, ?, ?)", (process, now + ttl, clients))
            came = []
            for user, online in users.items():
                if online is None:
                    left += _remove(db, user, process)
                    continue
                if not _entries(db, user):
                    came.append(user)
                db.execute("REPLACE INTO presence VALUES (?, ?, ?)", (user, process, online))
            return RosterSync(came, left, known, _census(db, now))

        with self._database.turn:
            return self._database.write(act)

    def is_online(self, user_id: str, but: str = "") -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        query = f"{_LIVE} AND user_id = ? LIMIT 1"
        values = (self._now(), but, user_id)
        return self._database.read(lambda db: db.execute(query, values).fetchone()) is not None

    def online(self, but: str = "") -> set[str]:
        """See :class:`~sse_broker.core.ports.Roster`."""
        values = (self._now(), but)
        return {
            row[0] for row in self._database.read(lambda db: db.execute(_LIVE, values).fetchall())
        }

    def census(self) -> Census:
        """See :class:`~sse_broker.core.ports.Roster`."""
        return self._database.read(lambda db: _census(db, self._now()))

    def revoke(self, token_id: str, until: float) -> None:
        """See :class:`~sse_broker.core.ports.Roster`."""

        def act(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM revoked WHERE until <= ?", (self._now(),))
            db.execute(
                "INSERT INTO revoked VALUES (?, ?)"
                " ON CONFLICT (token_id) DO UPDATE SET until = max(until, excluded.until)",
                (token_id, until),
            )

        with self._database.turn:
            self._database.write(act)

    def is_revoked(self, token_id: str) -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        query = "SELECT 1 FROM revoked WHERE token_id = ? AND until > ?"
        values = (token_id, self._now())
        return self._database.read(lambda db: db.execute(query, values).fetchone()) is not None


def _is_known(db: sqlite3.Connection, process: str) -> bool:
    row = db.execute("SELECT 1 FROM process WHERE name = ?", (process,)).fetchone()
    return row is not None


def _entries(db: sqlite3.Connection, user: str) -> bool:
    row = db.execute("SELECT 1 FROM presence WHERE user_id = ? LIMIT 1", (user,)).fetchone()
    return row is not None


def _remove(db: sqlite3.Connection, user: str, process: str) -> list[str]:
    """Take one entry out; return the user if it was the last one."""
    gone = db.execute(
        "DELETE FROM presence WHERE user_id = ? AND process = ?", (user, process)
    ).rowcount
    return [user] if gone and not _entries(db, user) else []


def _bury(db: sqlite3.Connection, now: float, but: str) -> list[str]:
    """Take dead processes out with their entries; return the users that have none left."""
    left: list[str] = []
    dead = db.execute("SELECT name FROM process WHERE until < ? AND name <> ?", (now, but))
    for (name,) in dead.fetchall():
        users = db.execute("SELECT user_id FROM presence WHERE process = ?", (name,)).fetchall()
        for (user,) in users:
            left += _remove(db, user, name)
        db.execute("DELETE FROM process WHERE name = ?", (name,))
    return left


def _census(db: sqlite3.Connection, now: float) -> Census:
    processes, clients = db.execute(
        "SELECT count(*), coalesce(sum(clients), 0) FROM process WHERE until >= ?", (now,)
    ).fetchone()
    users = db.execute(_LIVE_COUNT, (now, "")).fetchone()[0]
    return Census(processes, clients, users)
