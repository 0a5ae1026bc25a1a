"""The idle transports of one audience, as plain descriptors: a batch is written to all in one pass.

Most messages go to a topic that many subscribe to, and most of those have nothing
else to write at that moment.  So what a write to each of them needs is kept
together, and what it changes (frames, bytes, position, time) is noted once for
all; a transport takes its share when it leaves, and when somebody asks.

Everything here belongs to who holds the host's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sse_broker.core.audience import Audience
from sse_broker.core.client import Client, State
from sse_broker.transport.batch import Batch
from sse_broker.transport.sockets import FLAGS
from sse_broker.transport.transport import Joined, Transport

__all__ = ["Row", "offer"]

Send = Callable[[int, bytes, Any, int], int]


class Row:
    """Who is idle of an audience, and who else is in it."""

    __slots__ = (
        "_others",
        "chunked",
        "frames",
        "last",
        "plain",
        "size",
        "wrote_at",
    )

    def __init__(self) -> None:
        self.plain: dict[int, Transport] = {}  # by descriptor
        self.chunked: dict[int, Transport] = {}
        self.frames = self.size = 0  # written to each who is in from the beginning
        self.last = 0  # the position that was written last
        self.wrote_at = 0.0
        self._others: list[Client] = []

    def members(self) -> list[Transport]:
        """Return who is in."""
        return [*self.plain.values(), *self.chunked.values()]

    def follow(self, audience: Audience) -> None:
        """Have those in, or among the others, who are in *audience*, and nobody else."""
        if audience.followed_by is self:
            return
        members = self.members()
        inside = {transport.client for transport in members}
        wanted = set(audience)
        for transport in members:
            if transport.client not in wanted:  # it is none of its topics any more
                transport.rouse()
        self._others = [client for client in audience if client not in inside]
        audience.followed_by = self

    def gather(self, batch: Batch) -> None:
        """Take in who has nothing else to write by now; offer *batch* to the rest."""
        others, self._others = self._others, []
        try:
            while others:
                self._take_in_or_offer(others[-1], batch)
                others.pop()
        finally:  # whatever happens, nobody is forgotten
            self._others += others

    def _take_in_or_offer(self, client: Client, batch: Batch) -> None:
        transport = client.transport
        if transport is not None and transport.takes(batch.first):
            transport.joined += (Joined(self, self.frames, self.size),)
            self._of(transport)[transport.fd] = transport
        elif client.state is not State.CLOSED:
            offer(client, batch)
            self._others.append(client)

    def write(self, batch: Batch, send: Send, now: float) -> list[tuple[Transport, int]]:
        """Write *batch* to all who are in; return those whose socket did not take all of it.

        With what it took, or -1; they have left, with their share of what was before.
        """
        failed: list[tuple[Transport, int]] = []
        for transports, form in ((self.plain, batch.plain), (self.chunked, batch.chunk)):
            data, size, c_size = form
            took = [send(fd, data, c_size, FLAGS) for fd in transports]
            if took.count(size) != len(took):
                whose = zip(transports.values(), took, strict=True)
                failed += [one for one in whose if one[1] != size]
        for transport, _ in failed:
            transport.rouse()
        self.frames += batch.count
        self.size += batch.size
        self.last, self.wrote_at = batch.last, now
        return failed

    def drop(self, transport: Transport) -> None:
        """Let a transport go; its client stays in the audience unless that is its end."""
        self._of(transport).pop(transport.fd, None)
        if transport.client.transport is transport:
            self._others.append(transport.client)

    def _of(self, transport: Transport) -> dict[int, Transport]:
        return self.chunked if transport.chunked else self.plain


def offer(client: Client, batch: Batch) -> None:
    """Queue *batch*, which then goes before all that comes next."""
    if client.transport is not None:
        client.transport.rouse()
    client.offer_all(batch.records)
