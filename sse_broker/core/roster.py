"""The roster of a log that one process has for itself.

Lock map
    _lock     guards the entries and the revoked tokens; native; O(1) work, or
              O(n) for the n users that a call is about
"""

from __future__ import annotations

from collections.abc import Mapping

from sse_broker.core.ports import Census, Clock, RosterSync
from sse_broker.core.sync import native_lock

__all__ = ["SILENCE", "MemoryRoster", "unheard"]

SILENCE = 6.0  # seconds; a process that can report does so each 5


def unheard(now: float, heard: float) -> float:
    """Return the seconds by which all lives are moved: time in which no process was heard.

    Nobody can be said to have died in it: the log was away, the machine slept, or
    its clock jumped, perhaps back.  *heard* is when any process last reported.
    """
    return now - heard if heard and not 0 <= now - heard <= SILENCE else 0.0


class MemoryRoster:
    """Who is online, in memory.  Several brokers of one process may share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = native_lock()
        self._processes: dict[str, tuple[float, int]] = {}  # name: (until, clients)
        self._users: dict[str, dict[str, bool]] = {}  # user: {process: online}
        self._online = 0  # users who are online in any of the processes
        self._revoked: dict[str, float] = {}
        self._heard = 0.0  # when any process last reported
        self._kept: dict[str, tuple[str, float]] = {}  # name: (value, until)
        self._tidy_at = 100  # entries, when those that are over are looked for

    def sync(
        self, process: str, clients: int, users: Mapping[str, bool | None], ttl: float
    ) -> RosterSync:
        """See :class:`~sse_broker.core.ports.Roster`."""
        now = self._clock.time()
        came, left = [], []
        with self._lock:
            silence, self._heard = unheard(now, self._heard), now
            if silence:
                for name, (until, count) in self._processes.items():
                    self._processes[name] = (until + silence, count)
            known = process in self._processes
            self._processes[process] = (now + ttl, clients)
            for dead in [name for name, (until, _) in self._processes.items() if until < now]:
                del self._processes[dead]
                left += [user for user in list(self._users) if self._remove_locked(user, dead)]
            for user, online in users.items():
                if online is None:
                    if self._remove_locked(user, process):
                        left.append(user)
                    continue
                if user not in self._users:
                    came.append(user)
                self._set_locked(user, process, online)
            return RosterSync(came, left, known, self._census_locked())

    def is_online(self, user_id: str, but: str = "") -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        with self._lock:
            return self._is_online_locked(user_id, but)

    def online(self, but: str = "") -> set[str]:
        """See :class:`~sse_broker.core.ports.Roster`."""
        with self._lock:
            return {user for user in self._users if self._is_online_locked(user, but)}

    def census(self) -> Census:
        """See :class:`~sse_broker.core.ports.Roster`."""
        with self._lock:
            return self._census_locked()

    def revoke(self, token_id: str, until: float) -> None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        now = self._clock.time()
        with self._lock:
            self._revoked = {token: end for token, end in self._revoked.items() if end > now}
            self._revoked[token_id] = max(until, self._revoked.get(token_id, 0.0))

    def keep(self, name: str, value: str, until: float) -> str:
        """See :class:`~sse_broker.core.ports.Roster`."""
        now = self._clock.time()
        with self._lock:
            if len(self._kept) >= self._tidy_at or self._is_over_locked(name, now):
                self._kept = {one: kept for one, kept in self._kept.items() if kept[1] > now}
                self._tidy_at = 100 + 2 * len(self._kept)
            return self._kept.setdefault(name, (value, until))[0]

    def _is_over_locked(self, name: str, now: float) -> bool:
        return name in self._kept and self._kept[name][1] <= now

    def kept(self, name: str) -> str | None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        with self._lock:
            value, until = self._kept.get(name, (None, 0.0))
        return value if until > self._clock.time() else None

    def is_revoked(self, token_id: str) -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        with self._lock:
            return self._revoked.get(token_id, 0.0) > self._clock.time()

    def _set_locked(self, user: str, process: str, online: bool) -> None:
        entries = self._users.setdefault(user, {})
        before = any(entries.values())
        entries[process] = online
        self._online += any(entries.values()) - before

    def _remove_locked(self, user: str, process: str) -> bool:
        """Take one entry out; say whether it was the user's last."""
        entries = self._users.get(user)
        if entries is None or process not in entries:
            return False
        before = any(entries.values())
        del entries[process]
        self._online += any(entries.values()) - before
        if entries:
            return False
        del self._users[user]
        return True

    def _live_locked(self) -> dict[str, int]:
        now = self._clock.time()
        return {name: clients for name, (until, clients) in self._processes.items() if until >= now}

    def _is_online_locked(self, user: str, but: str) -> bool:
        live = self._live_locked()
        entries = self._users.get(user, {})
        return any(entries[name] for name in entries if name != but and name in live)

    def _census_locked(self) -> Census:
        live = self._live_locked()
        if len(live) == len(self._processes):
            users = self._online  # a report asks for it, and in a storm they come 20 times a second
        else:
            users = sum(any(e[name] for name in e if name in live) for e in self._users.values())
        return Census(len(live), sum(live.values()), users)
