"""Who is online over all processes that share a Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sse_broker.core.ports import Census, RosterSync
from sse_broker.core.roster import SILENCE
from sse_broker.logs.redis.link import Link
from sse_broker.logs.redis.scripts import ROSTER, TIME
from sse_broker.logs.redis.server import Options

__all__ = ["RedisRoster"]

_STATES = {True: "1", False: "0", None: "-"}


class RedisRoster:
    """The roster beside a Redis log.  *now* returns milliseconds; ``""`` is the server's time."""

    def __init__(self, link: Link, options: Options, now: Callable[[], str]) -> None:
        self._link = link
        self._now = now
        self._presence, self._processes = options.key("presence"), options.key("processes")
        self._online = options.key("online")
        self._revoked, self._meta = options.key("revoked"), options.key("meta")
        self._kept = options.key("kept")

    def sync(
        self, process: str, clients: int, users: Mapping[str, bool | None], ttl: float
    ) -> RosterSync:
        """See :class:`~sse_broker.core.ports.Roster`."""
        changes = [text for user, state in users.items() for text in (user, _STATES[state])]
        silence = int(SILENCE * 1000)
        values = (process, clients, int(ttl * 1000), self._now(), silence, *changes)
        keys = (self._presence, self._processes, self._online, self._meta)
        came, left, known, processes, streams, online = self._link.run(ROSTER, keys, *values)
        return RosterSync(
            [user.decode() for user in came],
            [user.decode() for user in left],
            bool(known),
            Census(processes, streams, online),
        )

    def is_online(self, user_id: str, but: str = "") -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        text = self._link.call(lambda client: client.hget(self._presence, user_id))
        return text is not None and _is_online(text, self._live(), but)

    def online(self, but: str = "") -> set[str]:
        """See :class:`~sse_broker.core.ports.Roster`."""
        live = self._live()
        found = self._link.call(lambda client: client.hgetall(self._presence))
        return {
            user.decode(errors="replace")
            for user, text in found.items()
            if _is_online(text, live, but)
        }

    def census(self) -> Census:
        """See :class:`~sse_broker.core.ports.Roster`."""
        live = self._live()
        return Census(len(live), sum(live.values()), len(self.online()))

    def revoke(self, token_id: str, until: float) -> None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        now = self._time()

        def act(client: Any) -> None:
            client.zremrangebyscore(self._revoked, "-inf", now)
            client.zadd(self._revoked, {token_id: until * 1000}, gt=True)

        self._link.call(act)

    def is_revoked(self, token_id: str) -> bool:
        """See :class:`~sse_broker.core.ports.Roster`."""
        until = self._link.call(lambda client: client.zscore(self._revoked, token_id))
        return until is not None and until > self._time()

    def keep(self, name: str, value: str, until: float) -> str:
        """See :class:`~sse_broker.core.ports.Roster`."""
        key, now = f"{self._kept}:{name}", self._time()
        for_ms = max(1, int(until * 1000 - now))

        def act(client: Any) -> str:
            for _ in range(3):  # what is there may end between the two
                if client.set(key, value, nx=True, px=for_ms):
                    break
                found = client.get(key)
                if found is not None:
                    return str(found.decode())
            return value

        return str(self._link.call(act))

    def kept(self, name: str) -> str | None:
        """See :class:`~sse_broker.core.ports.Roster`."""
        found = self._link.call(lambda client: client.get(f"{self._kept}:{name}"))
        return None if found is None else str(found.decode())

    def _live(self) -> dict[str, int]:
        """Return the live processes and how many streams each has."""
        now = self._time()
        found = self._link.call(lambda client: client.hgetall(self._processes))
        live = {}
        for name, text in found.items():
            try:
                until, clients = json.loads(text)
                if until >= now:
                    live[name.decode()] = int(clients)
            except (ValueError, TypeError):  # somebody else wrote it
                continue
        return live

    def _time(self) -> float:
        given = self._now()
        if given:
            return float(given)
        seconds, micros = self._link.run(TIME, (self._presence,))
        return float(int(seconds) * 1000 + int(micros) // 1000)


def _is_online(text: bytes, live: Mapping[str, int], but: str) -> bool:
    try:
        entries = json.loads(text)
    except ValueError:  # somebody else wrote it
        return False
    return isinstance(entries, dict) and any(
        state and name != but and name in live for name, state in entries.items()
    )
