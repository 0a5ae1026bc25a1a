"""The log of several machines, in one Redis stream.

One connection per process waits for what is new (XREAD from the last position,
never from ``$``); a small pool records and replays.  Continuity is proved by
what is read: each entry names the one before it, and the epoch.

Redis away: ``append`` tries for about half the URL's ``timeout`` and then raises
LogUnavailable, or keeps the message here if the URL has a ``buffer``.  The feed
connects again, for as long as it takes, and goes on where it was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from sse_broker.core.ports import (
    Clock,
    Interest,
    Listener,
    LogLimits,
    Lost,
    PositionLost,
    Record,
    SystemClock,
)
from sse_broker.errors import LogUnavailable
from sse_broker.logs.entries import read_entry
from sse_broker.logs.epochs import Epochs
from sse_broker.logs.feed import Feed
from sse_broker.logs.pages import Pages
from sse_broker.logs.recent import Recent
from sse_broker.logs.redis.buffer import Buffer
from sse_broker.logs.redis.link import Link
from sse_broker.logs.redis.retained import RedisRetained, asked
from sse_broker.logs.redis.roster import RedisRoster
from sse_broker.logs.redis.scripts import APPEND, CHECK, LOCATE, READ, SET_LIMITS, SINCE
from sse_broker.logs.redis.server import Options, connector, parse
from sse_broker.logs.retained import Evictions
from sse_broker.logs.shared import SharedLog
from sse_broker.wire.command import Command
from sse_broker.wire.envelope import pack
from sse_broker.wire.message import Message

__all__ = ["RedisLog"]

BITS = 80  # of a stream id: 48 of milliseconds, 32 of sequence
SEQUENCE = 32
BLOCK = 1.0  # seconds that the feed waits in Redis
CHECK_EVERY = 2.0  # seconds between looks at which server this is
READ_RECORDS = 256
READ_BYTES = 1024 * 1024  # of entries in one read, give or take one


class RedisLog(SharedLog):
    """A log in Redis (6.2 or newer) or Valkey.  URLs: :mod:`sse_broker.logs.redis.server`.

    With a ``buffer``, a message that waits in it has position 0: it has none yet.
    ``close()`` gives what waits 2 s to leave.

    :raises InvalidConfig: the URL is wrong, or redis-py is missing.
    """

    def __init__(self, url: str) -> None:
        options = parse(url)
        super().__init__(options.shown, lambda limits, clock: _Life(options, limits, clock))
        if options.kind != "cluster":  # which connects at once
            connector(options)(1.0).close()


class _Life:
    """The log of one process id."""

    def __init__(self, options: Options, limits: LogLimits, clock: Clock) -> None:
        self.link = Link(options)
        self.epochs = Epochs(BITS)
        self.recent = Recent()
        self.pages = Pages(self.recent, self.read)
        self.stream = options.key("log")
        self.roster = RedisRoster(self.link, options, self._now)
        self._keys = (self.stream, options.key("meta"), options.key("ids"))
        self._limits_text, self._clock = _text_of(limits), clock
        self._kept, self.evictions = RedisRetained(self.link, options), Evictions()
        self._feeds: list[Feed] = []
        self._seen = ("", "")  # an epoch, and an id that was recorded in it
        self._broke = 0  # how many connections had been lost when the server was last checked
        self._checked = 0.0
        self._buffer = Buffer(options.buffer, self._record) if options.buffer else None

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        self._limits_text, self._clock = _text_of(limits), clock
        if self._feeds:
            self._store_limits()

    def append(self, message: Message | Command) -> Record:
        buffer = self._buffer
        if buffer is None:
            return self._record(message)
        if isinstance(message, Message) and not message.id:
            message = message.with_id(secrets.token_hex(12))  # the one it will have, whenever
        if not len(buffer):
            try:
                return self._record(message)
            except LogUnavailable:
                pass
        buffer.put(message)
        return Record(0, message.id, message)

    def _record(self, message: Message | Command) -> Record:
        entry, key, retain = pack(message), secrets.token_hex(8), asked(message)
        keys = self._keys + self._kept.keys
        since = ""

        def attempt(again: bool) -> Any:
            nonlocal since
            self._check_if_due(float("inf"))
            since = since or self._seen[1] or "0-0"
            now = self._now()
            more = (since if again else "", now) if again or now else ()
            while True:
                answer = self.link.run(APPEND, keys, entry, message.id, key, retain, *more)
                if answer[0]:
                    return answer
                self._check()  # wiped: somebody has to begin an epoch

        epoch, place, known, *evicted = self.link.insist(attempt)
        self.evictions.note(sum(evicted))
        if not place:
            raise LogUnavailable("too much was recorded since to say", maybe_recorded=True)
        position = self._position(epoch, place)
        wire_id = message.id or self.epochs.id(position)
        if known:
            return read_entry(position, wire_id, known)
        return Record(position, wire_id, message)

    def read(self, after: int, limit: int) -> list[Record]:
        number = self.epochs.number(after)
        epoch, last, rows = self.link.run(READ, self._keys, _text(number), limit, READ_BYTES)
        if not epoch:  # wiped
            self.tail()
            raise PositionLost("epoch")
        self._enter(epoch)
        if after != self.epochs.position(number):
            raise PositionLost("epoch")
        if not rows and _number(last) != number:
            raise PositionLost("ahead" if number > _number(last) else "trimmed")
        if rows and _number(rows[0][2]) != number:
            raise PositionLost("trimmed")
        return [self.record(place, entry) for place, entry, _ in rows]

    def record(self, place: bytes, entry: bytes) -> Record:
        """Return the record of an entry of the current epoch."""
        position = self.epochs.position(_number(place))
        record = read_entry(position, self.epochs.id(position), entry)
        own_id = record.message.id
        return Record(position, own_id, record.message) if own_id else record

    def locate(self, id: str) -> int:
        epoch, _, digits = id.rpartition("-")
        is_ours = digits.isascii() and digits.isdigit() and len(digits) <= 40
        number = _text(min(int(digits), (1 << BITS) - 1)) if is_ours and epoch else ""
        self._check_if_due(float("inf"))
        values = (id, epoch, number, self._now())
        reason = b"again"
        while reason == b"again":  # there is more to trim than one step may take
            found, place, reason = self.link.run(LOCATE, self._keys, *values)
        if reason:
            raise PositionLost(reason.decode())
        return self._position(found, place)

    def tail(self) -> int:
        epoch, last = self._check()
        self._enter(epoch)
        return self.epochs.position(_number(last))

    def since(self, seconds: float | None) -> tuple[int, bool]:
        self._check_if_due(float("inf"))
        age = "" if seconds is None else f"{seconds * 1000:.0f}"
        found: bytes = b"again"
        while found == b"again":  # there is more to trim than one step may take
            epoch, found, is_whole = self.link.run(SINCE, self._keys, age, self._now())
        self._enter(epoch)
        return self.epochs.position(_number(found)), bool(is_whole)

    def before(self, position: int, limit: int) -> list[Record]:
        self._check_if_due(float("inf"))
        last = _text(self.epochs.number(position))
        rows = self.link.call(lambda client: client.xrevrange(self.stream, last, "-", limit))
        return [self.record(place, fields.get(b"e", b"")) for place, fields in reversed(rows)]

    def retained(self, interest: Interest) -> list[Record]:
        self._check_if_due(float("inf"))

        return self._kept.find(interest, self._now(), _number, self.record)

    def clear_retained(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        return self._kept.clear(tenant, target, addressee, event)

    def listen(self, listener: Listener, lost: Lost) -> Feed:
        after = self.tail()
        self._store_limits()
        self._feeds = [feed for feed in self._feeds if not feed.is_stopped]
        first = not self._feeds
        follower = _Follower(self, self.recent if first else None, after)
        feed = Feed(follower, after, listener, lost, follower.finish)
        self._feeds.append(feed)
        return feed

    def check_if_due(self) -> None:
        """Look at which server this is, now and then and after each lost connection.

        :raises PositionLost: the log is in another epoch than it was.
        """
        before = self.epochs.current
        self._check_if_due(CHECK_EVERY)
        if self.epochs.current != before:
            raise PositionLost("epoch")

    def saw(self, id: bytes) -> None:
        """Note an entry that is certainly in the log."""
        self._seen = (self.epochs.current, id.decode())

    def _check_if_due(self, every: float) -> None:
        age = time.monotonic() - self._checked
        if self._broke != self.link.broke or age > every or not self._checked:
            broke = self.link.broke
            self._enter(self._check()[0])
            self._broke = broke

    def _check(self) -> tuple[bytes, bytes]:
        """Have the epoch checked against what this process knows to be recorded."""
        values = (secrets.token_hex(6), *self._seen, self._now(), self._limits_text)
        epoch, last = self.link.run(CHECK, self._keys, *values)
        self._checked = time.monotonic()
        return epoch, last

    def _position(self, epoch: bytes, id: bytes) -> int:
        self._enter(epoch)
        if not self._seen[1] or _number(id) > _number(self._seen[1]):
            self.saw(id)
        return self.epochs.position(_number(id))

    def _enter(self, epoch: bytes) -> None:
        name = epoch.decode()
        if name != self.epochs.current:
            self.epochs.enter(name)
            self._seen = (name, "")

    def _store_limits(self) -> None:
        self.link.run(SET_LIMITS, self._keys, self._limits_text)

    def _now(self) -> str:
        """Return milliseconds for the scripts; empty: the server's own time, which all share."""
        return "" if isinstance(self._clock, SystemClock) else f"{self._clock.time() * 1000:.0f}"

    def close(self) -> None:
        if self._buffer is not None:
            self._buffer.flush(2.0)
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.stop()
        self.link.close()


class _Follower:
    """What a feed asks of one life, over a connection of its own."""

    def __init__(self, life: _Life, recent: Recent | None, after: int) -> None:
        self._life = life
        self._recent = recent
        self._began = 0 if recent is None else recent.begin(after)
        self._client: Any = None

    def follow(self, after: int) -> Sequence[Record]:
        life = self._life
        life.check_if_due()
        number = life.epochs.number(after)
        if self._client is None:
            self._client = life.link.waiting_client(BLOCK)
        rows = self._wait(number)
        records = []
        for place, fields in rows:
            if fields.get(b"c", b"").decode() != life.epochs.current:
                life.tail()
                raise PositionLost("epoch")
            if _number(fields.get(b"p", b"0-0")) != number:
                raise PositionLost("trimmed")
            number = _number(place)
            records.append(life.record(place, fields.get(b"e", b"")))
        if rows:
            life.saw(rows[-1][0])
        if self._recent is not None:
            for record in records:
                self._recent.add(record)
        return records

    def _wait(self, number: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        stream, client = self._life.stream, self._client
        try:
            found = client.xread({stream: _text(number)}, READ_RECORDS, int(BLOCK * 1000))
        except Exception as err:
            self._hang_up()
            raise self._life.link.unavailable(err) from err
        return found[0][1] if found else []

    def tail(self) -> int:
        position = self._life.tail()
        if self._recent is not None:
            self._began = self._recent.begin(position)
        return position

    def interrupt(self) -> None:
        client = self._client
        pool = getattr(client, "connection_pool", None)
        if pool is not None:
            pool.disconnect(inuse_connections=True)

    def finish(self) -> None:
        if self._recent is not None:
            self._recent.end(self._began)
        self._hang_up()

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _number(id: bytes | str) -> int:
    """Return a stream id as one integer."""
    text = id if isinstance(id, str) else id.decode()
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds) << SEQUENCE | int(sequence)


def _text(number: int) -> str:
    """Return an integer as a stream id."""
    return f"{number >> SEQUENCE}-{number & ((1 << SEQUENCE) - 1)}"


def _text_of(limits: LogLimits) -> str:
    """Return limits as the scripts have them: milliseconds and bytes, parted by colons."""
    window, window_bytes, size, ttl, *rest = astuple(limits)
    counts = ":".join(str(number) for number in rest)
    return f"{window * 1000:.0f}:{window_bytes}:{size}:{ttl * 1000:.0f}:{counts}"
