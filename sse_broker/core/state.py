"""The retained messages that a stream begins with: which ones, and how they look on the wire.

A stream that begins at a position gets the newest retained message of each of its
addressees up to there; what is retained after that position comes as every other
message does, so that nothing is missing and nothing comes twice.

Each of them has the position's id with a mark: ``<id>.r<n>``, where *n* is how many
of them follow; ``welcome`` has it too if there are any.  A page sees by that mark
(``event.lastEventId``) that a message is state and not news.  A client whose
connection breaks in between names such an id, and gets the last *n*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from sse_broker.core.client import Client
from sse_broker.core.ports import Log, Record
from sse_broker.wire.message import Message

__all__ = ["ALL", "chunks", "marked", "state_at", "unmarked"]

ALL = 1_000_000  # more than any log retains
CHUNK_BYTES = 64 * 1024  # one write

_MARK = re.compile(r"([0-9a-f]{12}-[A-Za-z0-9_-]+)\.r(\d{1,6})")


def marked(at: str, follow: int) -> str:
    """Return the id of a retained message at a position's id, *follow* more of them to come."""
    return f"{at}.r{follow}"


def unmarked(id: str) -> tuple[str, int]:
    """Return the position's id that *id* stands for, and how many retained messages are missing."""
    found = _MARK.fullmatch(id)
    return (found[1], int(found[2])) if found else (id, 0)


def state_at(log: Log, client: Client, position: int, most: int = ALL) -> list[Record]:
    """Return the retained messages for *client* at a position, oldest first; the last *most*.

    Asks the log.

    :raises LogUnavailable: the log cannot be read now.
    """
    if most < 1:
        return []
    found = [
        record
        for record in log.retained(client)
        if record.position <= position and client.wants(record.message)
    ]
    return found[-most:]


def chunks(
    records: Sequence[Record], at: str, may_have: Callable[[Record], bool] = lambda _: True
) -> Iterator[bytes]:
    """Return the retained messages as pieces to write, made one by one as they are taken.

    *may_have* is asked about each then: what the client reads may have changed meanwhile.
    """
    frames: list[bytes] = []
    size = 0
    for left, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
        assert isinstance(record.message, Message)
        if not may_have(record):
            continue
        frame = b"id: %b\n%b" % (marked(at, left).encode(), record.message.body)
        if frames and size + len(frame) > CHUNK_BYTES:
            yield b"".join(frames)
            frames, size = [], 0
        frames.append(frame)
        size += len(frame)
    if frames:
        yield b"".join(frames)
