"""A moment of one process as a record: what tests and operators see of a broker."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from sse_broker.core.client import Client

__all__ = ["Inspection", "StreamView", "threads_of_ours", "view_of"]


@dataclass(frozen=True)
class StreamView:
    """One stream of this process.  Ages are in seconds, sizes in bytes.

    ``state`` is the client's (``live``, ``behind``, ``draining``, ``closed``),
    ``transport`` its transport's, empty where a stream has none.  ``waiting`` are
    frames in its queue, ``quiet_for`` is the time since its last successful write.
    """

    client_id: str
    user_id: str
    tenant_id: str | None
    topics: tuple[str, ...]
    address: str
    state: str
    transport: str
    waiting: int
    waiting_bytes: int
    sent: int
    dropped: int
    age: float
    quiet_for: float
    expires_at: float | None


@dataclass(frozen=True)
class Inspection:
    """A moment of a broker in this process, as :meth:`Broker.inspect` returns it.

    ``life`` is ``new``, ``running`` or ``stopped``; ``host`` the kind of stream
    host, empty before the first start.  ``delivered`` is the position in the log up
    to which every stream has been offered everything, ``waiting`` how many records
    are on their way to the streams, ``senders_waiting`` how many callers of
    ``send_*`` wait because that is full.  ``threads`` are the library's own.
    """

    pid: int
    process: str
    life: str
    log: str
    follows: bool
    host: str
    host_is_alive: bool
    delivered: int
    waiting: int
    waiting_bytes: int
    senders_waiting: int
    threads: tuple[str, ...]
    streams: tuple[StreamView, ...]


def threads_of_ours() -> tuple[str, ...]:
    """Return the names of this process's threads that the library has started."""
    name = f"-{os.getpid()}"
    found = [thread.name for thread in threading.enumerate()]
    return tuple(sorted(one for one in found if one.startswith("sse-broker-") and name in one))


def view_of(client: Client, now: float) -> StreamView:
    """Return what is seen of a client.  The parts may be a moment apart."""
    frames = client.queue.snapshot()
    transport: Any = client.transport
    state: Any = getattr(transport, "state", "")
    return StreamView(
        client_id=client.id,
        user_id=client.user_id,
        tenant_id=client.tenant_id,
        topics=tuple(client.topics),
        address=client.address,
        state=client.state.value,
        transport=str(getattr(state, "value", state)),
        waiting=len(frames),
        waiting_bytes=sum(len(record.frame) for record in frames),
        sent=client.sent,
        dropped=client.dropped,
        age=now - client.connected_at,
        quiet_for=now - client.last_seen,
        expires_at=client.expires_at,
    )
