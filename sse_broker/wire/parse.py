"""Bytes in any chunks to events, as a browser reads them.

The rules are those of the HTML standard, 9.2.5 and 9.2.6 (parsing and
interpreting an event stream).  No I/O: feed what was received, take the events.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

from sse_broker.errors import InvalidMessage

__all__ = ["Event", "Parser", "parse"]

# str.splitlines() is wrong here: it also splits at U+2028, U+0085 and others.
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a page would see it.

    ``id`` is the last event id at its dispatch, ``retry`` the reconnection time
    in milliseconds that was last said, if any was.
    """

    event: str
    data: str
    id: str = ""
    retry: int | None = None


class Parser:
    """Reads one stream.  Not for several threads at once.

    *max_event_bytes* bounds what an unfinished event may hold, in characters of
    its text; 0 is no bound.  *comment* is called with the text of each comment.
    """

    def __init__(
        self, *, max_event_bytes: int = 0, comment: Callable[[str], None] | None = None
    ) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self._max = max_event_bytes
        self._comment = comment
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False
        self._after_cr = False
        self._pieces: list[str] = []  # of the unfinished line
        self._size = 0  # of the unfinished line and event
        self._event = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that *chunk* completes.

        :raises InvalidMessage: an event is larger than the bound.
        """
        text = self._decoder.decode(chunk)
        if text and not self._started:
            self._started = True
            text = text.removeprefix("\ufeff")  # one leading BOM is no text
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")  # the rest of a CRLF that was cut in two
        if text.endswith("\r"):
            self._after_cr = True
        *lines, rest = _LINE_END.split(text)
        found = []
        for line in lines:
            if self._pieces:
                line = "".join((*self._pieces, line))
                self._pieces.clear()
            event = self._line(line)
            if event is not None:
                found.append(event)
        if rest:
            self._pieces.append(rest)
            self._grow(len(rest))
        return found

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name and colon:
            if self._comment is not None:
                self._comment(value)
        elif name == "data":
            self._data.append(value)
            self._grow(len(value))
        elif name == "event":
            self._event = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value[:18])
        return None

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        name, self._event = self._event or "message", ""
        data, self._data, self._size = self._data, [], 0
        return Event(name, "\n".join(data), self._id, self.retry) if data else None

    def _grow(self, size: int) -> None:
        self._size += size
        if self._max and self._size > self._max:
            raise InvalidMessage(f"an event of more than {self._max} characters", field="data")


def parse(data: bytes) -> list[Event]:
    """Return the events of a whole stream; an unfinished last one is none."""
    return Parser().feed(data)
