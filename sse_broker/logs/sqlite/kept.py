"""Words that all processes of one machine share for a while, in the file of a SQLite log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

__all__ = ["SqliteKept"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS {kept} (name TEXT PRIMARY KEY, value TEXT NOT NULL,"
    " until REAL NOT NULL) WITHOUT ROWID"
)


class SqliteKept:
    """The table.  *names* fills the names in braces in.  Every method is part of a transaction."""

    def __init__(self, names: Callable[[str], str]) -> None:
        self._names = names

    def prepare(self, db: sqlite3.Connection) -> None:
        """Have the table there."""
        db.execute(self._names(_SCHEMA))

    def put(self, db: sqlite3.Connection, name: str, value: str, until: float, now: float) -> str:
        """Keep *value* if nothing is kept; return what is.  Forget what is over."""
        db.execute(self._names("DELETE FROM {kept} WHERE until <= ?"), (now,))
        db.execute(
            self._names("INSERT OR IGNORE INTO {kept} VALUES (?, ?, ?)"), (name, value, until)
        )
        found = self.get(db, name, now)
        return value if found is None else found

    def get(self, db: sqlite3.Connection, name: str, now: float) -> str | None:
        """Return what is kept."""
        query = self._names("SELECT value FROM {kept} WHERE name = ? AND until > ?")
        row = db.execute(query, (name, now)).fetchone()
        return None if row is None else str(row[0])
