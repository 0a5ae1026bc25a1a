"""Retained messages: the newest of each tenant, addressee and event, beyond the history.

Every log keeps them under the same keys.  What is too many or too large for the
limits goes oldest first, is counted, and is said in the log.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

from sse_broker.core.ports import Interest, LogLimits, Record
from sse_broker.wire.message import ALL_TENANTS, Message, Target
from sse_broker.wire.topics import matches

__all__ = ["Decoded", "Evictions", "Key", "Shelf", "keys_of", "tenant_key", "wanted"]

LOG_EVERY = 60.0
CACHED_BYTES = 4 * 1024 * 1024

_log = logging.getLogger("sse_broker.logs")


class Key(NamedTuple):
    """Whose state a message is.  The tenant is as :func:`tenant_key` writes it."""

    tenant: str
    target: str
    addressee: str
    event: str


def tenant_key(tenant: object) -> str:
    """Return a tenant as one string: ``""`` is none, ``"*"`` all, ``"=t"`` the tenant *t*."""
    if tenant is ALL_TENANTS:
        return "*"
    return "" if tenant is None else f"={tenant}"


def keys_of(message: Message) -> list[Key]:
    """Return the keys that a message is retained under: one for each of its topics."""
    tenant = tenant_key(message.tenant_id)
    if message.target is Target.USER:
        return [Key(tenant, "user", str(message.user_id), message.event)]
    return [Key(tenant, "topic", topic, message.event) for topic in message.topics]


def tenants_of(interest: Interest, target: str) -> tuple[str, ...]:
    """Return the tenants whose messages to a user, or to topics, a client may be for."""
    mine = tenant_key(interest.tenant_id)
    # A user's message without a tenant reaches the user in whatever tenant.
    return tuple(dict.fromkeys((mine, "*", "") if target == "user" else (mine, "*")))


def wanted(interest: Interest, addressee: str) -> bool:
    """Whether a topic, by its name, is one that a client reads."""
    return addressee in interest.names or any(
        matches(pattern, addressee) for pattern in interest.patterns
    )


class Evictions:
    """Counts what had to go for want of room, and says so at most once a minute."""

    def __init__(self) -> None:
        self.count = 0
        self._said = -LOG_EVERY

    def note(self, count: int) -> None:
        """Count some.  Called with no lock held."""
        self.count += count
        now = time.monotonic()
        if count and now - self._said >= LOG_EVERY:
            self._said = now
            _log.warning(
                "%d retained messages were let go, oldest first, %d in all so far: there are more"
                " than retained_size, or they have more than retained_bytes",
                count,
                self.count,
            )


class Decoded:
    """Retained records by the log's own numbers, so that each is decoded once per process.

    Any thread; a race costs a second decoding.
    """

    def __init__(self) -> None:
        self._records: collections.OrderedDict[int, Record] = collections.OrderedDict()
        self._bytes = 0

    def get(self, number: int) -> Record | None:
        """Return a record if it is here."""
        return self._records.get(number)

    def put(self, number: int, record: Record) -> None:
        """Take a record; those that came first go if there is no room."""
        if self._records.setdefault(number, record) is record:
            self._bytes += len(record.frame)
        while self._bytes > CACHED_BYTES:
            try:
                _, old = self._records.popitem(last=False)
            except KeyError:  # another thread was faster
                return
            self._bytes -= len(old.frame)


class _Kept(NamedTuple):
    record: Record
    until: float  # on the log's clock; infinity is for ever


class Shelf:
    """The retained messages of a log in memory.  The caller holds its lock."""

    def __init__(self) -> None:
        self._kept: dict[Key, _Kept] = {}  # oldest first
        self._of: dict[tuple[str, str, str], dict[Key, None]] = {}  # by tenant, target, addressee
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, record: Record, message: Message, now: float, limits: LogLimits) -> int:
        """Keep a record in place of what was under its keys; return how many others had to go."""
        until = float("inf") if message.retain_for is None else now + message.retain_for
        for key in keys_of(message):
            self._drop(key)
            self._kept[key] = _Kept(record, until)
            self._of.setdefault(key[:3], {})[key] = None
            self.bytes += len(record.frame)
        if not self._is_over(limits):
            return 0
        for key in [key for key, kept in self._kept.items() if kept.until <= now]:
            self._drop(key)
        evicted = 0
        while self._is_over(limits) and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
            evicted += 1
        return evicted

    def _is_over(self, limits: LogLimits) -> bool:
        return len(self._kept) > limits.retained_size or self.bytes > limits.retained_bytes

    def clear(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        """Drop what is kept for an addressee, of one event or of all; return how many."""
        keys = [
            key
            for key in self._of.get((tenant, target, addressee), ())
            if event is None or key.event == event
        ]
        for key in keys:
            self._drop(key)
        return len(keys)

    def find(self, interest: Interest, now: float) -> list[Record]:
        """Return what a client may be for, each record once, oldest first."""
        found: dict[int, Record] = {}
        for whose in self._addressees(interest):
            for key in self._of.get(whose, ()):
                kept = self._kept[key]
                if kept.until > now:
                    found[kept.record.position] = kept.record
        return [found[position] for position in sorted(found)]

    def _addressees(self, interest: Interest) -> Iterator[tuple[str, str, str]]:
        for tenant in tenants_of(interest, "user"):
            yield tenant, "user", interest.user_id
        tenants = tenants_of(interest, "topic")
        if interest.patterns:
            yield from (
                whose
                for whose in self._of
                if whose[1] == "topic" and whose[0] in tenants and wanted(interest, whose[2])
            )
            return
        for tenant in tenants:
            yield from ((tenant, "topic", name) for name in interest.names)

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept.record.frame)
            keys = self._of[key[:3]]
            del keys[key]
            if not keys:
                del self._of[key[:3]]
