"""The outbox's two tables, and the message that a row holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sse_broker.errors import InvalidMessage
from sse_broker.wire.envelope import unpack
from sse_broker.wire.message import Message

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

__all__ = ["load", "make_tables"]


def load(text: str) -> Message:
    """Return the message that a row holds.

    :raises InvalidMessage: *text* is something else, or has no id.
    """
    message = unpack(text.encode())
    if not isinstance(message, Message) or not message.id:
        raise InvalidMessage("the stored one is no message with an id", field="id")
    return message


def make_tables(name: str, metadata: MetaData) -> tuple[Table, Table]:
    """Return the table of messages and that of the lease, both in *metadata*."""
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
