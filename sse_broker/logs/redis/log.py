"""The log of several machines, in one Redis stream.

One connection per process waits for what is new (XREAD from the last position,
never from ``$``); a small pool records and replays.  Continuity is proved by
what is read: each entry names the one before it, and the epoch.

Redis away: ``append`` tries for about half the URL's ``timeout`` and then raises
LogUnavailable, or keeps the message here if the URL has a ``buffer``.  The feed
connects again, for as long as it takes, and goes on where it was.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
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
    Wants,
)
from sse_broker.errors import LogUnavailable
from sse_broker.logs.cipher import new_key
from sse_broker.logs.entries import MOST_SCOPES, read_entry, readable, same, up_to_unreadable
from sse_broker.logs.epochs import Epochs
from sse_broker.logs.feed import Feed
from sse_broker.logs.pages import Pages
from sse_broker.logs.recent import Recent
from sse_broker.logs.redis.buffer import Buffer
from sse_broker.logs.redis.link import Link
from sse_broker.logs.redis.migrate import from_1
from sse_broker.logs.redis.retained import RedisRetained, asked
from sse_broker.logs.redis.roster import RedisRoster
from sse_broker.logs.redis.scripts import (
    APPEND,
    CHECK,
    LOCATE,
    OWNERS,
    READ,
    SET_LIMITS,
    SINCE,
)
from sse_broker.logs.redis.server import Options, connector, parse
from sse_broker.logs.retained import Evictions
from sse_broker.logs.shared import SharedLog
from sse_broker.wire.command import Command
from sse_broker.wire.envelope import pack
from sse_broker.wire.message import Message
from sse_broker.wire.scope import scope_of

__all__ = ["RedisLog"]

BITS = 80  # of a stream id: 48 of milliseconds, 32 of sequence
SEQUENCE = 32
GAP_BITS = 16  # of the random part of a sequence
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
        self._keys = (self.stream, options.key("meta"), options.key("own"))
        self._old_ids = options.key("ids")  # of the first release
        self._limits_text, self._clock = _text_of(limits), clock
        self._kept, self.evictions = RedisRetained(self.link, options), Evictions()
        self._feeds: list[Feed] = []
        self._gap = random.Random()  # of its own: what the application seeds must not repeat
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

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        self.roster.revoke(token_id, until)
        self.append(command)

    def _record(self, message: Message | Command) -> Record:
        entry, key, retain = pack(message), secrets.token_hex(8), asked(message)
        scope = scope_of(message) if message.id and isinstance(message, Message) else ""
        gap, keys = self._gap.getrandbits(GAP_BITS), self._keys + self._kept.keys
        since = ""

        def attempt(again: bool) -> Any:
            nonlocal since
            self._check_if_due(float("inf"))
            since = since or self._seen[1] or "0-0"
            now = self._now()
            more = (since if again else "", now) if again or now else ()
            while True:
                asked_in = self.epochs.count
                values = (entry, message.id, scope, key, gap, retain, *more)
                answer = self.link.run(APPEND, keys, *values)
                if answer[0]:
                    return (asked_in, *answer)
                self.check()  # wiped or damaged: somebody has to begin an epoch

        asked_in, epoch, place, known, *evicted = self.link.insist(attempt)
        self.evictions.note(sum(evicted))
        if not place:
            raise LogUnavailable("too much was recorded since to say", maybe_recorded=True)
        position = self._position(epoch, place, asked_in)
        if known:
            return same(read_entry(position, self.epochs.id, known), message)
        return Record(position, message.id or self.epochs.id(position), message)

    def read(self, after: int, limit: int) -> list[Record]:
        number, asked_in = self.number(after), self.epochs.count
        epoch, last, rows = self.link.run(READ, self._keys, _text(number), limit, READ_BYTES)
        if not epoch:  # wiped
            raise self.lost()
        self._enter(epoch, asked_in)
        if self.epochs.count != asked_in:
            raise self.lost()
        if not rows and _number(last) != number:
            raise PositionLost("ahead" if number > _number(last) else "trimmed")
        if rows and _number(rows[0][2]) != number:
            raise PositionLost("trimmed")
        return up_to_unreadable([self.record(place, entry) for place, entry, _ in rows])

    def number(self, position: int) -> int:
        """Return the number of a position of the current epoch.

        :raises PositionLost: it is of an epoch before.
        """
        try:
            return self.epochs.number(position)
        except PositionLost:
            raise self.lost() from None

    def lost(self) -> PositionLost:
        """Return what tells a reader of an epoch before that it goes on where this one began."""
        return PositionLost("epoch", goes_on=self.epochs.position(_number(self.check()[1])))

    def record(self, place: bytes, entry: bytes) -> Record:
        """Return the record of an entry of the current epoch."""
        return read_entry(self.epochs.position(_number(place)), self.epochs.id, entry)

    def locate(self, id: str, wants: Wants, scopes: Callable[[], Sequence[str]]) -> int:
        self._check_if_due(float("inf"))
        try:
            number = self.epochs.parse(id)
        except PositionLost:
            owned = readable(self._owners(id, scopes), wants)
            if owned is None:
                raise
            number = self.epochs.number(owned)
        epoch, asked_in = self.epochs.current, self.epochs.count
        reason = b"again"
        while reason == b"again":  # there is more to trim than one step may take
            values = (epoch, _text(number), self._now())
            found, place, reason = self.link.run(LOCATE, self._keys, *values)
        if reason:
            raise PositionLost(reason.decode())
        return self._position(found, place, asked_in)

    def _owners(self, id: str, scopes: Callable[[], Sequence[str]]) -> list[Record]:
        """Return the records with an own id: of the current epoch, some, and those of scopes."""
        rows = self.link.run(OWNERS, self._keys, id, MOST_SCOPES)
        if len(rows) >= MOST_SCOPES:
            rows += self.link.run(OWNERS, self._keys, id, 0, *scopes())
        found = {
            place: entry for place, entry, epoch in rows if epoch.decode() == self.epochs.current
        }
        return [self.record(place, entry) for place, entry in found.items()]

    def tail(self) -> int:
        epoch, _, last = self.check()
        return self.epochs.position(_number(last), epoch)

    def since(self, seconds: float | None) -> tuple[int, bool]:
        self._check_if_due(float("inf"))
        age = "" if seconds is None else f"{seconds * 1000:.0f}"
        found, asked_in = b"again", self.epochs.count
        while found == b"again":  # there is more to trim than one step may take
            epoch, found, is_whole = self.link.run(SINCE, self._keys, age, self._now())
        self._enter(epoch, asked_in)
        return self.epochs.position(_number(found), epoch.decode()), bool(is_whole)

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
        before = self.epochs.count
        self._check_if_due(CHECK_EVERY)
        if self.epochs.count != before:
            raise self.lost()

    def saw(self, id: bytes) -> None:
        """Note an entry that is certainly in the log."""
        self._seen = (self.epochs.current, id.decode())

    def _check_if_due(self, every: float) -> None:
        age = time.monotonic() - self._checked
        if self._broke != self.link.broke or age > every or not self._checked:
            broke = self.link.broke
            self.check()
            self._broke = broke

    def check(self) -> tuple[str, bytes, bytes]:
        """Have the epoch checked against what this process knows to be recorded.

        Returns the epoch, where it began, and the newest id.
        """
        asked_in, fresh = self.epochs.count, (secrets.token_hex(6), new_key().hex())
        values = (fresh[0], *self._seen, self._now(), self._limits_text, fresh[1])
        epoch, start, last, key, old = self.link.run(CHECK, self._keys, *values)
        if old:
            self.link.call(lambda client: from_1(client, self._keys, self._old_ids))
        self._checked = time.monotonic()
        name, before = epoch.decode(), self.epochs.count
        self.epochs.enter(name, bytes.fromhex(key.decode()), asked_in)
        if self.epochs.count != before:
            self._seen = (name, "")
        return name, start, last

    def _position(self, epoch: bytes, id: bytes, asked_in: int) -> int:
        self._enter(epoch, asked_in)
        if epoch.decode() == self.epochs.current and (
            not self._seen[1] or _number(id) > _number(self._seen[1])
        ):
            self.saw(id)
        return self.epochs.position(_number(id), epoch.decode())

    def _enter(self, epoch: bytes, asked_in: int) -> None:
        """Have an epoch known that the log said when this process knew of so many."""
        if epoch.decode() != self.epochs.current and self.epochs.count == asked_in:
            self.check()  # which returns its key too

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
        self._passed = 0  # the newest entry that is none of ours

    def follow(self, after: int) -> Sequence[Record]:
        life = self._life
        life.check_if_due()
        number = life.number(after)
        if self._client is None:
            self._client = life.link.waiting_client(BLOCK)
        rows = self._wait(max(number, self._passed))
        records, current = [], life.epochs.current.encode()
        for place, fields in rows:
            before = _number(fields.get(b"p", b""))
            if fields.get(b"c") != current or b"e" not in fields or before < 0:
                life.check()  # of another epoch, or somebody else's
                if life.epochs.current.encode() != current:
                    raise life.lost()
                self._passed = _number(place)
                continue
            if before != number:
                raise PositionLost("trimmed")
            number = _number(place)
            records.append(life.record(place, fields[b"e"]))
            life.saw(place)
        records = up_to_unreadable(records)
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

    def begin(self, after: int | None) -> int:
        position = self._life.tail() if after is None else after
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
    """Return a stream id as one integer; -1 is none."""
    text = id if isinstance(id, str) else id.decode("ascii", "replace")
    milliseconds, _, sequence = text.partition("-")
    if not (milliseconds.isdigit() and sequence.isdigit()):
        return -1
    return int(milliseconds) << SEQUENCE | int(sequence)


def _text(number: int) -> str:
    """Return an integer as a stream id."""
    return f"{number >> SEQUENCE}-{number & ((1 << SEQUENCE) - 1)}"


def _text_of(limits: LogLimits) -> str:
    """Return limits as the scripts have them: milliseconds and bytes, parted by colons."""
    window, window_bytes, size, ttl, *rest = astuple(limits)
    counts = ":".join(str(number) for number in rest)
    return f"{window * 1000:.0f}:{window_bytes}:{size}:{ttl * 1000:.0f}:{counts}"
