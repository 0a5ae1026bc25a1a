"""What all hosts of streams share: one lock, one way to write, one place where a burst gathers.

A host is what serves the transports of a process.  There are three, and they differ
in who runs a transport that is SERVING, BLOCKED or READING: its own thread
(:mod:`.threads`), its own greenlet (:mod:`.hub`), or the pump (:mod:`.pump`).  What
is IDLE is written to here, the same way in all.

Who sends writes to a few at once, if nothing came just before.  Everything else is
left to the host, in order, and gathers there: neighbours then leave in one write.

Lock map
    lock      native; held for a turn or a batch, which never waits, calls out or
              logs; a sender tries it and does not wait for it
    order     taken inside a log's own turn; the delivery's lock and a client's, for
              O(1) work or one copy of its queue, are taken inside it
"""

from __future__ import annotations

import collections
import ctypes
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from sse_broker.core.audience import Audience, Bucket
from sse_broker.core.client import Client
from sse_broker.core.ports import Record
from sse_broker.core.sync import native_lock
from sse_broker.transport.batch import Batch, as_chunk
from sse_broker.transport.rows import Row, offer
from sse_broker.transport.sockets import FLAGS, send
from sse_broker.transport.transport import State, Transport

__all__ = ["Host"]

SLICE = 1_000  # clients that are settled before others may have the lock
TOGETHER = 16  # clients from which on a row pays
MOST_SAID = 20  # troubles that are kept until they can be logged

_log = logging.getLogger("sse_broker.transport")


class Host:
    """Writes to idle transports.  The port is :class:`~sse_broker.core.ports.StreamHost`."""

    FEW = 256  # clients, about a millisecond of writing
    PAUSE = 0.0001  # seconds without a message; a loop that sends is ten times as fast
    GATHER = 0.0005  # seconds in which more of a burst comes in before it is written

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self.lock = native_lock()
        self._todo: collections.deque[tuple[Any, Callable[..., None]]] = collections.deque()
        self._spread_at = 0.0
        self.longest_turn = 0.0  # seconds, since it was asked for
        self._troubles: collections.deque[tuple[str, Any]] = collections.deque(maxlen=MOST_SAID)

    # From any thread.

    def call(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, after what was asked for before.  Never waits."""
        self.hand_out(act, lambda: 0)

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """Run *act*, which writes to so many: at once to a few after a pause, else soon."""
        if not self._is_free() or clients() > self.FEW or not self.lock.acquire(False):
            self.post(act)
            return
        try:
            self._guarded(None, act)
        finally:
            self.lock.release()

    def again(self, act: Callable[[], None]) -> None:
        """Run *act* should it have been lost that it was asked for.  Never waits."""
        self.post(act)

    def post(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, where the host works.  Never waits."""
        self._todo.append((None, act))
        self._wake()

    def settle(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them.  Waits for a turn's end, a second at most."""
        for start in range(0, len(clients), SLICE):
            if not self._settle_some(clients[start : start + SLICE], 1.0):
                return

    def look(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them, if that can be had now.  Never waits."""
        for start in range(0, len(clients), SLICE):
            if not self._settle_some(clients[start : start + SLICE], 0.0):
                return

    def _settle_some(self, clients: Sequence[Client], timeout: float) -> bool:
        if not any(client.transport is not None and client.transport.joined for client in clients):
            return True
        if not self.lock.acquire(timeout=timeout):
            return False
        try:
            for client in clients:
                if client.transport is not None and client.transport.joined:
                    client.transport.settle()
        finally:
            self.lock.release()
        return True

    def take_longest_turn(self) -> float:
        """Return the longest turn since this was asked, in seconds.  Any thread."""
        longest, self.longest_turn = self.longest_turn, 0.0
        return longest

    @property
    def calls_waiting(self) -> int:
        """How many calls wait for a helper thread."""
        return 0

    def trouble(self, text: str) -> None:
        """Have the exception that is being handled logged once no lock is held.  Never waits."""
        self._troubles.append((text, sys.exc_info()))

    def say(self) -> None:
        """Log what went wrong.  Called by who holds no lock."""
        while self._troubles:
            text, error = self._troubles.popleft()
            if error[0] is None:
                _log.warning(text)
            else:
                _log.error(text, exc_info=error)

    # What the hosts differ in.

    def _is_free(self) -> bool:
        """Whether the caller may write here and now."""
        return not self._todo and self.now() - self._spread_at > self.PAUSE

    def _wake(self) -> None:
        """Have what is to be done looked at.  Any thread; never waits."""
        raise NotImplementedError

    def _block(self, transport: Transport) -> None:
        """Have the rest written as soon as the socket takes it."""
        raise NotImplementedError

    def end(self, transport: Transport, reason: str) -> None:
        """End a stream without another word.  Idempotent."""
        raise NotImplementedError

    # By who holds the lock.

    def write(self, clients: Sequence[Client], records: Sequence[Record]) -> None:
        """Write records to each client that is idle; queue them for the others."""
        if len(clients) == len(records) == 1 and not isinstance(clients, Audience):
            self._write_record(clients[0], records[0])
            self._spread_at = self.now()
            return
        batch = Batch(records)
        if isinstance(clients, Audience) and len(clients) >= TOGETHER:
            self._write_row(clients, batch)
        else:
            if isinstance(clients, Audience) and clients.bucket.row is not None:
                _dissolve(clients.bucket)
            for client in clients:
                self._write_one(client, batch)
        self._spread_at = self.now()

    def _write_row(self, clients: Audience, batch: Batch) -> None:
        row = clients.bucket.row
        if row is None:
            row = clients.bucket.row = Row()
        row.follow(clients)
        row.gather(batch)
        try:
            failed = row.write(batch, send, self.now())
        except BaseException:  # who has how much of it? they come back with their last ids
            for transport in row.members():
                self.end(transport, "error")
            raise
        for transport, took in failed:
            self._guarded(transport, self._note_rest, batch, took)

    def _note_rest(self, transport: Transport, batch: Batch, took: int) -> None:
        transport.note(batch)
        self._keep_rest(transport, batch.form(transport.chunked)[0], took)

    def _write_one(self, client: Client, batch: Batch) -> None:
        transport = client.transport
        if transport is None or not transport.takes(batch.first):
            offer(client, batch)
            return
        data, size, c_size = batch.form(transport.chunked)
        try:
            took = send(transport.fd, data, c_size, FLAGS)
            transport.note(batch)
        except BaseException:  # how much of it is out? it comes back with its last id
            self.end(transport, "error")
            raise
        if took == size:
            client.last_seen = self.now()
        else:
            self._keep_rest(transport, data, took)

    def _write_record(self, client: Client, record: Record) -> None:
        """As :meth:`_write_one`, for the commonest batch: one record to one client."""
        transport = client.transport
        if transport is None or not transport.takes(record.position):
            if transport is not None:
                transport.rouse()
            client.offer(record)
            return
        data = as_chunk(record.frame) if transport.chunked else record.frame
        size = len(data)
        try:
            took = send(transport.fd, data, ctypes.c_size_t(size), FLAGS)
            transport.note_record(record)
        except BaseException:  # how much of it is out? it comes back with its last id
            self.end(transport, "error")
            raise
        if took == size:
            client.last_seen = self.now()
        else:
            self._keep_rest(transport, data, took)

    def _keep_rest(self, transport: Transport, data: bytes, took: int) -> None:
        """Keep what the socket did not take.  -1 says that it was nothing, and not why."""
        if took > 0:
            transport.client.last_seen = self.now()
        transport.rest = memoryview(data)[max(took, 0) :]
        transport.move(State.BLOCKED)
        self._block(transport)

    def heed(self, clients: Sequence[Client]) -> None:
        """Have clients that were told something get nothing more before they have heeded it."""
        for client in clients:
            if client.transport is not None:
                client.transport.rouse()

    def _run(self) -> None:
        todo = self._todo
        for _ in range(len(todo)):
            self._guarded(*todo.popleft())

    def _guarded(self, whose: Any, act: Callable[..., None], *arguments: object) -> None:
        """Call *act*; should it raise, end the one that it was about, if that is known."""
        try:
            if whose is None:
                act(*arguments)
            else:
                act(whose, *arguments)
        except Exception:  # one stream's trouble is not the others'
            self.trouble("a host failed at one thing of many")
            if whose is not None:
                self._give_up(whose)

    def _give_up(self, whose: Any) -> None:
        self.end(whose, "error")


def _dissolve(bucket: Bucket) -> None:
    """Give up the row of an audience that has become small."""
    row, bucket.row = bucket.row, None
    for transport in row.members():
        transport.leave_rows()  # the others too, which take it in again
