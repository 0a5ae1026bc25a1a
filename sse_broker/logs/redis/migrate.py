"""How a log that the first release wrote into Redis becomes one of today."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sse_broker.errors import InvalidMessage
from sse_broker.wire.envelope import unpack
from sse_broker.wire.message import Message
from sse_broker.wire.scope import scope_of

__all__ = ["from_1"]

PAGE = 500  # entries


def from_1(client: Any, keys: Sequence[str], old_ids: str) -> None:
    """Give each own id of the log its scope.  Several processes may do so at one moment.

    Messages, places and who is online stay as they are.
    """
    stream, meta, owned = keys
    after = "-"
    while page := client.xrange(stream, after, "+", count=PAGE):
        for place, fields in page:
            own_id = fields.get(b"i")
            try:
                message = unpack(fields.get(b"e", b"")) if own_id else None
            except InvalidMessage:
                continue
            if isinstance(message, Message):
                member = b"\0".join((own_id, scope_of(message).encode(), place))
                client.zadd(owned, {member: 0})
        after = f"({page[-1][0].decode()}"
    client.hset(meta, "format", "2")
    client.delete(old_ids)
