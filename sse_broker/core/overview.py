"""What one process tells the operators' page of itself: sums, never a list of all streams."""

from __future__ import annotations

import collections
import dataclasses
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sse_broker.core.client import Client
from sse_broker.core.counts import Counts
from sse_broker.core.inspection import view_of
from sse_broker.core.measures import Measures

__all__ = ["AGES", "PAGE", "overview_of", "page_of"]

AGES = ((10, "under 10 s"), (60, "under 1 min"), (300, "under 5 min"), (600, "under 10 min"))
OLDER = "older"
MOST_TENANTS = 20
PAGE = 50  # streams on a page
MOST_TOPICS = 10  # of a stream, on a page
MOST_CHARS = 128  # of a topic or id, on a page


def overview_of(
    clients: Sequence[Client], host: str, counts: Counts, measures: Measures, now: float
) -> dict[str, Any]:
    """Return a moment of this process for JSON.  Looks at each client once."""
    tenants: collections.Counter[str] = collections.Counter()
    ages: collections.Counter[str] = collections.Counter()
    users = set()
    for client in clients:
        tenants[(client.tenant_id or "no tenant")[:MOST_CHARS]] += 1
        ages[_age(now - client.connected_at)] += 1
        users.add((client.tenant_id, client.user_id))
    return {
        "pid": os.getpid(),
        "machine": socket.gethostname(),
        "host": host,
        "connections": len(clients),
        "users": len(users),
        "tenants": dict(tenants.most_common(MOST_TENANTS)),
        "ages": dict(ages),
        "memory": _memory(),
        **dataclasses.asdict(counts),
        **dataclasses.asdict(measures),
    }


def page_of(clients: Sequence[Client], most: int, now: float) -> dict[str, Any]:
    """Return the first *most* of some streams, in the order of their ids, and their number."""
    chosen = sorted(clients, key=lambda client: client.id)[:most]
    return {"total": len(clients), "streams": [_row(client, now) for client in chosen]}


def _row(client: Client, now: float) -> dict[str, Any]:
    view = view_of(client, now)
    return {
        "client_id": view.client_id,
        "user_id": view.user_id[:MOST_CHARS],
        "tenant_id": view.tenant_id,
        "topics": [topic[:MOST_CHARS] for topic in view.topics[:MOST_TOPICS]],
        "state": view.state,
        "waiting": view.waiting,
        "sent": view.sent,
        "age": round(view.age, 1),
        "pid": os.getpid(),
    }


def _age(seconds: float) -> str:
    return next((name for bound, name in AGES if seconds < bound), OLDER)


def _memory() -> int:
    """Return the bytes of memory that the process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
