"""Hand-off: one thread per process that writes to the sockets of all its streams.

A stream whose headers and first frames have been sent leaves its WSGI thread and
is the pump's from then on.  What is idle is written to as in every host
(:mod:`.host`); all others get records into their client's queue, and the pump
drains that queue through the reader as the thread hosts do.

Reading the log, code of the application (authorizers, receivers of signals, what
closes a response) and the ends of streams are done in lanes of their own, never
here; a transport that is READING is left alone until that is done.

Lock map
    as in :mod:`.host`; the lock is held for each turn.  :meth:`Pump.adopt`,
    :meth:`Pump.linger` and what rings a transport need none: they only append to
    ``_todo`` and wake the thread.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sse_broker.core.client import State as ClientState
from sse_broker.core.lanes import SLOW, Lane
from sse_broker.core.reader import Reader
from sse_broker.core.sync import native_lock
from sse_broker.core.threads import is_alive, spawn
from sse_broker.transport.batch import as_chunk
from sse_broker.transport.host import Host
from sse_broker.transport.lingering import LINGER, Lingering
from sse_broker.transport.poller import WRITE, make_poller
from sse_broker.transport.sockets import FLAGS, GONE, MOST_HEARD, close, hear, send, try_send
from sse_broker.transport.threads import WAIT
from sse_broker.transport.transport import State, Transport

__all__ = ["Pump"]

READ_BYTES = 64 * 1024  # read at once, for one client

_log = logging.getLogger("sse_broker.transport")


class Pump(Host):
    """The one thread that writes for all streams of a process.  A host of streams."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._poller = make_poller()
        self._by_fd: dict[int, Transport | Lingering] = {}
        self._timers: list[tuple[float, int, Any, Callable[..., None]]] = []
        self._order = itertools.count()
        self._asleep = False
        self._stopped = False
        self._patience = native_lock()  # held but at the end: to take it is to wait
        self._patience.acquire()
        self._thread: threading.Thread | None = None
        self.reads = Lane("reads", 4)
        self.asks = Lane("asks", 8, 128)
        self.ends = Lane("ends", 4, 64)

    def start(self) -> None:
        """Start the thread.  Idempotent."""
        if not self.is_alive:
            self._thread = spawn("pump", self._run_on)

    def restart(self) -> None:
        """Start the thread again if it died; it goes on with the streams it has."""
        self.say()
        if self._thread is not None and not self.is_alive and not self._stopped:
            _log.error("the pump had died; it is started again")
            self.start()

    def release(self) -> None:
        """Nothing: it serves the other brokers of this process too."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return is_alive(self._thread)

    def stop(self) -> None:
        """Cut every stream and end the threads.  Waits 5 s at most for each."""
        if not self._stopped:
            self._stopped = True
            self._patience.release()
        self._poller.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        for lane in (self.reads, self.asks, self.ends):
            lane.stop()
        self.say()

    # From any thread.

    def rung(self, transport: Transport) -> None:
        """See :class:`~sse_broker.transport.transport.Host`."""
        self._todo.append((transport, self.serve))
        self._wake()

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False
            self._poller.wake()

    def adopt(
        self, reader: Reader, sock: Any, chunked: bool, on_end: Callable[[int], None]
    ) -> None:
        """Write *reader*'s stream to *sock* from now on.

        The socket is the pump's.  *on_end* is called once at the end, in the lane
        for ends, with the bytes of the body that were written here.
        """
        sock.setblocking(False)
        transport = Transport(self, reader, sock, chunked, on_end)
        reader.client.abort = transport.ring  # a cut is seen although the socket is stuck
        told = reader.on_dropped
        reader.on_dropped = lambda client, count: self.asks.submit(lambda: told(client, count))
        self._todo.append((transport, self._take_over))
        self._wake()

    def linger(self, sock: Any) -> None:
        """Close *sock* once its peer has, or after ``LINGER`` seconds; what was sent arrives."""
        self.post(lambda: self._linger(sock))

    # By who holds the lock.

    def serve(self, transport: Transport) -> None:
        """Write what waits for one stream, as far as its socket takes it."""
        if transport.state is State.ENDED:
            return
        if transport.client.state is ClientState.CLOSED:
            self.end(transport, transport.client.reason)
        elif transport.state is not State.BLOCKED and transport.state is not State.READING:
            transport.rouse()
            self._drain(transport)

    def _drain(self, transport: Transport) -> None:
        reader = transport.reader
        transport.client.queue.arm()
        while not reader.may_wait:
            chunk = reader.next(0)
            if chunk is None:
                self._conclude(transport)
                return
            if chunk and not self._write(transport, chunk):
                return
            if not chunk and (transport.park() or not reader.may_wait):
                return
        transport.move(State.READING)
        lane = self.asks if reader.asks_application else self.reads
        lane.submit(lambda: self._read(transport))

    def _read(self, transport: Transport) -> None:
        """Take what the reader has, where that may wait.  In a lane."""
        reader, chunks, size, over = transport.reader, [], 0, False
        try:
            while size < READ_BYTES and reader.may_wait and not over:
                chunk = reader.next(0)
                over = chunk is None
                if chunk:
                    chunks.append(chunk)
                    size += len(chunk)
                if not chunk or reader.again_in:
                    break
        except Exception:  # a log that fails in a new way
            _log.exception("a stream is cut: reading for it failed")
            transport.client.cut("error")
        data = b"".join(chunks)
        self._todo.append((transport, lambda one: self._have_read(one, data, over)))
        self._wake()

    def _have_read(self, transport: Transport, data: bytes, over: bool) -> None:
        if transport.state is State.ENDED:
            return
        transport.move(State.SERVING)
        if transport.client.state is ClientState.CLOSED:
            self.end(transport, transport.client.reason)
        elif not data or self._write(transport, data):
            if over:
                self._conclude(transport)
            elif transport.reader.again_in:
                self._later(transport.reader.again_in, transport, self.serve)
            else:
                self._drain(transport)

    def _write(self, transport: Transport, data: bytes) -> bool:
        """Write one chunk; say whether all of it went."""
        transport.written += len(data)
        if transport.chunked:
            data = as_chunk(data)
        if transport.is_tls:
            took = try_send(transport.sock, data)
        else:
            took = send(transport.fd, data, ctypes.c_size_t(len(data)), FLAGS)
        if took == len(data):
            transport.client.last_seen = self.now()
            return True
        self._keep_rest(transport, data, took)
        return False

    def _block(self, transport: Transport) -> None:
        self._poller.change(transport.fd, True)

    def _go_on(self, transport: Transport) -> None:
        """Write on where the socket stopped."""
        assert transport.rest is not None
        took = try_send(transport.sock, transport.rest)
        if took == GONE:
            self.end(transport, "client_gone")
            return
        if took:
            transport.client.last_seen = self.now()
        if took < len(transport.rest):
            transport.rest = transport.rest[took:]
            return
        transport.rest = None
        transport.move(State.SERVING)
        self._poller.change(transport.fd, False)
        if transport.reader.again_in:
            self._later(transport.reader.again_in, transport, self.serve)
        else:
            self.serve(transport)

    def _conclude(self, transport: Transport) -> None:
        """End a stream that has said everything: the last chunk, then the peer closes."""
        if transport.client.state is ClientState.CLOSED:
            self.end(transport, transport.client.reason)
            return
        if transport.chunked:
            try_send(transport.sock, b"0\r\n\r\n")
        sock = transport.sock
        self._let_go(transport, transport.client.reason)
        self._linger(sock)

    def end(self, transport: Transport, reason: str) -> None:
        """Cut a stream.  Idempotent."""
        if transport.state is not State.ENDED:
            sock = transport.sock
            self._let_go(transport, reason)
            close(sock)

    def _let_go(self, transport: Transport, reason: str) -> None:
        client = transport.client
        client.transport = client.abort = None  # first: it does not stay in the audience
        transport.move(State.ENDED)
        transport.rest = transport.sock = None
        if self._by_fd.get(transport.fd) is transport:
            del self._by_fd[transport.fd]
            self._poller.remove(transport.fd)
        client.finish(reason)
        on_end = transport.on_end
        if on_end is not None:
            self.ends.submit(lambda: on_end(transport.written))

    def _take_over(self, transport: Transport) -> None:
        try:
            self._poller.add(transport.fd)
        except (OSError, ValueError):
            self.end(transport, "client_gone")
            return
        self._by_fd[transport.fd] = transport
        transport.client.transport = transport
        transport.client.queue.hang(transport)  # rings: what has come meanwhile is served

    def _linger(self, sock: Any) -> None:
        rest = Lingering(sock)
        if rest.begin():
            self._by_fd[rest.fd] = rest
            self._poller.add(rest.fd)
            self._later(LINGER, rest, self._close)

    def _close(self, rest: Lingering) -> None:
        if self._by_fd.get(rest.fd) is rest:
            del self._by_fd[rest.fd]
            self._poller.remove(rest.fd)
            rest.close()

    def _later(self, seconds: float, whose: Any, act: Callable[..., None]) -> None:
        heapq.heappush(self._timers, (self.now() + seconds, next(self._order), whose, act))
        self._wake()  # it need not be the pump that says this

    def _run_on(self) -> None:
        while not self._stopped:
            try:
                self.turn()
            except Exception:  # the thread must outlive whatever it meets
                _log.exception("a turn of the pump failed")
        with self.lock:
            for one in list(self._by_fd.values()):
                if isinstance(one, Transport):
                    self.end(one, "shutdown")
                else:
                    self._close(one)

    @property
    def calls_waiting(self) -> int:
        """How many calls wait for a helper thread."""
        return sum(lane.depth for lane in (self.reads, self.asks, self.ends))

    def turn(self) -> None:
        """Wait for something, then act on what there is."""
        self._asleep = True
        events = self._poller.poll(0 if self._todo else self._until_timer())
        self._asleep = False
        if self._todo and self.now() - self._spread_at < self.PAUSE:
            self._patience.acquire(
                timeout=self.GATHER
            )  # more is coming, from who needs the GIL now
        began = self.now()
        with self.lock:
            self._act_on(events)
        self.longest_turn = max(self.longest_turn, self.now() - began)
        for lane in (self.asks, self.ends):
            if lane.waits:
                lane.look()

    def _act_on(self, events: list[tuple[int, int]]) -> None:
        for fd, mask in events:
            one = self._by_fd.get(fd)
            if one is not None:
                self._guarded(one, self._on_event, mask)
        self._run()
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            _, _, whose, act = heapq.heappop(self._timers)
            self._guarded(whose, act)

    def _on_event(self, one: Transport | Lingering, mask: int) -> None:
        if mask & ~WRITE:
            heard = hear(one.sock)
            one.heard += heard
            if heard == GONE or one.heard > MOST_HEARD:
                self._leave(one, "client_gone" if heard == GONE else "flood")
                return
        if mask & WRITE and isinstance(one, Transport) and one.state is State.BLOCKED:
            self._go_on(one)

    def _leave(self, one: Transport | Lingering, reason: str) -> None:
        if isinstance(one, Transport):
            self.end(one, reason)
        else:
            self._close(one)

    def _give_up(self, whose: Any) -> None:
        self._leave(whose, "error")

    def _until_timer(self) -> float:
        wait = SLOW if self.asks.waits or self.ends.waits else WAIT
        if not self._timers:
            return wait
        return min(wait, max(0.0, self._timers[0][0] - self.now()))
