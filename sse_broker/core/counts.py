"""What a process has counted since it started."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Counts", "Stats"]


@dataclass
class Counts:
    """Counters that only grow, but for the first, which is a gauge.

    ``refusals`` counts by the setting whose limit was reached.
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
    refusals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stats:
    """A moment of a broker, as :meth:`Broker.get_stats` returns it.

    The first six are the seed's.  ``messages_published`` counts calls of
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
