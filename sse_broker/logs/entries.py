"""What a log stored, as records again; and what its own ids stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sse_broker.core.ports import PositionLost, Record, Wants
from sse_broker.errors import IdConflict, InvalidMessage
from sse_broker.wire.command import Act, Command
from sse_broker.wire.envelope import unpack
from sse_broker.wire.message import Message

__all__ = ["MOST_SCOPES", "read_entry", "readable", "same", "up_to_unreadable"]

MOST_SCOPES = 256  # scopes of one own id that are looked at for a reader, at most
_UNREADABLE = "unreadable"


def read_entry(position: int, seal: Callable[[int], str], entry: object) -> Record:
    """Return the record of a stored entry; *seal* makes the id of one that has none of its own.

    Memory only.

    One that cannot be read (damaged, or of a later version) keeps its place, as a
    command that does nothing: :func:`up_to_unreadable` is about those.
    """
    try:
        message = unpack(entry)
    except InvalidMessage as err:
        why = "".join(char if char.isprintable() else "?" for char in str(err)[:200])
        message = Command(Act.NOTHING, _UNREADABLE, why)
    return Record(position, message.id or seal(position), message)


def up_to_unreadable(records: list[Record]) -> list[Record]:
    """Return the records before the first entry that could not be read.

    :raises PositionLost: that is the first one; what follows it can be read on.
    """
    for index, record in enumerate(records):
        message = record.message
        if isinstance(message, Command) and message.value == _UNREADABLE:
            if message.act is not Act.NOTHING:
                continue
            if index:
                return records[:index]
            raise PositionLost(_UNREADABLE, goes_on=record.position)
    return records


def same(record: Record, message: Message | Command) -> Record:
    """Return *record*, which has the own id of *message* already, if it is that message.

    :raises IdConflict: it is another one.
    """
    kept = record.message
    if not isinstance(kept, Message) or not isinstance(message, Message):
        return record
    if kept.body == message.body:
        return record
    raise IdConflict(
        f"{message.id!r} was given to the event {kept.event!r} with {len(kept.data)} characters of"
        f" data, sent {kept.created_at:%Y-%m-%d %H:%M:%S} UTC to the same addressee; this is the"
        f" event {message.event!r} with {len(message.data)} characters, and is not sent",
        field="id",
    )


def readable(found: Iterable[Record], wants: Wants) -> int | None:
    """Return the position of the one record that a reader may have of those with one own id.

    :raises PositionLost: it may have several, and nobody can say after which it stopped.
    """
    mine = [record.position for record in found if wants(record.message)]
    if len(mine) > 1:
        raise PositionLost("unknown")
    return mine[0] if mine else None
