"""``memory://``: the log of one process.

Nothing is written anywhere: what it holds ends with the process, and a forked
child starts with an empty log of its own epoch, so that an id from one process
is never mistaken for a place in another's.

Lock map
    _lock     guards one life's records and indexes; native; held for O(1) work,
              or O(n) for the n records that a read returns
    _turn     held while listeners are called, so that they see the log's order;
              taken before _lock, never inside it; under gevent nobody blocks for
              it, because a listener that logs may switch greenlets
"""

from __future__ import annotations

import bisect
import collections
import math
import secrets
from _thread import get_ident
from collections.abc import Callable, Sequence

from sse_broker.core.forks import process_id
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
    everything,
)
from sse_broker.core.roster import MemoryRoster
from sse_broker.core.sync import native_lock
from sse_broker.errors import InvalidConfig
from sse_broker.logs.cipher import LocalCipher, new_key
from sse_broker.logs.entries import readable, same
from sse_broker.logs.retained import Evictions, Shelf, tenant_key
from sse_broker.logs.waits import Deadline, take
from sse_broker.wire.command import Command
from sse_broker.wire.message import AllTenants, Message, Target
from sse_broker.wire.scope import scope_of

__all__ = ["MemoryLog", "from_url"]


class MemoryLog:
    """A log in this process's memory.  Appending calls the listeners directly."""

    url = "memory://"
    shared = False

    def __init__(self, limits: LogLimits | None = None, clock: Clock | None = None) -> None:
        self._limits = limits or LogLimits()
        self._clock: Clock = clock or SystemClock()
        self._lives: dict[int, _Life] = {}

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""
        self._limits, self._clock = limits, clock

    def append(self, message: Message | Command) -> Record:
        """See :class:`~sse_broker.core.ports.Log`.  Calls the listeners; waits for no reader."""
        life = self._here()
        record = life.append(message, self._limits, self._clock.monotonic())
        life.hand_out()
        return record

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""
        self.roster.revoke(token_id, until)
        self.append(command)

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().read(after, limit)

    def locate(
        self, id: str, wants: Wants = everything, scopes: Callable[[], Sequence[str]] = tuple
    ) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        del scopes  # all are looked at
        life = self._here()
        life.trim(self._limits, self._clock.monotonic())
        return life.locate(id, wants)

    def since(self, seconds: float | None) -> tuple[int, bool]:
        """See :class:`~sse_broker.core.ports.Log`."""
        life, now = self._here(), self._clock.monotonic()
        life.trim(self._limits, now)
        return life.since(None if seconds is None else now - seconds)

    def before(self, position: int, limit: int) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().before(position, limit)

    def cursor(self, position: int) -> str:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().id(position)

    def tail(self) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().tail

    @property
    def roster(self) -> MemoryRoster:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().roster

    def retained(self, interest: Interest) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().retained(interest, self._clock.monotonic())

    def clear_retained(
        self, tenant: str | AllTenants | None, target: Target, addressee: str, event: str | None
    ) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().clear_retained(tenant_key(tenant), target, addressee, event)

    def listen(self, listener: Listener, lost: Lost) -> _Following:
        """See :class:`~sse_broker.core.ports.Log`.  Nothing is ever lost here."""
        del lost
        return self._here().listen(listener)

    def close(self) -> None:
        """Keep everything: there is nothing to let go of."""

    def _here(self) -> _Life:
        pid = process_id()
        life = self._lives.get(pid)
        if (
            life is None
        ):  # setdefault is one step, and the lock it might need could be stuck in a fork
            life = self._lives.setdefault(pid, _Life(MemoryRoster(self._clock)))
        return life


class _Following:
    """A listener in the list of one life."""

    is_healthy = True

    def __init__(self, life: _Life, listener: Listener, start: int) -> None:
        self._life, self._listener, self.start = life, listener, start

    def restart(self) -> None:
        """There is nothing that could die."""

    def stop(self) -> None:
        life = self._life
        life.listeners = tuple(one for one in life.listeners if one is not self._listener)


class _Life:
    """The log of one process id."""

    def __init__(self, roster: MemoryRoster) -> None:
        self.roster = roster
        self.epoch = secrets.token_hex(6)
        self._cipher = LocalCipher(new_key())
        self._seal = self._cipher.seal
        self.tail = 0
        self.listeners: tuple[Listener, ...] = ()
        self._lock = native_lock()
        self._turn = native_lock()
        self._turn_of = 0  # the thread that has it
        # A list with a cleared front, and not a deque: a read near the end must not
        # walk there from either side.
        self._records: list[tuple[Record, float] | None] = []
        self._gone = 0
        self._gone_at: float | None = None  # when the newest that is gone was born
        self._bytes = 0
        self._own_ids: dict[str, dict[str, Record]] = {}  # own id: {scope: record}
        self._waiting: collections.deque[Record] = collections.deque()
        self._shelf = Shelf()
        self.evictions = Evictions()

    def id(self, position: int) -> str:
        """Return the wire id of a position."""
        return f"{self.epoch}-{self._seal(position)}"

    def append(self, message: Message | Command, limits: LogLimits, now: float) -> Record:
        own_id = message.id
        scope = scope_of(message) if own_id and isinstance(message, Message) else ""
        with self._lock:
            if own_id:
                self._trim_locked(limits, now)  # an id is forgotten by age too
                known = self._own_ids.setdefault(own_id, {}).get(scope)
                if known is not None:
                    return same(known, message)
            position = self.tail + 1
            record = Record(position, own_id or f"{self.epoch}-{self._seal(position)}", message)
            if own_id:
                self._own_ids[own_id][scope] = record
            self._records.append((record, now))
            self._bytes += len(record.frame)
            self._waiting.append(record)
            self.tail = position
            self._trim_locked(limits, now)
            evicted = 0
            if type(message) is Message and message.retain:
                evicted = self._shelf.put(record, message, now, limits)
        if evicted:
            self.evictions.note(evicted)
        return record

    def retained(self, interest: Interest, now: float) -> list[Record]:
        with self._lock:
            return self._shelf.find(interest, now)

    def clear_retained(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        with self._lock:
            return self._shelf.clear(tenant, target, addressee, event)

    def listen(self, listener: Listener) -> _Following:
        take(self._turn, Deadline(math.inf))
        try:
            with self._lock:
                self.listeners = (*self.listeners, listener)
                waiting = self._waiting[0].position - 1 if self._waiting else self.tail
                return _Following(self, listener, waiting)
        finally:
            self._turn.release()

    def hand_out(self) -> None:
        """Call the listeners with what waits, in order; the caller's own record is then out.

        Unless a listener is the caller (it logs, and a handler of the log sends): then soon.
        """
        me = get_ident()
        if self._turn_of == me:
            return
        if not self._turn.acquire(False):
            take(self._turn, Deadline(math.inf))
        self._turn_of = me
        try:
            while self._waiting:
                record = self._waiting.popleft()
                for listener in self.listeners:
                    listener(record)
        finally:
            self._turn_of = 0
            self._turn.release()

    def read(self, after: int, limit: int) -> list[Record]:
        with self._lock:
            before = self._before_first_locked()
            if after < before:
                raise PositionLost("trimmed")
            skip = self._gone + after - before
            return [kept[0] for kept in self._records[skip : skip + limit] if kept]

    def locate(self, id: str, wants: Wants) -> int:
        with self._lock:
            owners = list(self._own_ids.get(id, {}).values())
        position = readable(owners, wants)
        if position is not None:
            return position
        epoch, dash, token = id.partition("-")
        if not dash or len(epoch) != len(self.epoch):
            raise PositionLost("unknown" if id else "malformed")
        if epoch != self.epoch:
            raise PositionLost("epoch")
        position = self._cipher.open(token)
        if position is None:
            raise PositionLost("unknown")
        with self._lock:
            if position > self.tail:
                raise PositionLost("ahead")
            if position < self._before_first_locked():
                raise PositionLost("trimmed")
        return position

    def since(self, born: float | None) -> tuple[int, bool]:
        """Return the position before the first record that was born then or later."""
        with self._lock:
            before = self._before_first_locked()
            if born is None:
                return before, self._gone_at is None
            kept = self._records
            index = bisect.bisect_left(
                kept, born, lo=self._gone, key=lambda one: one[1] if one else born
            )
            is_whole = self._gone_at is None or self._gone_at < born
            return before + index - self._gone, is_whole

    def before(self, position: int, limit: int) -> list[Record]:
        with self._lock:
            end = self._gone + position - self._before_first_locked()
            kept = self._records[max(self._gone, end - limit) : max(self._gone, end)]
            return [one[0] for one in kept if one]

    def trim(self, limits: LogLimits, now: float) -> None:
        with self._lock:
            self._trim_locked(limits, now)

    def _before_first_locked(self) -> int:
        return self.tail - (len(self._records) - self._gone)

    def _trim_locked(self, limits: LogLimits, now: float) -> None:
        records = self._records
        while self._gone < len(records):
            oldest = records[self._gone]
            assert oldest is not None
            record, born = oldest
            if limits.keeps(now - born, len(records) - self._gone, self._bytes):
                break
            records[self._gone] = None
            self._gone += 1
            self._bytes -= len(record.frame)
            self._gone_at = born
            if record.message.id:
                self._forget_locked(record)
        if self._gone > 256 and self._gone * 2 > len(records):
            del records[: self._gone]
            self._gone = 0

    def _forget_locked(self, record: Record) -> None:
        owners, message = self._own_ids[record.id], record.message
        assert isinstance(message, Message)
        del owners[scope_of(message)]
        if not owners:
            del self._own_ids[record.id]


def from_url(url: str) -> MemoryLog:
    """Return a log of its own; there is nothing to say in the URL.

    :raises InvalidConfig: *url* says something.
    """
    if url != "memory://":
        raise InvalidConfig(
            "the URL of the log says more than memory://, which has no options", field="log"
        )
    return MemoryLog()
