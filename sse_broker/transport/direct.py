"""Direct writes: what is fanned out goes to the socket there and then, and wakes nobody.

A stream that waits for its queue has nothing to write, and neither has its
server: what the stream yielded before is out.  So whoever fans a message out may
write it to the socket, without waiting, and the thread or greenlet of the stream
sleeps on: waking it would cost ten times the write, and in a process that is busy
with something else each of a thousand threads would wait for the GIL.

That is done only where the server iterates the stream itself, with nothing in between
that would not see the bytes (:meth:`sse_broker.servers.Server.passage`).  Everywhere
else, and whenever a socket does not take all of it, the stream writes by itself.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from sse_broker.core.batch import Batch
from sse_broker.core.client import State
from sse_broker.core.reader import Reader
from sse_broker.core.sync import is_installed
from sse_broker.transport.sockets import FLAGS, c_send

__all__ = ["Direct", "direct"]

_LIVE = State.LIVE
_send = c_send()


class Passage(Protocol):
    """Leave to write past a server."""

    @property
    def response(self) -> Any:
        """The server's response, whose ``sent`` is kept true."""

    @property
    def chunked(self) -> bool:
        """Whether the body has the chunked coding."""


def direct(passage: Passage, reader: Reader, sock: Any) -> Direct | None:
    """Return what writes to *sock*, past the server that gave leave for it, if it can be done."""
    if is_installed():
        return None  # the process writes in another way
    is_plain = not hasattr(sock, "unwrap")  # TLS has bytes of its own to say
    return Direct(passage, reader, sock) if is_plain and _send and not reader.asks else None


class Direct:
    """One stream's socket, for those who fan out.  The queue's mutex guards all of it."""

    __slots__ = ("_chunked", "_client", "_fd", "_reader", "_response", "_rest", "_sock", "_turn")

    def __init__(self, passage: Passage, reader: Reader, sock: Any) -> None:
        self._response, self._reader, self._client = passage.response, reader, reader.client
        self._sock, self._fd = sock, sock.fileno()
        self._chunked = passage.chunked
        self._rest: memoryview | None = None
        self._turn = -1
        self._client.sink = self

    def write(self, batch: Batch, turn: int) -> bool:
        """Write *batch* if the stream waits with nothing before it; say whether that was done.

        Once in a *turn*: what else comes in it is queued, and leaves in one write.
        Any thread that may wake the stream; never waits.
        """
        client, reader = self._client, self._reader
        frames = client.queue
        if turn == self._turn or not frames.armed:
            return False
        with frames.mutex:
            if not frames.armed or client._state is not _LIVE or reader.cursor >= batch.first:
                return False
            self._turn = turn
            data, size, c_size = batch.form(self._chunked)
            took = _send(self._fd, data, c_size, FLAGS)
            reader.cursor = batch.last
            client.sent += batch.count
            self._response.sent += batch.size
            if took >= 0:
                client.last_seen = time.monotonic()
            if took != size:  # -1: it takes nothing now, or nothing any more
                self._rest = memoryview(data)[max(took, 0) :]
                frames.ring_locked()
            return True

    def finish(self) -> bool:
        """Write what the socket did not take; say whether the client is still there.

        On the stream's own thread, which waits for its client here.
        """
        rest, self._rest = self._rest, None
        if rest is not None:
            try:
                self._sock.sendall(rest)
            except OSError:
                return False
            self._client.last_seen = time.monotonic()
        return True
