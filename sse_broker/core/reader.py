"""What a client is sent next: the join of replay and live, for every host.

Phases::

    REPLAY ──log read to its end, client LIVE, read once more──▶ LIVE
       ▲────────── the client fell behind and its queue is drained ──┘

A client that resumes starts BEHIND and in REPLAY; one that comes fresh starts
LIVE.  Falling behind later is the same as resuming.  Why no message is missed
or doubled at the join: the client is made LIVE before the last read, so what is
appended after that read is offered, and what was both read and offered has a
position that the cursor has passed already and is skipped.

A reader belongs to one stream and is called by one thread at a time.
"""

from __future__ import annotations

import itertools
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

from sse_broker.core.client import Client, State, Take
from sse_broker.core.grants import MEMO, allows
from sse_broker.core.identity import may_read
from sse_broker.core.ports import Authorizer, Log, PositionLost, Record
from sse_broker.core.state import chunks as state_chunks
from sse_broker.core.state import marked, state_at
from sse_broker.core.sync import let_others_run
from sse_broker.errors import LogUnavailable
from sse_broker.wire.message import Message, comment_frame, library_frame, retry_frame

__all__ = ["Reader"]

READ_RECORDS = 256  # one read of the log, at most
MIN_PAUSE, MAX_PAUSE = 0.1, 5.0  # seconds between looks at a log that cannot be read
CHUNK_BYTES = 64 * 1024  # one write; bounds what a stuck reader keeps waiting, beside its queue
_LIVE = comment_frame("live")  # what was missed has been said; for client.js, others pass it over


class Reader:
    """Turns one client's queue, and the log where that is needed, into chunks of bytes."""

    __slots__ = (
        "__weakref__",
        "_asker",
        "_authorizer",
        "_chunks",
        "_heartbeat",
        "_heartbeat_interval",
        "_judge",
        "_limit",
        "_log",
        "_on_failure",
        "_on_reset",
        "_over",
        "_pause",
        "_replaying",
        "_retry",
        "_skipped",
        "_state",
        "client",
        "cursor",
        "on_dropped",
    )

    def __init__(
        self,
        client: Client,
        log: Log,
        start: int,
        *,
        heartbeat: Callable[[int, bool], bytes],
        heartbeat_interval: float,
        retry: Callable[[], int],
        authorizer: Authorizer | None = None,
        on_dropped: Callable[[Client, int], None],
        on_reset: Callable[[str], None],
        on_failure: Callable[[], None],
        lost: str = "",
        resumed: bool = False,
        state: Sequence[Record] = (),
        earliest: int | None = None,
    ) -> None:
        self.client = client
        self.cursor = client.read_to = start
        self._log = log
        self._heartbeat = heartbeat
        self._heartbeat_interval = heartbeat_interval
        self._retry = retry
        self.on_dropped = on_dropped
        self._on_reset = on_reset
        self._on_failure = on_failure
        granted_all = authorizer is may_read and client.identity.topics is None
        self._judge = None if granted_all else authorizer
        self._authorizer = self._judge if client.patterns else None
        client.reader = weakref.ref(self)
        self._asker = object()  # what it is known by in the memo of the process
        self._replaying = client.state is State.BEHIND
        self._limit = READ_RECORDS  # less where a chunk holds less than that
        self._chunks: list[bytes] = []  # to be written; few, and none most of the time
        self._pause = 0.0  # how long it waited last for a log that cannot be read
        self._over = False
        self._skipped = False  # whether frames before the cursor were never written
        self._state: Iterator[bytes] | None = None  # what follows the chunks, if anything
        self._begin(lost, resumed, state, earliest)

    def topics_changed(self) -> None:
        """Forget what was allowed; ask about what patterns let in, if there are any now.

        Called where nothing matched by the new topics has been offered yet.
        """
        self._authorizer = self._judge if self.client.patterns else None
        self._asker = object()

    @property
    def may_wait(self) -> bool:
        """Whether :meth:`next` may do I/O or call out now, even with a timeout of 0."""
        return self._replaying or (self.asks_application and self.client.has_news)

    @property
    def asks_application(self) -> bool:
        """Whether a function of the application is asked, record by record."""
        return self._authorizer not in (None, may_read)

    @property
    def may_be_plain(self) -> bool:
        """Whether the client may have all that it is offered, so that nobody has to be asked."""
        return self._authorizer is None

    @property
    def again_in(self) -> float:
        """Seconds until a log that could not be read should be looked at again; 0 is now."""
        return self._pause

    @property
    def is_plain(self) -> bool:
        """Whether all that comes next is what the client is offered, as it is."""
        busy = self._chunks or self._state is not None or self._replaying or self._over
        return not (busy or self._authorizer or self.client.withdrawn)

    def next(self, timeout: float) -> bytes | None:
        """Return whole frames to write, or ``None`` at the end.

        Waits up to *timeout* seconds for some; ``b""`` says that there were none.
        """
        due = self._chunks or self._replaying or self._over or self.client.withdrawn
        if not due and self._state is None:
            record = self.client.take_one(timeout)
            if record is not None and record.position > self.cursor and not self._authorizer:
                self.cursor = record.position
                self.client.sent += 1
                return record.frame
            return self._next(0, record)
        return self._next(timeout, None)

    def _next(self, timeout: float, record: Record | None) -> bytes | None:
        if record is not None:
            self._take_records([record])
        if self.client.state is State.CLOSED:
            return None
        if self.client.drops and not self._over:
            self._drop()
        if self.client.withdrawn and not self._over:
            self._say_withdrawn()
        if self._state is not None and not self._chunks:
            self._chunks.extend(itertools.islice(self._state, 1))
            self._state = self._state if self._chunks else None
        if not self._chunks and self._replaying:
            self._replay(timeout)
        if not self._chunks and not self._over:
            self._live(timeout)
        if self._chunks:
            return self._chunks.pop(0)
        return None if self._over else b""

    def _begin(
        self, lost: str, resumed: bool, state: Sequence[Record], earliest: int | None
    ) -> None:
        state = self._allowed_of(state)
        at = self._log.cursor(self.cursor)
        mark = marked(at, len(state)) if state else at
        said = {"reason": lost} if earliest is None else {"reason": lost, "from": earliest}
        reset = library_frame("reset", mark, said) if lost else b""
        welcome = {
            "client_id": self.client.id,
            "resumed": resumed,
            "heartbeat": self._heartbeat_interval,  # how long silence is no sign of death
            "identity": self.client.identity.digest,  # tabs that share a stream compare it
            **({"retained": len(state)} if state else {}),
        }
        self._chunks.append(
            b": sse_broker\n%b%b%b"
            % (retry_frame(self._retry()), reset, library_frame("welcome", mark, welcome))
        )
        self._say_state(state, at)

    def _say_state(self, state: Sequence[Record], at: str) -> None:
        """Have the retained messages follow what is to be written."""
        if state:
            self.client.sent += len(state)
            self._state = state_chunks(state, at, self._may_have)

    def _may_have(self, record: Record) -> bool:
        wanted = self.client.wants(record.message)
        return wanted and (self._authorizer is None or self._allows(record))

    def _allowed_of(self, records: Sequence[Record]) -> Sequence[Record]:
        if self._authorizer is None:
            return records
        return [record for record in records if self._allows(record)]

    def _replay(self, timeout: float) -> None:
        """Read on; wait for a log that cannot be read: it may be back with nothing lost.

        A comment after each wait keeps the connection known to live.
        """
        try:
            self._read_on()
            self._pause = 0.0
        except LogUnavailable:
            self._pause = min(MAX_PAUSE, 2 * self._pause or MIN_PAUSE)
            self.client.pause(min(timeout, self._pause * random.uniform(0.5, 1.0)))
            self._chunks.append(comment_frame("waiting for the log"))

    def _read_on(self) -> None:
        """Read until there is something to write or the log's end is joined to the queue."""
        while self.client.is_open:
            let_others_run()  # a replay of thousands waits for nothing else
            try:
                records = self._log.read(self.cursor, self._limit)
            except PositionLost as lost:
                self._reset(lost)
                return
            if records:
                wanted = self._wanted(records)
                self.client.replayed += len(wanted)
                self._write(wanted)
                if self._chunks:
                    return
            elif not self.client.caught_up():
                self._replaying = False
                self._chunks.append(_LIVE)
                return

    def _wanted(self, records: Sequence[Record]) -> list[Record]:
        """Return what is for this client, as far as one chunk holds; the rest is read again.

        So a reader that stops in the midst of a long replay holds one chunk.
        """
        wanted: list[Record] = []
        size, used = 0, len(records)
        for index, record in enumerate(records):
            if self.client.wants(record.message):
                size += len(record.frame)
                if wanted and size > CHUNK_BYTES:
                    used = index
                    break
                wanted.append(record)
        self._limit = used if used < len(records) else min(READ_RECORDS, 2 * self._limit)
        self.cursor = self.client.read_to = records[used - 1].position
        return wanted

    def _reset(self, lost: PositionLost) -> None:
        place = self._log.tail() if lost.goes_on is None else lost.goes_on
        state = self._allowed_of(state_at(self._log, self.client, place))
        self.cursor, at = place, self._log.cursor(place)
        mark = marked(at, len(state)) if state else at
        self._chunks.append(library_frame("reset", mark, {"reason": lost.reason}))
        self._say_state(state, at)
        self._on_reset(lost.reason)

    def _live(self, timeout: float) -> None:
        took = self.client.take(timeout)
        if took.lost_before:
            self._say_lost(took.lost_before)
        if took.records:
            self._take_records(took.records)
        if took.lost_after:
            self._say_lost(took.lost_after)
        self._follow_state(took)

    def _take_records(self, records: Sequence[Record]) -> None:
        cursor = self.cursor
        if records[0].position <= cursor:
            records = [record for record in records if record.position > cursor]
        if records:
            self.cursor = records[-1].position
            self._write(records)

    def _follow_state(self, took: Take) -> None:
        if took.state is State.BEHIND:
            self._replaying = True
        elif took.state is State.DRAINING:
            self.cursor = max(self.cursor, took.beat or 0)
            self._chunks.append(self._close_frame())
            self._over = True
        elif took.state is State.CLOSED:
            self._over = True
        elif took.beat is not None and not took.records:
            moved = took.beat > self.cursor
            self.cursor = max(self.cursor, took.beat)
            self._chunks.append(self._heartbeat(self.cursor, moved))

    def _drop(self) -> None:
        """Write nothing more of what was read: the client may not have it any more."""
        self._skipped = self._skipped or bool(self._chunks) or self._state is not None
        self._chunks.clear()
        self._state = None

    def _close_frame(self) -> bytes:
        data = {"reason": self.client.reason}
        at = "" if self._skipped else self._log.cursor(self.cursor)  # it keeps the id it has
        return retry_frame(self._retry()) + library_frame("close", at, data)

    def _say_withdrawn(self) -> None:
        with self.client.queue.mutex:
            lost, self.client.withdrawn = self.client.withdrawn, ()
        at = self._log.cursor(self.cursor)
        self._chunks.append(library_frame("revoked", at, {"topics": list(lost)}))

    def _say_lost(self, count: int) -> None:
        self._chunks.append(library_frame("dropped", "", {"count": count}))
        self.on_dropped(self.client, count)

    def _write(self, records: Sequence[Record]) -> None:
        """Join the frames into chunks; what waits together leaves together."""
        frames = [record.frame for record in self._allowed_of(records)]
        if not frames:
            return
        self.client.sent += len(frames)
        if sum(map(len, frames)) <= CHUNK_BYTES:
            self._chunks.append(frames[0] if len(frames) == 1 else b"".join(frames))
        else:
            self._chunks.extend(_packed(frames))

    def _allows(self, record: Record) -> bool:
        """Ask again for each topic that only a pattern let in; a pattern is not a grant.

        An authorizer that raises hides this one record and is asked again for the next.
        """
        message = record.message
        assert isinstance(message, Message)
        return allows(self.client, message, self._allows_topic)

    def _allows_topic(self, topic: str) -> bool:
        allowed = MEMO.get(self._asker, topic)
        if allowed is None:
            assert self._authorizer is not None
            try:
                allowed = bool(self._authorizer(self.client.identity, topic))
            except Exception:  # the application's; what it would have said is not known
                self._on_failure()
                return False
            MEMO.put(self._asker, topic, allowed)
        return allowed


def _packed(frames: list[bytes]) -> Iterable[bytes]:
    chunk: list[bytes] = []
    size = 0
    for frame in frames:
        if chunk and size + len(frame) > CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(frame)
        size += len(frame)
    yield b"".join(chunk)
