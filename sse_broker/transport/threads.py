"""Streams in threads of their own: a server's thread iterates the body and writes it.

While a stream has nothing to say its thread waits, and whoever sends writes to its
socket: to wake the thread would cost ten times the write, and in a process that is
busy with something else each of a thousand threads would wait for the GIL.  What
comes in a burst is written by one thread of the host's.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from sse_broker.core.ports import StreamHost
from sse_broker.core.reader import Reader
from sse_broker.core.sync import native_lock
from sse_broker.core.threads import is_alive, spawn
from sse_broker.transport.host import Host
from sse_broker.transport.transport import State, Transport

__all__ = ["OwnThreads", "Served", "Threads", "serve"]

WAIT = 5.0  # seconds; a net under every wait


class OwnThreads(Host):
    """What serves transports whose streams have a thread or a greenlet each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._count = 0  # of transports that others may write to

    def take_in(self, transport: Transport) -> None:
        """Have others write to *transport* from now on, while it is idle.  On its thread."""
        self.start()
        with self.lock:
            self._count += 1
            transport.client.transport = transport

    def leave(self, transport: Transport) -> None:
        """Have nobody write to a transport any more.  Any thread; idempotent; waits for a batch."""
        with self.lock:
            self._let_go(transport)

    def _let_go(self, transport: Transport) -> bool:
        if transport.state is State.ENDED:
            return False
        transport.client.transport = None  # first: it does not stay in the audience
        transport.move(State.ENDED)
        transport.rest = None
        self._count -= 1
        return True

    def end(self, transport: Transport, reason: str) -> None:
        """Cut a stream: a frame is whole, or the connection ends within it.  Idempotent."""
        if self._let_go(transport):
            transport.client.cut(reason)

    def rung(self, transport: Transport) -> None:
        """Nothing: the bell of a stream's queue is its thread's own."""

    def _block(self, transport: Transport) -> None:
        frames = transport.client.queue
        with frames.mutex:
            frames.ring_locked()

    def start(self) -> None:
        """Start what writes for others.  Idempotent."""
        raise NotImplementedError


class Served:
    """A stream that its own thread or greenlet writes, and others while it is idle."""

    __slots__ = ("_host", "_transport")

    def __init__(self, host: OwnThreads, transport: Transport) -> None:
        self._host, self._transport = host, transport

    def next(self, timeout: float) -> bytes | None:
        """Return whole frames to write, ``None`` at the end, ``b""`` if none came in *timeout* s.

        On the stream's own thread, which waits here: for its queue, for a log, for
        a function of the application, and for a socket that takes no more.  What
        was returned before is out by now.
        """
        host, transport, reader = self._host, self._transport, self._transport.reader
        if reader.may_wait:
            return self._read(timeout)
        chunk = reader.next(0)
        if chunk or chunk is None:
            return chunk
        with host.lock:
            parked = transport.state is State.SERVING and transport.park()
        if not parked:
            return self._read(timeout)
        transport.client.queue.wait_armed(timeout)
        return self._come_back()

    def _read(self, timeout: float) -> bytes | None:
        if not self._go(State.SERVING, State.READING):
            return None
        try:
            return self._transport.reader.next(timeout)
        finally:
            self._go(State.READING, State.SERVING)

    def _go(self, before: State, to: State) -> bool:
        with self._host.lock:
            if self._transport.state is before:
                self._transport.move(to)
        return self._transport.state is to

    def _come_back(self) -> bytes | None:
        """Go on after a wait: with the rest of what others have written, if there is one."""
        host, transport = self._host, self._transport
        with host.lock:
            transport.rouse()
            rest, transport.rest = transport.rest, None
        if rest is not None:
            try:
                transport.sock.sendall(rest)
            except OSError:
                self.leave()
            else:
                transport.client.last_seen = host.now()
                self._go(State.BLOCKED, State.SERVING)
        return None if transport.state is State.ENDED else transport.reader.next(0)

    def take_written(self) -> int:
        """Return how many bytes of the body others have written since this was asked."""
        written, self._transport.written = self._transport.written, 0
        return written

    def leave(self) -> None:
        """Have nobody write any more: the socket may be closed.  Any thread; idempotent.

        Waits for a batch that is being written.
        """
        self._host.leave(self._transport)


def serve(host: StreamHost | None, reader: Reader, sock: Any, chunked: bool) -> Served | None:
    """Return what serves a stream on its own thread, so that others may write to it.

    On that thread.  Nobody is in between it and the socket, which is open until
    :meth:`Served.leave`.  ``None`` where the host, the socket or the stream is not
    of that kind: only its thread writes then.
    """
    if (
        not isinstance(host, OwnThreads)
        or not reader.may_be_plain
        or isinstance(sock, ssl.SSLSocket)
    ):
        return None
    transport = Transport(host, reader, sock, chunked)
    host.take_in(transport)
    return Served(host, transport)


class Threads(OwnThreads):
    """The host of threaded servers.  One for each broker of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._bell = native_lock()  # held while it is silent
        self._bell.acquire()
        self._patience = native_lock()  # held for ever: to take it is to wait
        self._patience.acquire()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def is_alive(self) -> bool:
        """Whether there is a thread to leave things to, once there was one."""
        return self._thread is None or is_alive(self._thread)

    def start(self) -> None:
        """Start the thread, or start it again if it died.  Idempotent."""
        if not is_alive(self._thread):
            with self._starting:
                if not is_alive(self._thread) and not self._stopped:
                    self._thread = spawn("writer", self._run_on)

    def restart(self) -> None:
        """Start the thread again if it died; log what went wrong."""
        self.say()
        if not self.is_alive:
            self.start()

    def release(self) -> None:
        """End the thread: the broker has stopped.  Waits 5 s at most."""
        thread, self._thread, self._stopped = self._thread, None, True
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def again(self, act: Callable[[], None]) -> None:
        """See :class:`Host`.  Without a thread whoever asks runs it, so that none is lost."""
        if self._thread is not None:
            super().again(act)

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """See :class:`Host`.  Where nobody is written to past its thread, always here and now."""
        if self._thread is not None:
            super().hand_out(act, clients)
            return
        with self.lock:
            self._guarded(None, act)

    def _wake(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            pass

    def _run_on(self) -> None:
        while not self._stopped:
            self._bell.acquire(timeout=WAIT)
            self.turn()

    def turn(self) -> None:
        """Do what was left to the host.  On its thread."""
        if self._todo and self.now() - self._spread_at < self.PAUSE:
            self._patience.acquire(
                timeout=self.GATHER
            )  # more is coming, from who needs the GIL now
        with self.lock:
            self._run()
