"""What a process has counted since it started."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from sse_broker.core.client import Client
from sse_broker.core.sync import NativeLock

__all__ = ["Counts", "Stats", "Tally"]


@dataclass
class Counts:
    """Counters that only grow, but for the first, which is a gauge.

    ``refusals`` counts by the setting whose limit was reached, ``resets_by`` by the
    reason that streams were told.
    """

    active_connections: int = 0
    messages_published: int = 0
    messages_sent: int = 0
    messages_dropped: int = 0
    client_connects: int = 0
    client_disconnects: int = 0
    connections_refused: int = 0
    resets: int = 0
    rates_unchecked: int = 0
    authorizer_failures: int = 0
    replays: int = 0
    replayed_messages: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    resets_by: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stats:
    """A moment of a broker, as :meth:`Broker.get_stats` returns it.

    ``messages_published`` counts calls of
    ``send_*`` in this process, ``messages_sent`` frames written to its clients,
    ``messages_dropped`` frames that a full queue cost one client each.
    ``processes``, ``cluster_clients`` and ``cluster_users`` are sums over all
    processes that share the log, at most a few seconds old.
    """

    total_clients: int
    total_users: int
    total_topics: int
    is_running: bool
    buffer_size: int
    max_connections: int
    log: str
    messages_published: int
    messages_sent: int
    messages_dropped: int
    client_connects: int
    client_disconnects: int
    connections_refused: int
    resets: int
    processes: int = 0
    cluster_clients: int = 0
    cluster_users: int = 0


class Tally:
    """The counters of one process.  Any thread; *lock* is held for an addition.

    ``gone`` holds events, and what the clients that are gone had counted; who
    holds the lock already may add to it.
    """

    def __init__(self, lock: NativeLock) -> None:
        self._lock = lock
        self.gone = Counts()

    def add(self, counter: str) -> None:
        """Add one to a counter, by its name in :class:`Counts`."""
        with self._lock:
            setattr(self.gone, counter, getattr(self.gone, counter) + 1)

    def refused(self, setting: str, streams: int) -> None:
        """Count a refusal of so many streams, by the setting that was its cause if there is one."""
        with self._lock:
            self.gone.connections_refused += streams
            if setting:
                self.gone.refusals[setting] = self.gone.refusals.get(setting, 0) + 1

    def reset(self, reason: str) -> None:
        """Count a reset by its reason."""
        with self._lock:
            self.gone.resets += 1
            self.gone.resets_by[reason] = self.gone.resets_by.get(reason, 0) + 1

    def left_locked(self, client: Client) -> None:
        """Keep what a client that is gone had counted."""
        self.gone.client_disconnects += 1
        self.gone.messages_sent += client.sent
        self.gone.messages_dropped += client.dropped
        self.gone.replayed_messages += client.replayed

    def sum_locked(self, clients: Sequence[Client]) -> Counts:
        """Return all that was counted, that of the live *clients* included."""
        gone = self.gone
        counts = dataclasses.replace(
            gone, refusals=dict(gone.refusals), resets_by=dict(gone.resets_by)
        )
        counts.active_connections = len(clients)
        counts.messages_sent += sum(client.sent for client in clients)
        counts.messages_dropped += sum(client.dropped for client in clients)
        counts.replayed_messages += sum(client.replayed for client in clients)
        return counts
