"""The sinks of one audience that have nothing to write: descriptors in a row.

Most messages go to a topic that many subscribe to, and most of those have nothing
else to write at that moment.  So what a write to each of them needs is kept
together, and what it changes (frames, bytes, position, time) is noted once for
all; a sink takes its share when it leaves, and when somebody asks.

Everything here belongs to who holds the pump's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sse_broker.core.batch import Batch
from sse_broker.core.client import Client, State
from sse_broker.core.registry import Audience
from sse_broker.transport.sockets import FLAGS

if TYPE_CHECKING:
    from sse_broker.transport.sink import Sink

__all__ = ["Cohort", "Member", "leave", "settle"]

Send = Callable[[int, bytes, Any, int], int]


class Member(NamedTuple):
    """A sink's place in a cohort: what had been written there before it came."""

    cohort: Cohort
    frames: int
    plain_size: int
    chunked_size: int


class Cohort:
    """The sinks of an audience that are written to together, and who else is in the audience."""

    __slots__ = (
        "_newest",
        "_others",
        "chunked",
        "last",
        "plain",
        "so_far",
        "wrote_at",
    )

    def __init__(self) -> None:
        self.plain: dict[int, Sink] = {}  # by descriptor
        self.chunked: dict[int, Sink] = {}
        self.so_far = Member(self, 0, 0, 0)
        self.last = 0  # the position that was written last
        self.wrote_at = 0.0
        self._others: list[Client] = []
        self._newest = 0

    def follow(self, audience: Audience) -> None:
        """Note who has come to the audience; who goes ends, and leaves by that."""
        newest = audience[-1].number
        if newest <= self._newest:
            return
        for client in reversed(audience):
            if client.number <= self._newest:
                break
            self._others.append(client)
        self._newest = newest

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
        sink = client.sink
        if sink is not None and sink.takes(batch):
            sink.member_of += (self.so_far,)
            self._of(sink)[sink.fd] = sink
        elif client.state is not State.CLOSED:
            offer(client, batch)
            self._others.append(client)

    def members(self) -> list[Sink]:
        """Return who is in."""
        return [*self.plain.values(), *self.chunked.values()]

    def write(self, batch: Batch, send: Send, now: float) -> list[tuple[Sink, int]]:
        """Write *batch* to all who are in; return those whose socket did not take all of it.

        With what it took, or -1; they have left, with their share of what was before.
        """
        failed: list[tuple[Sink, int]] = []
        for sinks, form in ((self.plain, batch.plain), (self.chunked, batch.chunk)):
            data, size, c_size = form
            took = [send(fd, data, c_size, FLAGS) for fd in sinks]
            if took.count(size) != len(took):
                failed += [one for one in zip(sinks.values(), took, strict=True) if one[1] != size]
        for sink, _ in failed:
            leave(sink)
        _, frames, plain_size, chunked_size = self.so_far
        self.so_far = Member(
            self, frames + batch.count, plain_size + batch.plain[1], chunked_size + batch.chunk[1]
        )
        self.last, self.wrote_at = batch.last, now
        return failed

    def drop(self, sink: Sink) -> None:
        """Let a sink go; its client stays in the audience unless that is its end."""
        self._of(sink).pop(sink.fd, None)
        if sink.client.sink is sink:
            self._others.append(sink.client)

    def _of(self, sink: Sink) -> dict[int, Sink]:
        return self.chunked if sink.chunked else self.plain


def offer(client: Client, batch: Batch) -> None:
    """Queue *batch*, which then goes before all that comes next."""
    if client.sink is not None:
        leave(client.sink)
    client.offer_all(batch.records)


def leave(sink: Sink) -> None:
    """Have a sink written to by itself from now on: it is not ready, and in no cohort."""
    sink.ready = False
    if sink.member_of:
        settle(sink)
        for member in sink.member_of:
            member.cohort.drop(sink)
        sink.member_of = ()


def settle(sink: Sink) -> None:
    """Give a sink, its client and its reader their share of what was written to its cohorts."""
    client, reader = sink.client, sink.reader
    for cohort, frames, plain_size, chunked_size in sink.member_of:
        now = cohort.so_far
        if now.frames != frames:
            client.sent += now.frames - frames
            sink.written += (
                now.chunked_size - chunked_size if sink.chunked else now.plain_size - plain_size
            )
            client.last_seen = max(client.last_seen, cohort.wrote_at)
            reader.cursor = max(reader.cursor, cohort.last)
    sink.member_of = tuple(member.cohort.so_far for member in sink.member_of)
