"""One socket of the pump's: a stream that was handed off, or what is left of a connection.

Everything here belongs to who holds the pump's lock, but for :meth:`Sink.ring`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sse_broker.core.batch import Batch
from sse_broker.core.client import Client, State
from sse_broker.core.reader import Reader
from sse_broker.transport.poller import WRITE
from sse_broker.transport.sockets import GONE, MOST_HEARD, hear

if TYPE_CHECKING:
    from sse_broker.transport.cohort import Member
    from sse_broker.transport.pump import Pump

__all__ = ["Lingering", "Sink", "close", "try_send"]


class Sink:
    """One stream that was handed off.  Calling it has the pump serve it."""

    __slots__ = (
        "again",
        "aside",
        "chunked",
        "client",
        "fd",
        "heard",
        "member_of",
        "on_end",
        "out",
        "pump",
        "read",
        "reader",
        "ready",
        "sock",
        "told",
        "written",
    )

    def __init__(
        self, pump: Pump, reader: Reader, sock: Any, chunked: bool, on_end: Callable[[int], None]
    ) -> None:
        self.pump = pump
        self.reader = reader
        self.told = reader.on_dropped
        self.client = reader.client
        self.sock = sock
        self.fd = sock.fileno()
        self.chunked = chunked
        self.on_end = on_end
        self.out: memoryview | None = None  # what the socket did not take
        self.written = self.heard = 0
        self.read: tuple[bytes, bool] | None = None  # at the side, and whether that was all
        self.ready = self.aside = self.again = False
        self.member_of: tuple[Member, ...] = ()  # where it is written to with others

    def ring(self) -> None:
        """Have the pump look.  Any thread; the bell of the client's queue."""
        self.pump.post(self)

    def wait(self, timeout: float) -> bool:
        """Never wait: only the pump takes from this queue, and it does not."""
        del timeout
        return False

    def __call__(self) -> None:
        """Have what waits written, as far as the socket takes it."""
        self.pump.serve(self)

    def takes(self, batch: Batch) -> bool:
        """Whether *batch* may be written at once: nothing waits, and none of it was read before."""
        is_next = self.ready and self.reader.cursor < batch.first
        return is_next and self.client.state is State.LIVE

    def tell_dropped(self, client: Client, count: int) -> None:
        """Have the receivers of a signal called at the side."""
        self.pump.side.submit(lambda: self.told(client, count))

    def on_event(self, mask: int) -> None:
        """Act on what the poller saw."""
        heard = hear(self.sock) if mask & ~WRITE else 0
        self.heard += heard
        if heard == GONE:
            self.pump.end(self, "client_gone")
        elif self.heard > MOST_HEARD:
            self.pump.end(self, "flood")
        elif mask & WRITE and self.out is not None:
            self.pump.go_on(self)


class Lingering:
    """A socket that has said everything and waits for its peer to close."""

    __slots__ = ("heard", "pump", "sock")

    def __init__(self, pump: Pump, sock: Any) -> None:
        self.pump, self.sock, self.heard = pump, sock, 0

    def on_event(self, mask: int) -> None:
        """Take what the peer still says; close when it has closed."""
        heard = hear(self.sock) if mask & ~WRITE else 0
        self.heard += heard
        if heard == GONE or self.heard > MOST_HEARD:
            self.pump.let_go(self)


def try_send(sock: Any, data: bytes | memoryview) -> int:
    """Return how many bytes a non-blocking socket took, or -1 if it is gone."""
    try:
        return int(sock.send(data))
    except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return 0
    except OSError:
        return -1


def close(sock: Any) -> None:
    """Shut a connection down and close it, whatever state it is in."""
    try:
        # A forked child may hold the descriptor too; the peer is told all the same.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass
    try:
        sock.close()
    except OSError:
        pass
