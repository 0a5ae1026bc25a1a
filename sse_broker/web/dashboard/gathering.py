"""One answer of all processes: sums over their overviews, and what the log says of itself."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sse_broker.broker import Broker
from sse_broker.core.latency import BOUNDS
from sse_broker.core.overview import AGES, OLDER
from sse_broker.errors import BrokerError
from sse_broker.servers import checks

__all__ = ["gather"]

SUMS = (
    "connections",
    "users",
    "messages_published",
    "messages_sent",
    "messages_dropped",
    "client_connects",
    "client_disconnects",
    "connections_refused",
    "resets",
    "replays",
    "queued_frames",
    "clients_behind",
    "bytes_waiting",
    "senders_waiting",
)
MOST_PROCESSES = 200  # rows of the table
MOST_TENANTS = 20


def gather(broker: Broker, environ: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the page shows.  Asks all processes; waits two seconds at most."""
    why: list[str] = []
    try:
        answers, missing = broker.streams.ask("overview", {})
        last = broker.last_event_id()
    except BrokerError as err:
        answers, missing, last = {}, 0, ""
        why.append(f"the log cannot be asked: {err}")
    found = [one for one in answers.values() if isinstance(one, dict)]
    health = broker.health()
    for finding in checks.examine(broker.log.shared, environ):
        why.append(finding.text)
        if finding.is_unready:
            health[finding.name] = False
    totals: dict[str, Any] = {name: sum(one[name] for one in found) for name in SUMS}
    latency = [sum(column) for column in zip(*(one["latency"] for one in found), strict=True)]
    totals["latency"] = latency or [0] * (len(BOUNDS) + 1)
    return {
        "time": broker.streams.clock.time(),
        "log": broker.log.url,
        "log_bytes": _size(broker.log.url),
        "last_event_id": last,
        "well": all(health.values()) and not why,
        "checks": health,
        "why": why,
        "missing": missing,
        "bounds": BOUNDS,
        "totals": totals,
        "processes": sorted(found, key=lambda one: (one["machine"], one["pid"]))[:MOST_PROCESSES],
        "tenants": _summed(one["tenants"] for one in found)[:MOST_TENANTS],
        "ages": _ages(found),
        "troubles": _troubles(found),
    }


def _summed(parts: Any) -> list[tuple[str, int]]:
    total: collections.Counter[str] = collections.Counter()
    for part in parts:
        total.update(part)
    return total.most_common()


def _ages(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    total = dict(_summed(one["ages"] for one in found))
    return [(name, total[name]) for name in (*(name for _, name in AGES), OLDER) if name in total]


def _troubles(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    rows = [
        ("messages dropped", sum(one["messages_dropped"] for one in found)),
        ("refused in all", sum(one["connections_refused"] for one in found)),
        ("streams resumed", sum(one["replays"] for one in found)),
    ]
    rows += [(f"reset: {name}", n) for name, n in _summed(one["resets_by"] for one in found)]
    rows += [(f"refused: {name}", n) for name, n in _summed(one["refusals"] for one in found)]
    return [row for row in rows if row[1]]


def _size(url: str) -> int:
    if not url.startswith("sqlite:"):
        return 0
    path = Path(unquote(urlsplit(url).path[1:]))
    try:
        return sum(one.stat().st_size for one in path.parent.glob(path.name + "*") if one.is_file())
    except OSError:
        return 0
