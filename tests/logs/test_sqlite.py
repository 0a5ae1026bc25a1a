"""``sqlite:///path`` keeps the contract of all logs, and what a file brings with it."""

from __future__ import annotations

from sse_broker.logs.sqlite import SqliteLog
from tests.logs.contract import LogContract


class TestSqliteLog(LogContract):
    def make(self, tmp_path) -> SqliteLog:
        return SqliteLog(f"sqlite:///{tmp_path}/log.db")
