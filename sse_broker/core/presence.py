"""One process's reports to the roster, and the signals that come of them.

A user's entry here: online ──last stream gone──▶ away ──grace over──▶ gone
                        ▲───────────── back ───────┘

A process that stops leaves its users away for the grace and takes none with
it: those who land on another process meanwhile have never been offline.

Lock map
    _lock     guards what is to be reported; native; O(1) work, never across a report
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from sse_broker.core import signals
from sse_broker.core.members import member_of
from sse_broker.core.ports import Census, Roster
from sse_broker.core.sync import native_lock
from sse_broker.errors import LogUnavailable

__all__ = ["LIFETIME", "REPORT_EVERY", "Presence"]

REPORT_EVERY = 5.0  # seconds between reports of a process with nothing new
COUNT_EVERY = 1.0  # seconds between reports where only the number of streams is new
LOOK_EVERY = 1.0  # seconds between two looks at all users of other processes
LIFETIME = 15.0  # seconds after its last report until a process counts as dead


class Presence:
    """What the roster is told of one process.

    *online* says whether a user has a stream here, *users* which ones have (users of
    tenants, each one word: :mod:`sse_broker.core.members`), and *clients* how many
    streams there are.
    """

    def __init__(
        self,
        owner: object,
        roster: Roster,
        grace: float,
        online: Callable[[str], bool],
        users: Callable[[], Iterable[str]],
        clients: Callable[[], int],
    ) -> None:
        self.process = f"{os.getpid()}-{secrets.token_hex(6)}"
        self.census = Census()
        self._owner = owner
        self._roster = roster
        self._grace = grace
        self._online = online
        self._users = users
        self._clients = clients
        self._lock = native_lock()
        self._changed: dict[str, None] = {}
        self._away: dict[str, float] = {}  # user: when the grace is over
        self._whole = True  # whether the next report is of everybody
        self._next = self._not_before = 0.0
        self._looked_at, self._elsewhere = float("-inf"), set[str]()
        self._said = 0  # how many streams the last report said
        self.nudge: Callable[[], None] = lambda: None

    def change(self, user: str) -> None:
        """Say that a user's first stream has come or its last one has gone.  Never waits."""
        with self._lock:
            self._changed[user] = None
        self.nudge()

    def report(self, now: float) -> None:
        """Tell the roster what is new, if anything is, or if a report is due.

        Called on the reaper's thread; fires ``user_online`` and ``user_offline``.
        """
        if now < self._not_before:
            return
        whole, changes = self._whole, self._collect(now)
        clients = self._clients()
        moved = clients != self._said and now >= self._next - REPORT_EVERY + COUNT_EVERY
        if not changes and not moved and now < self._next:
            return
        self._next, self._said = now + REPORT_EVERY, clients
        try:
            answer = self._roster.sync(self.process, clients, changes, LIFETIME)
        except LogUnavailable:
            self._whole = True  # all of it is said again when the log is back
            self._not_before = now + REPORT_EVERY
            for user in [user for user, state in changes.items() if state is None]:
                self._away[user] = now
            raise
        self.census = answer.census
        self._whole = not answer.known and not whole
        if self._whole:
            self._next = now
        self._say(signals.user_online, answer.came)
        self._say(signals.user_offline, answer.left)

    def leave(self) -> None:
        """Leave the roster, as :meth:`Broker.stop` does; who was here is away for the grace."""
        with self._lock:
            users = {**self._away, **dict.fromkeys(self._changed), **dict.fromkeys(self._users())}
            self._away.clear()
            self._changed.clear()
        self._whole = True
        away: dict[str, Any] = dict.fromkeys(users, False)
        self._roster.sync(self.process, 0, away, self._grace)

    def _collect(self, now: float) -> dict[str, bool | None]:
        with self._lock:
            changed, self._changed = self._changed, {}
        if self._whole:
            changed.update(dict.fromkeys(self._users()))
            changed.update(dict.fromkeys(self._away))
        changes: dict[str, bool | None] = {}
        for user in changed:
            changes[user] = self._online(user)
            if changes[user]:
                self._away.pop(user, None)
            else:
                self._away.setdefault(user, now + self._grace)
        for user in [user for user, end in self._away.items() if end <= now]:
            del self._away[user]
            changes[user] = None
        return changes

    def _say(self, signal: Any, members: Iterable[str]) -> None:
        for key in members:
            tenant, user = member_of(key)
            facts = {} if tenant is None else {"tenant_id": tenant}
            signals.fire(signal, self._owner, user_id=user, **facts)

    def elsewhere(self, now: float) -> set[str]:
        """Return the members with a stream in another process, as it was within a second.

        :raises LogUnavailable: nobody can say now.
        """
        if now - self._looked_at >= LOOK_EVERY:
            self._elsewhere, self._looked_at = self._roster.online(self.process), now
        return self._elsewhere
