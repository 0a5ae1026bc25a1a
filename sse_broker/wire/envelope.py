"""Messages and commands as the bytes that a log stores: one JSON object each.

What a log holds is checked like anything else that comes from outside: whoever
can write to the file or the server cannot smuggle a field into a stream.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from sse_broker.errors import BrokerError, InvalidMessage
from sse_broker.wire.command import Act, Command
from sse_broker.wire.message import ALL_TENANTS, Message, check_id

__all__ = ["MAX_BYTES", "pack", "unpack"]

MAX_BYTES = 64 * 1024 * 1024  # no setting allows more; a bound for what is parsed

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII = json.JSONEncoder(separators=(",", ":"))
_OPTIONAL = ("user_id", "topic", "id", "retry", "retain_for")
_KNOWN = ("target", "data", "event", "tenant_id", "created_at", "topics", "retain", *_OPTIONAL)


def pack(entry: Message | Command, *, ascii: bool = False) -> bytes:
    """Return what a log stores of *entry*; as ASCII, for databases that hold nothing else."""
    return (_ASCII if ascii else _ENCODER).encode(_fields(entry)).encode()


def _fields(entry: Message | Command) -> dict[str, Any]:
    if isinstance(entry, Command):
        command = {"act": entry.act, "value": entry.value, "reason": entry.reason}
        return {**command, "detail": entry.detail} if entry.detail else command
    fields: dict[str, Any] = {"target": entry.target, "event": entry.event, "data": entry.data}
    for name in _OPTIONAL:
        value = getattr(entry, name)
        if value:
            fields[name] = value
    if len(entry.topics) > 1:  # not one of them: who does not know of several must not take it
        del fields["topic"]
        fields["topics"] = entry.topics
    if entry.retain:
        fields["retain"] = True
    if entry.tenant_id is ALL_TENANTS:
        fields["all_tenants"] = True
    elif entry.tenant_id is not None:
        fields["tenant_id"] = entry.tenant_id
    fields["created_at"] = entry.created_at.timestamp()
    return fields


def unpack(raw: object) -> Message | Command:
    """Return what :func:`pack` was given.

    A command that only a later release knows does nothing: no stream misses a message by it.

    :raises InvalidMessage: *raw* is nothing that this version stores.
    """
    if not isinstance(raw, bytes | str):
        raise InvalidMessage(f"an entry that is {type(raw).__name__} and not bytes")
    if len(raw) > MAX_BYTES:
        raise InvalidMessage(f"an entry of {len(raw)} bytes")
    try:
        fields = json.loads(raw)
        if not isinstance(fields, dict):
            raise TypeError("it is no object")
        if "act" in fields:
            if fields["act"] not in set(Act):
                return Command(Act.NOTHING, "unknown")
            return Command(**fields)
        fields["created_at"] = dt.datetime.fromtimestamp(fields["created_at"], dt.timezone.utc)
        if fields.pop("all_tenants", False):
            fields["tenant_id"] = ALL_TENANTS
        # A field that a later release added is left out, not refused: the rest still stands.
        own_id = check_id(fields.pop("id")) if "id" in fields else ""
        message = Message(**{name: fields[name] for name in _KNOWN if name in fields})
        # Not as an argument: the first release took ids that a caller may not choose any more.
        return message.with_id(own_id) if own_id else message
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as err:
        raise InvalidMessage(f"an entry that cannot be read: {err}") from err
    except BrokerError as err:
        raise InvalidMessage(f"an entry that cannot be sent: {err}") from err
