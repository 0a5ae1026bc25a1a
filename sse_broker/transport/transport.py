"""A client's socket and how its body is framed: the one object that is written to.

Life of a transport::

                  rung: queued, beat, close, lagging
            +---------------------------------------------+
            v                                             |
    +--> SERVING ------- nothing to say: park() ------> IDLE --+ write took all of it
    |     |  |                                            |  ^ | (who holds the host's lock)
    |     |  +-- a log, or the application, is asked      |  +-+
    |     |            READING --+                        |
    |     +-- took a part        |    took a part, or nothing
    |            BLOCKED <-------|------------------------+
    |               |            |
    +---------------+------------+      and to ENDED from any

    SERVING -> IDLE, READING, BLOCKED, ENDED
    IDLE    -> SERVING, BLOCKED, ENDED
    READING -> SERVING, ENDED
    BLOCKED -> SERVING, ENDED
    ENDED   -> nothing

    SERVING   its server looks after it: what comes goes through the client's queue
    IDLE      whoever holds the host's lock may write a batch to the descriptor
    READING   a log, or a function of the application, is asked for it
    BLOCKED   the socket took a part; the rest is kept, and goes before all else
    ENDED     nothing is written any more

Everything here belongs to who holds the host's lock, but for :meth:`Transport.ring`.
A transport that only its own server may write to (TLS, a middleware in between) is
never IDLE; one whose records have to be asked about neither.
"""

from __future__ import annotations

import enum
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sse_broker.core.client import Client
from sse_broker.core.client import State as ClientState
from sse_broker.core.ports import Record
from sse_broker.core.reader import Reader
from sse_broker.transport.batch import Batch

__all__ = ["ARROWS", "Joined", "State", "Transport"]

_LIVE = ClientState.LIVE


class State(enum.Enum):
    """Who may write to a transport, and what it waits for."""

    SERVING = "serving"
    IDLE = "idle"
    READING = "reading"
    BLOCKED = "blocked"
    ENDED = "ended"


ARROWS = {
    State.SERVING: frozenset({State.IDLE, State.READING, State.BLOCKED, State.ENDED}),
    State.IDLE: frozenset({State.SERVING, State.BLOCKED, State.ENDED}),
    State.READING: frozenset({State.SERVING, State.ENDED}),
    State.BLOCKED: frozenset({State.SERVING, State.ENDED}),
    State.ENDED: frozenset(),
}
_SERVING, _IDLE, _, _, _ENDED = State  # an enum member looked up by name costs 40 ns


class Host(Protocol):
    """What a transport needs of who serves it."""

    def rung(self, transport: Transport) -> None:
        """Look at *transport* soon.  Any thread; never waits."""


class Row(Protocol):
    """What is written to many transports together, and noted once for all of them."""

    frames: int
    size: int
    last: int
    wrote_at: float

    def drop(self, transport: Transport) -> None:
        """Let a transport go that has its share of the notes."""


class Joined(NamedTuple):
    """A transport's place in a row: what had been written there before it came."""

    row: Row
    frames: int
    size: int


class Transport:
    """One stream's socket.  See the module for its states."""

    __slots__ = (
        "chunked",
        "client",
        "fd",
        "heard",
        "host",
        "joined",
        "on_end",
        "reader",
        "rest",
        "sock",
        "state",
        "written",
    )

    def __init__(
        self,
        host: Host,
        reader: Reader,
        sock: Any,
        chunked: bool = False,
        on_end: Callable[[int], None] | None = None,
    ) -> None:
        self.host = host
        self.reader = reader
        self.client: Client = reader.client
        self.sock = sock
        self.fd: int = -1 if sock is None else sock.fileno()
        self.chunked = chunked
        self.on_end = on_end
        self.state = _SERVING
        self.rest: memoryview | None = None  # what the socket did not take
        self.written = 0  # bytes of the body, without those of the chunked coding
        self.heard = 0  # bytes that the peer said
        self.joined: tuple[Joined, ...] = ()

    def __repr__(self) -> str:
        return f"<Transport {self.fd} {self.state.value} of {self.client!r}>"

    def ring(self) -> None:
        """Have the host look.  Any thread; the bell of the client's queue in some hosts."""
        self.host.rung(self)

    def wait(self, timeout: float) -> bool:
        """Never wait: whose bell this is takes from the queue, and does not wait for it."""
        del timeout
        return False

    @property
    def is_tls(self) -> bool:
        """Whether the socket has bytes of its own to say, so that nobody may write past it."""
        return isinstance(self.sock, ssl.SSLSocket)

    def move(self, to: State) -> None:
        """Go to another state; who leaves IDLE leaves its rows, with its share of their notes."""
        assert to in ARROWS[self.state], f"{self.state} -> {to}"
        self.leave_rows()
        self.state = to

    def leave_rows(self) -> None:
        """Be written to by itself from now on."""
        if self.joined:
            self.settle()
            for joined in self.joined:
                joined.row.drop(self)
            self.joined = ()

    def takes(self, first: int) -> bool:
        """Whether a batch that begins at *first* may be written at once: nothing goes before it."""
        return self.state is _IDLE and self.reader.cursor < first and self.client.state is _LIVE

    def rouse(self) -> None:
        """Have what comes next go through the queue."""
        if self.state is _IDLE:
            self.move(_SERVING)

    def park(self) -> bool:
        """Let others write from now on, if nothing waits; say whether that is so.

        From then on the queue's bell is rung once for whatever comes.
        """
        frames = self.client.queue
        if self.fd < 0 or self.is_tls or not self.reader.is_plain:
            return False
        with frames.mutex:
            if self.client.has_news:
                return False
            frames.armed = True
            self.move(_IDLE)
        return True

    def note(self, batch: Batch) -> None:
        """Take down that *batch* was written, or will be as soon as the socket takes it."""
        self.reader.cursor = batch.last
        self.client.sent += batch.count
        self.written += batch.size

    def note_record(self, record: Record) -> None:
        """As :meth:`note`, for one record that was written alone."""
        self.reader.cursor = record.position
        self.client.sent += 1
        self.written += len(record.frame)

    def settle(self) -> None:
        """Give this stream, its client and its reader their share of what its rows were written."""
        client, reader = self.client, self.reader
        for row, frames, size in self.joined:
            if row.frames != frames:
                client.sent += row.frames - frames
                self.written += row.size - size
                client.last_seen = max(client.last_seen, row.wrote_at)
                reader.cursor = max(reader.cursor, row.last)
        self.joined = tuple(Joined(row, row.frames, row.size) for row, _, _ in self.joined)
