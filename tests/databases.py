"""Engines for the tests that have an application's database."""

from __future__ import annotations

from typing import Any


def connect(url: str) -> Any:
    """Return an engine whose transactions and savepoints are real, also on SQLite.

    sqlite3 begins transactions by itself, and too late for savepoints; this is
    SQLAlchemy's recipe against it ("Serializable isolation / Savepoints /
    Transactional DDL" on the page of its SQLite dialect).
    """
    from sqlalchemy import create_engine, event

    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def leave_transactions_alone(connection: Any, record: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine


def empty(url: str) -> None:
    """Drop what is in a PostgreSQL database."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
