"""What a log stored, as records again."""

from __future__ import annotations

import logging
import time

from sse_broker.core.ports import Record
from sse_broker.errors import InvalidMessage
from sse_broker.wire.command import Act, Command
from sse_broker.wire.envelope import unpack

__all__ = ["read_entry"]

LOG_EVERY = 60.0

_log = logging.getLogger("sse_broker.logs")
_said = -LOG_EVERY


def read_entry(position: int, id: str, entry: bytes) -> Record:
    """Return the record of a stored entry.

    One that cannot be read (damaged, or of a later version) keeps its place and
    does nothing: it must not stop those behind it.
    """
    try:
        return Record(position, id, unpack(entry))
    except InvalidMessage as err:
        global _said
        now = time.monotonic()
        if now - _said >= LOG_EVERY:
            _said = now
            _log.error("the entry %s of the log is left out: %s", id, err)
        return Record(position, id, Command(Act.NOTHING, "unreadable"))
