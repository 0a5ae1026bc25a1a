"""One open connection: who it is, what it wants, and what waits for it.

Life of a client::

    BEHIND ◀──overflow "catch_up"── LIVE
       └────────caught_up()──────────▲
    BEHIND, LIVE ──close()──▶ DRAINING ──finish()──▶ CLOSED
       └───────────────── cut(), finish() ────────────▲

    BEHIND    takes no live frames: its reader goes on from the log
    LIVE      takes what the broker offers
    DRAINING  takes nothing more; what waits is still written, then a close event;
              end() drops what waits
    CLOSED    nothing waits and nothing is written

Lock map
    queue.mutex   guards the queue, the state and the counts; a native lock
    order         a leaf, but for the lock of the wake chain, which is one itself
    held for      O(1) work, one copy of the queue, or one write that does not wait
"""

from __future__ import annotations

import enum
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sse_broker.core.frames import FrameQueue
from sse_broker.core.identity import Identity
from sse_broker.core.ports import Clock, Record, SystemClock
from sse_broker.errors import InvalidConfig
from sse_broker.wire.command import Command
from sse_broker.wire.ids import UserID
from sse_broker.wire.message import ALL_TENANTS, Message, Target
from sse_broker.wire.topics import check_pattern, is_pattern, matches

__all__ = ["ARROWS", "Client", "FrameQueue", "State", "Take"]


class State(enum.Enum):
    """Where a client is in its life."""

    BEHIND = "behind"
    LIVE = "live"
    DRAINING = "draining"
    CLOSED = "closed"


ARROWS = {
    State.BEHIND: frozenset({State.LIVE, State.DRAINING, State.CLOSED}),
    State.LIVE: frozenset({State.BEHIND, State.DRAINING, State.CLOSED}),
    State.DRAINING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
TAKE_BYTES = 256 * 1024  # taken at once; what a stuck reader holds beside its queue
_BEHIND, _LIVE, _DRAINING, _CLOSED = State  # an enum member looked up by name costs 40 ns


_frame_of = operator.attrgetter("frame")


def _size(frames: FrameQueue) -> int:
    return sum(map(len, map(_frame_of, frames.queue)))


class Take(NamedTuple):
    """What a reader got from a client at once, in the order in which it is to be written."""

    lost_before: int
    records: list[Record]
    lost_after: int
    beat: int | None
    state: State


_NONE: tuple[tuple[str, ...], frozenset[str], tuple[str, ...]] = ((), frozenset(), ())


def _subscription(
    topics: Iterable[str],
) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...]]:
    """Return topics each once, those that are names, and those that are patterns."""
    each = tuple(dict.fromkeys(map(check_pattern, topics)))
    if not each:
        return _NONE
    patterns = tuple(filter(is_pattern, each))
    return each, frozenset(each).difference(patterns), patterns


class Client:
    """One open connection, or anything else that wants to be offered messages.

    Made by hand (as tests do) it is ``LIVE`` from the start, and
    ``queue.get()`` yields records with ``.message``.  The stream makes its own.

    :raises InvalidUserID: *user_id* or *tenant_id* is none.
    :raises InvalidTopic: one of *topics* is neither a name nor a pattern.
    """

    __slots__ = (
        "_beat",
        "_lost_after",
        "_lost_before",
        "_overflow",
        "_reason",
        "_state",
        "abort",
        "address",
        "checked_at",
        "connected_at",
        "dropped",
        "drops",
        "end_by",
        "ends_soon",
        "expires_at",
        "id",
        "identity",
        "last_seen",
        "metadata",
        "names",
        "patterns",
        "queue",
        "read_to",
        "reader",
        "replayed",
        "sent",
        "spread",
        "tenant_id",
        "topics",
        "transport",
        "user_id",
        "withdrawn",
    )

    def __init__(
        self,
        user_id: UserID | Identity,
        tenant_id: UserID | None = None,
        topics: Iterable[str] = (),
        *,
        metadata: Mapping[str, Any] | None = None,
        buffer_size: int = 256,
        overflow: str = "catch_up",
        behind: bool = False,
        clock: Clock | None = None,
        spread: float = 1.0,
        address: str = "",
    ) -> None:
        if not isinstance(user_id, Identity):
            user_id = Identity(user_id, tenant_id)
        if buffer_size < 1:
            raise InvalidConfig(f"buffer_size = {buffer_size!r}; it must be >= 1")
        self.identity = user_id
        self.id = str(uuid.uuid4())
        self.user_id = str(user_id.user_id)
        self.tenant_id = None if user_id.tenant_id is None else str(user_id.tenant_id)
        self.topics, self.names, self.patterns = _subscription(topics)
        self.metadata = dict(user_id.claims if metadata is None else metadata)
        self.expires_at = user_id.expires_at
        self.queue = FrameQueue(buffer_size)
        self.connected_at = self.last_seen = (clock or SystemClock()).monotonic()
        self.checked_at = self.connected_at  # when it was asked last what it may read
        self.spread = (
            spread  # 0.75 to 1: shortens this client's periods, so that not all are due at once
        )
        self.address = address  # counted per address, where it is not empty
        self.read_to = 0  # the position up to which its reader has read, while it is BEHIND
        self.sent = 0  # frames written; only who writes for it adds
        self.dropped = 0
        self.replayed = 0  # messages that came from the log, after the stream had missed them
        self.end_by: float | None = None  # when it is cut if it has not ended; the reaper's
        self.drops = False  # it may read no more: what waits for it is dropped
        self.ends_soon = False  # it is cut after drain_timeout if it has not ended
        self.withdrawn: tuple[str, ...] = ()  # topics that it lost and has not been told of
        self.reader: Callable[[], Any] | None = None  # a weak reference to what reads for it
        self.abort: Callable[[], None] | None = None  # frees a thread stuck in a write
        self.transport: Any = None  # what others may write to for it; the host's
        self._overflow = overflow
        self._state = _BEHIND if behind else _LIVE
        self._reason = ""
        self._lost_before = self._lost_after = 0
        self._beat: int | None = None

    def subscribe(self, topics: Iterable[str]) -> None:
        """Have other topics from now on.  Called under the lock of the registry that it is in."""
        self.topics, self.names, self.patterns = _subscription(topics)

    def drop_unwanted(self) -> None:
        """Let go of what waits and is not wanted any more, after :meth:`subscribe`.

        Any thread; never blocks.
        """
        frames = self.queue
        with frames.mutex:
            if frames.queue:
                wanted = [record for record in frames.queue if self.wants(record.message)]
                frames.queue.clear()
                frames.queue.extend(wanted)
        reader = None if self.reader is None else self.reader()
        if reader is not None:
            reader.topics_changed()

    def withdraw(self, topics: Iterable[str]) -> None:
        """Have the client told that it may not read these any more.  Any thread; never blocks."""
        with self.queue.mutex:
            self.withdrawn += tuple(topics)
            self.queue.ring_locked()

    def __repr__(self) -> str:
        return f"<Client {self.id} {self._state.value} {len(self.queue.queue)} waiting>"

    @property
    def state(self) -> State:
        """Where the client is in its life."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether it may still get messages."""
        return self._state is _LIVE or self._state is _BEHIND

    @property
    def has_news(self) -> bool:
        """Whether there is something to take, or the state is to be acted on."""
        lost = self._lost_before or self._lost_after
        news = self.queue.queue or lost or self.withdrawn
        return bool(news) or self._beat is not None or self._state is not _LIVE

    @property
    def reason(self) -> str:
        """Why it was closed; empty while it is open."""
        return self._reason

    @property
    def waits_from(self) -> int | None:
        """The position after which something waits for this client; ``None`` if nothing does.

        Takes no lock: it may be a moment old.
        """
        try:
            return self.queue.queue[0].position - 1
        except IndexError:
            return self.read_to if self._state is _BEHIND else None

    def wants(self, message: Message | Command) -> bool:
        """Whether *message* is for this client: the one rule, for live delivery and for replay."""
        if isinstance(message, Command):
            return False
        tenant = message.tenant_id
        if message.target is Target.USER:
            mine = tenant is None or tenant is ALL_TENANTS or tenant == self.tenant_id
            return mine and message.user_id == self.user_id
        if tenant is not ALL_TENANTS and tenant != self.tenant_id:
            return False
        if message.target is Target.BROADCAST:
            return not self.identity.is_anonymous
        if message.topic in self.names:
            return True
        if len(message.topics) > 1 and not self.names.isdisjoint(message.topics):
            return True
        return any(matches(pattern, topic) for pattern in self.patterns for topic in message.topics)

    def reads(self, topic: str) -> bool:
        """Whether the client subscribes to *topic*, by its name or by a pattern."""
        return topic in self.names or any(matches(pattern, topic) for pattern in self.patterns)

    def offer(self, record: Record) -> bool:
        """Queue *record* and say whether it was taken.  Any thread; never blocks.

        A full queue is decided by the overflow policy.  Under gevent, call it
        on the hub's thread, or nothing wakes the reader.
        """
        frames = self.queue
        with frames.mutex:
            if self._state is not _LIVE:
                return False
            if len(frames.queue) < frames.maxsize:
                frames.queue.append(record)
                frames.ring_locked()
                return True
            return self._overflow_locked(record)

    def offer_all(self, records: Sequence[Record]) -> None:
        """Queue *records*, oldest first, as :meth:`offer` does with each, under one lock."""
        frames = self.queue
        with frames.mutex:
            for record in records:
                if self._state is not _LIVE:
                    return
                if len(frames.queue) < frames.maxsize:
                    frames.queue.append(record)
                else:
                    self._overflow_locked(record)
            frames.ring_locked()

    def _overflow_locked(self, record: Record) -> bool:
        if self._overflow == "catch_up":
            self._move_locked(_BEHIND)
            return False
        if self._overflow == "disconnect":
            self._reason = "overflow"
            self._move_locked(_DRAINING)
            return False
        self.dropped += 1
        if self._overflow == "drop_newest":
            self._lost_after += 1
            return False
        self._lost_before += 1
        self.queue.queue.popleft()
        self.queue.queue.append(record)
        return True

    def take(self, timeout: float) -> Take:
        """Take what waits, waiting up to *timeout* seconds for something.  One reader only.

        What is longer than ``TAKE_BYTES`` is taken in parts; what else there is to
        say comes with the last one.
        """
        frames = self.queue
        with frames.mutex:
            if timeout and not frames.queue and self._beat is None and self._state is _LIVE:
                frames.wait(timeout)
            if len(frames.queue) > 1 and not self._lost_after and _size(frames) > TAKE_BYTES:
                return self._take_part_locked()
            records = list(frames.queue)
            frames.queue.clear()
            if records:
                self.read_to = records[-1].position
            took = Take(self._lost_before, records, self._lost_after, self._beat, self._state)
            self._lost_before = self._lost_after = 0
            self._beat = None
        return took

    def _take_part_locked(self) -> Take:
        waiting, size = self.queue.queue, 0
        records: list[Record] = []
        while waiting and (not records or size + len(waiting[0].frame) <= TAKE_BYTES):
            size += len(waiting[0].frame)
            records.append(waiting.popleft())
        lost_before, self._lost_before = self._lost_before, 0
        return Take(lost_before, records, 0, None, _LIVE)

    def take_one(self, timeout: float) -> Record | None:
        """Take the next record if it is all there is to say; else leave all for :meth:`take`.

        The common case of a stream, a message at a time, at half the price.
        """
        frames = self.queue
        with frames.mutex:
            if timeout and not frames.queue and self._beat is None and self._state is _LIVE:
                frames.wait(timeout)
            lost = self._lost_before or self._lost_after
            if len(frames.queue) != 1 or self._state is not _LIVE or lost:
                return None
            return frames.queue.popleft()

    def beat(self, position: int) -> bool:
        """Ask for a heartbeat; say whether it will be sent.  Any thread; never blocks.

        *position* must have been delivered to every client before this call:
        it becomes the client's cursor once what waits is written.
        """
        with self.queue.mutex:
            if self._state is not _LIVE:
                return False
            self._beat = position
            self.queue.ring_locked()
            return True

    def caught_up(self) -> bool:
        """Go from BEHIND to LIVE; say whether it did.

        Called by the reader once it has read the log to its end.  What the
        queue held is dropped here, because the reader reads the log once more
        afterwards and finds it there.
        """
        with self.queue.mutex:
            if self._state is not _BEHIND:
                return False
            self.queue.queue.clear()
            self._move_locked(_LIVE)
            return True

    def fall_behind(self) -> None:
        """Have the reader go on from the log, as after an overflow.  Any thread; never blocks.

        Where records were missed for good, the log says so to the reader.
        """
        with self.queue.mutex:
            if self._state is _LIVE:
                self._move_locked(_BEHIND)

    def shed(self, most: int) -> bool:
        """Let go of a queue of more than *most* bytes that the log can give again; say whether.

        For a client that takes nothing: it goes on from the log, if it ever does.
        Other policies than ``catch_up`` keep what they have.  Any thread; never blocks.
        """
        frames = self.queue
        if len(frames.queue) < 2 or self._overflow != "catch_up":
            return False
        with frames.mutex:
            if not self.is_open or _size(frames) <= most:
                return False
            frames.queue.clear()
            if self._state is _LIVE:
                self._move_locked(_BEHIND)
            return True

    def pause(self, timeout: float) -> None:
        """Wait up to *timeout* seconds, less if the state changes.  The one reader only."""
        with self.queue.mutex:
            if self._state is _BEHIND:
                self.queue.wait(timeout)

    def close(self, reason: str, delivered: int = 0, *, soon: bool = False) -> None:
        """End the stream in order: what waits is written, then ``event: close``.  Idempotent.

        If it is to end *soon*, the reaper cuts it after ``drain_timeout``, else after
        ``client_timeout``.
        *delivered* is a position as in :meth:`beat`, if there is one: the client
        comes back with it, also where nothing was written to it for long.
        """
        with self.queue.mutex:
            if self._state is _LIVE and delivered:
                self._beat = delivered
            if self._state is _BEHIND or self._state is _LIVE:
                self._reason = reason
                self._move_locked(_DRAINING)
            self.ends_soon = self.ends_soon or soon

    def end(self, reason: str, delivered: int = 0) -> None:
        """End the stream because it may read no more: drop what waits, then ``event: close``.

        The reaper cuts it after ``drain_timeout``.  *delivered* is as for
        :meth:`close`.  Any thread; never blocks; idempotent.
        """
        frames = self.queue
        with frames.mutex:
            if self._state is _CLOSED or self.drops:
                return
            self.drops = self.ends_soon = True
            self._reason = reason
            let_go = self._state is not _LIVE or frames.queue or self._lost_before
            self._beat = None if let_go or self._lost_after else delivered or None
            self._lost_before = self._lost_after = 0
            frames.queue.clear()
            if self._state is not _DRAINING:
                self._move_locked(_DRAINING)

    def cut(self, reason: str) -> None:
        """End the stream now; nothing more is written.  Any thread; idempotent.

        Frees a thread that is stuck in a write, where the socket can be reached.
        """
        self.finish(reason)
        if self.abort is not None:
            self.abort()

    def finish(self, reason: str) -> None:
        """Say that the stream has ended, as the host does when it is through.  Idempotent."""
        with self.queue.mutex:
            if self._state is not _CLOSED:
                self._reason = self._reason or reason
                self.queue.queue.clear()
                self._move_locked(_CLOSED)

    def _move_locked(self, to: State) -> None:
        assert to in ARROWS[self._state], f"{self._state} -> {to}"
        self._state = to
        self.queue.ring_locked()  # state and wake-up are one step, or a reader sleeps on
