"""``since``: a fresh stream that begins with the last seconds, or messages, of its topics.

As far as the log's history goes.  What was asked for and is not there any more is
said once, with ``reset``; what there is comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sse_broker.core.ports import Log, Record
from sse_broker.errors import InvalidSince

__all__ = ["Begin", "Since", "Subscription", "begin_at", "parse_since"]

MOST_MESSAGES = 10_000  # of one client's, that it may ask for
MOST_LOOKED_AT = 20_000  # of the log's, for one client's: about a quarter of a second
MOST_SECONDS = 1e9
PAGE = 256

_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_COUNT = re.compile(r"[0-9]{1,9}")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Since:
    """How far back: so many seconds, or so many messages; neither is as far as it goes."""

    seconds: float | None = None
    messages: int | None = None


@dataclass(frozen=True)
class Subscription:
    """What a topic resolver may return in place of a list: topics, and since when.

    *since* is as in the URL: ``30s`` (also ``m``, ``h``, ``d``), ``100`` or
    ``earliest``; empty leaves it to the request.
    """

    topics: Sequence[str]
    since: str = ""


class Begin(NamedTuple):
    """Where a stream begins: after a position; and whether all that was asked for is there."""

    position: int
    is_whole: bool


def parse_since(text: str) -> Since | None:
    """Return what *text* says, as it is in a URL; ``None`` for an empty one.

    :raises InvalidSince: it says nothing of the kind, or too much.
    """
    if not text:
        return None
    if text == "earliest":
        return Since()
    found = _SECONDS.fullmatch(text)
    if found and 0 < float(found[1]) * _UNITS[found[2]] <= MOST_SECONDS:
        return Since(seconds=float(found[1]) * _UNITS[found[2]])
    if _COUNT.fullmatch(text) and 1 <= int(text) <= MOST_MESSAGES:
        return Since(messages=int(text))
    raise InvalidSince(
        f"{text[:40]!r}; it is seconds as 30s (also 5m, 2h, 1d), messages as 100"
        f" (at most {MOST_MESSAGES}), or earliest",
        field="since",
    )


def begin_at(log: Log, since: Since, wants: Callable[[Record], bool]) -> Begin:
    """Return where a stream begins that asks for *since*.

    *wants* says which messages are the client's, as they are counted.  Asks the log.

    :raises LogUnavailable: the log cannot be read now.
    """
    if since.messages is None:
        return Begin(*log.since(since.seconds))
    floor, is_whole = log.since(None)
    return _last(log, since.messages, floor, is_whole, wants)


def _last(
    log: Log, most: int, floor: int, is_whole: bool, wants: Callable[[Record], bool]
) -> Begin:
    """Go back from the newest record until *most* are found, or there are no more."""
    upto, looked, found = log.tail(), 0, 0
    while upto > floor:
        if looked >= MOST_LOOKED_AT:
            return Begin(upto, False)
        page = [one for one in log.before(upto, PAGE) if one.position > floor]
        for index in range(len(page) - 1, -1, -1):
            found += wants(page[index])
            if found == most:
                return Begin(_before(log, page, index, floor), True)
        if not page:
            break
        looked += len(page)
        upto = _before(log, page, 0, floor)
    return Begin(floor, is_whole)


def _before(log: Log, page: Sequence[Record], index: int, floor: int) -> int:
    """Return the position before a record of a page."""
    if index:
        return page[index - 1].position
    earlier = log.before(page[0].position - 1, 1)
    return max(floor, earlier[-1].position) if earlier else floor
