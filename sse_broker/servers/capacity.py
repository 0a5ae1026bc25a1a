"""How many streams this worker can hold, and what it keeps for other requests.

A gthread worker whose threads all hold streams accepts further requests and
lets them wait for ever; a gevent worker whose connections are all taken leaves
them in the backlog.  Neither is an error anywhere, so streams have to stop
short of it by themselves.

gunicorn's worker says how many there are, where it is found; waitress hands out a
method of the connection.  Where nothing is known, nothing is limited.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from sse_broker.servers.worker import gunicorn_worker

__all__ = ["HANDOFF", "room_for_streams"]

HANDOFF = "sse_broker.handoff"
"""The key of ``environ`` that says: this stream will leave its thread."""

TENTH = 10  # of the connections; idle ones, kept alive for the next request, hold them too

_log = logging.getLogger("sse_broker.capacity")
_said: set[tuple[int, int]] = set()


def room_for_streams(environ: Mapping[str, Any], reserve: int) -> int:
    """Return how many streams this process may hold; 0 where nobody knows or nothing is reserved.

    Of its threads *reserve* are left; of its connections as many, or a tenth of
    them if that is more.  One stream is always possible.
    """
    if not reserve:
        return 0
    threads, connections = _gunicorn() or _waitress(environ) or (0, 0)
    if environ.get(HANDOFF):
        threads = 0
    rooms = []
    if threads:
        rooms.append(threads - reserve)
    if connections:
        rooms.append(connections - max(reserve, -(-connections // TENTH)))
    room = max(1, min(rooms)) if rooms else 0
    _say(room, threads, connections)
    return room


def _say(room: int, threads: int, connections: int) -> None:
    """Say once per process what was found."""
    key = (os.getpid(), room)
    if key not in _said:
        _said.add(key)
        if room:
            _log.info("room for %d streams: %d threads, %d connections", room, threads, connections)
        else:
            _log.debug("this server does not say how many streams it can hold")


def _gunicorn() -> tuple[int, int] | None:
    """Return the threads, 0 for greenlets, and the connections of the gunicorn worker here."""
    worker = gunicorn_worker()
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "ThreadWorker" in kinds:
        return int(worker.cfg.threads), int(worker.cfg.worker_connections)
    return (0, int(worker.cfg.worker_connections)) if "AsyncWorker" in kinds else None


def _waitress(environ: Mapping[str, Any]) -> tuple[int, int] | None:
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    adjustments = getattr(getattr(channel, "server", None), "adj", None)
    if adjustments is None:
        return None
    return int(adjustments.threads), int(adjustments.connection_limit)
