"""Hand-off: one thread per process that writes to the sockets of all its streams.

A stream whose headers and first frames have been sent leaves its WSGI thread
and is a *sink* from then on: its client, its reader and its socket.

Two ways lead to a socket.  A sink that is *ready* (live, nothing waits, nothing
is left of the last write) is written to directly: neighbouring records share
one join and one write.  All others get records into their client's queue, and
the pump drains that queue through the reader as the thread hosts do.

Reading the log, and code of the application (authorizers, receivers of signals,
what closes a response), is done by threads at the side, never here; a sink that
is *aside* is left alone until that is done.

The GIL: a socket's ``send`` gives it up, and beside a busy thread it comes back
a switch interval (5 ms) later, for each write.  So plain sockets are written to
by the C library's ``send``, called without giving it up; it never blocks.

Everything here belongs to the pump's thread, but for :meth:`Pump.adopt`,
:meth:`Pump.call`, :meth:`Pump.linger` and what rings a sink, which only append to
``_todo`` and wake it.  Lock map: none of its own; a client's lock is taken for
O(1) work or one copy of its queue.
"""

from __future__ import annotations

import collections
import ctypes
import heapq
import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sse_broker.core.batch import Batch, as_chunk
from sse_broker.core.client import Client, State
from sse_broker.core.reader import Reader
from sse_broker.core.threads import is_alive, spawn
from sse_broker.web.poller import WRITE, make_poller
from sse_broker.web.side import Side
from sse_broker.web.sockets import FLAGS, c_send

__all__ = ["Pump", "Sink"]

LINGER = 2.0  # seconds that a peer has to read the rest and close
WAIT = 5.0  # seconds; a net under every wait
ASIDE_BYTES = 64 * 1024  # read at the side at once, for one client
_LIVE, _CLOSED = State.LIVE, State.CLOSED

_log = logging.getLogger("sse_broker.pump")


_SEND = c_send()


class Sink:
    """One stream that was handed off.  Calling it has the pump serve it."""

    __slots__ = (
        "again",
        "aside",
        "chunked",
        "client",
        "fd",
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
        self.written = 0
        self.read: tuple[bytes, bool] | None = None  # at the side, and whether that was all
        self.ready = self.aside = self.again = False

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

    def tell_dropped(self, client: Client, count: int) -> None:
        """Have the receivers of a signal called at the side."""
        self.pump.side.submit(lambda: self.told(client, count))

    def on_event(self, mask: int) -> None:
        """Act on what the poller saw."""
        if mask & ~WRITE and not self.pump.peer_lives(self.sock):
            self.pump.end(self, "client_gone")
        elif mask & WRITE and self.out is not None:
            self.pump.go_on(self)


class _Lingering:
    """A socket that has said everything and waits for its peer to close."""

    __slots__ = ("pump", "sock")

    def __init__(self, pump: Pump, sock: Any) -> None:
        self.pump, self.sock = pump, sock

    def on_event(self, mask: int) -> None:
        """Take what the peer still says; close when it has closed."""
        if mask & ~WRITE and not self.pump.peer_lives(self.sock):
            self.pump.let_go(self)


class Pump:
    """The one thread that writes for all streams of a process.  A host of streams."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._poller = make_poller()
        self._by_fd: dict[int, Sink | _Lingering] = {}
        self._todo: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._asleep = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.side = Side()

    def start(self) -> None:
        """Start the thread.  Idempotent."""
        if not self.is_alive:
            self._thread = spawn("pump", self._run)

    def restart(self) -> None:
        """Start the thread again if it died; it goes on with the streams it has."""
        if self._thread is not None and not self.is_alive and not self._stopped:
            _log.error("the pump had died; it is started again")
            self.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return is_alive(self._thread)

    def stop(self) -> None:
        """Cut every stream and end the threads.  Waits 5 s at most for each."""
        self._stopped = True
        self._poller.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self.side.stop()

    # From any thread.

    def post(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, on the pump's thread.  Never waits."""
        self._todo.append(act)
        if self._asleep:
            self._asleep = False
            self._poller.wake()

    call = post

    def adopt(
        self, reader: Reader, sock: Any, chunked: bool, on_end: Callable[[int], None]
    ) -> None:
        """Write *reader*'s stream to *sock* from now on.

        The socket is the pump's.  *on_end* is called once at the end, at the
        side, with the bytes of the body that were written here.
        """
        sock.setblocking(False)
        sink = Sink(self, reader, sock, chunked, on_end)
        reader.client.abort = sink.ring  # a cut is seen although the socket is stuck
        reader.on_dropped = sink.tell_dropped
        self.post(lambda: self._take_over(sink))

    def linger(self, sock: Any) -> None:
        """Close *sock* once its peer has, or after ``LINGER`` seconds; what was sent arrives."""
        self.post(lambda: self._linger(sock))

    # On the pump's thread.

    def spread(self, clients: Sequence[Client], batch: Batch) -> None:
        """Write a batch to each client that is ready; queue it for the others."""
        first, last, count = batch.first, batch.last, batch.count
        plain, chunk = batch.plain, batch.chunk
        now, send, flags = self._now(), _SEND or self._python_send, FLAGS
        for client in clients:
            sink = client.sink
            if (
                sink is None
                or not sink.ready
                or sink.reader.cursor >= first
                or client._state is not _LIVE
            ):
                if sink is not None:
                    sink.ready = False  # what is queued here goes before what comes next
                client.offer_all(batch.records)
                continue
            data, size, c_size = chunk if sink.chunked else plain
            took = send(sink.fd, data, c_size, flags)
            sink.reader.cursor = last
            client.sent += count
            if took == size:
                client.last_seen = now
                sink.written += size
            else:
                self._write_rest(sink, data, took)

    def _python_send(self, fd: int, data: bytes, size: object, flags: int) -> int:
        del size, flags
        sink = self._by_fd[fd]
        return _try_send(sink.sock, data)

    def serve(self, sink: Sink) -> None:
        """Write what waits for one sink, as far as its socket takes it."""
        if sink.sock is None:
            return
        if sink.client.state is _CLOSED:
            self.end(sink, sink.client.reason)
        elif sink.read is not None:
            (data, over), sink.read, sink.aside = sink.read, None, False
            self._back(sink, data, over)
        elif sink.aside:
            sink.again = True
        elif sink.out is None:
            self._drain(sink)

    def _drain(self, sink: Sink) -> None:
        reader = sink.reader
        sink.ready = False
        sink.client.queue.arm()
        while True:
            if reader.may_wait:
                sink.aside, sink.again = True, False
                self.side.submit(lambda: self._read_aside(sink))
                return
            chunk = reader.next(0)
            if chunk is None:
                self._conclude(sink)
                return
            if chunk:
                if not self._write(sink, chunk):
                    return
            elif not reader.may_wait:
                sink.ready = reader.is_plain and not isinstance(sink.sock, ssl.SSLSocket)
                return

    def _read_aside(self, sink: Sink) -> None:
        """Take what the reader has, where that may wait.  On a side thread."""
        chunks: list[bytes] = []
        size, over = 0, False
        try:
            while size < ASIDE_BYTES and not over:
                chunk = sink.reader.next(0)
                if chunk is None:
                    over = True
                elif chunk:
                    chunks.append(chunk)
                    size += len(chunk)
                if not chunk or sink.reader.again_in or not sink.reader.may_wait:
                    break
        except Exception:  # of an authorizer, or a log that fails in a new way
            _log.exception("a stream is cut: reading for it failed")
            sink.client.cut("error")
        sink.read = (b"".join(chunks), over)
        self.post(sink)  # itself, so that the pump knows whose trouble it is

    def _back(self, sink: Sink, data: bytes, over: bool) -> None:
        if data and not self._write(sink, data):
            if over and sink.sock is not None:
                sink.again = True
            return
        if over:
            self._conclude(sink)
        else:
            self._after_aside(sink)

    def _after_aside(self, sink: Sink) -> None:
        reader = sink.reader
        if reader.again_in:
            self._later(reader.again_in, sink)
        elif sink.again or reader.is_replaying or not reader.may_wait:
            self.serve(sink)

    def _write(self, sink: Sink, data: bytes) -> bool:
        """Write one chunk; say whether all of it went."""
        if sink.chunked:
            data = as_chunk(data)
        size = len(data)
        if _SEND is None or isinstance(sink.sock, ssl.SSLSocket):
            took = _try_send(sink.sock, data)
        else:
            took = _SEND(sink.fd, data, ctypes.c_size_t(size), FLAGS)
        if took == size:
            sink.written += size
            sink.client.last_seen = self._now()
            return True
        return self._write_rest(sink, data, took)

    def _write_rest(self, sink: Sink, data: bytes, took: int) -> bool:
        """Keep what the socket did not take; end the sink if it takes nothing any more."""
        if took < 0:  # C's send says no more than that
            took = _try_send(sink.sock, data)
        if took < 0:
            self.end(sink, "client_gone")
            return False
        sink.written += took
        if took:
            sink.client.last_seen = self._now()
        if took == len(data):
            return True
        sink.ready = False
        sink.out = memoryview(data)[took:]
        self._poller.change(sink.fd, True)
        return False

    def go_on(self, sink: Sink) -> None:
        """Write on where the socket stopped."""
        data = sink.out
        assert data is not None
        took = _try_send(sink.sock, data)
        if took < 0:
            self.end(sink, "client_gone")
            return
        sink.written += took
        if took:
            sink.client.last_seen = self._now()
        if took < len(data):
            sink.out = data[took:]
            return
        sink.out = None
        self._poller.change(sink.fd, False)
        if not sink.aside:
            self._after_aside(sink) if sink.reader.again_in else self.serve(sink)

    def _conclude(self, sink: Sink) -> None:
        """End a stream that has said everything: the last chunk, then the peer closes."""
        if sink.client.state is _CLOSED:
            self.end(sink, sink.client.reason)
            return
        if sink.chunked:
            _try_send(sink.sock, b"0\r\n\r\n")
        self.end(sink, sink.client.reason, linger=True)

    def end(self, sink: Sink, reason: str, linger: bool = False) -> None:
        """Take a sink out and have the rest done at the side.  Idempotent."""
        sock, sink.sock = sink.sock, None
        if sock is None:
            return
        sink.ready, sink.out = False, None
        del self._by_fd[sink.fd]
        self._poller.remove(sink.fd)
        sink.client.sink = None
        sink.client.finish(reason)
        if linger:
            self._linger(sock)
        else:
            _close(sock)
        self.side.submit(lambda: sink.on_end(sink.written))

    def _take_over(self, sink: Sink) -> None:
        try:
            self._poller.add(sink.fd)
        except (OSError, ValueError):
            sink.client.finish("client_gone")
            _close(sink.sock)
            self.side.submit(lambda: sink.on_end(0))
            return
        self._by_fd[sink.fd] = sink
        sink.client.sink = sink
        sink.client.queue.hang(sink)  # rings: what has come meanwhile is served

    def _linger(self, sock: Any) -> None:
        try:
            sock.setblocking(False)
            sock.shutdown(socket.SHUT_WR)
            fd = sock.fileno()
            self._poller.add(fd)
        except (OSError, ValueError):  # gone already
            _close(sock)
            return
        self._by_fd[fd] = rest = _Lingering(self, sock)
        self._later(LINGER, lambda: self.let_go(rest))

    def let_go(self, rest: _Lingering) -> None:
        """Close a lingering socket.  Idempotent."""
        sock, rest.sock = rest.sock, None
        if sock is not None:
            fd = sock.fileno()
            del self._by_fd[fd]
            self._poller.remove(fd)
            _close(sock)

    @staticmethod
    def peer_lives(sock: Any) -> bool:
        """Drop what a peer says; say whether it has not closed."""
        try:
            for _ in range(8):
                if not sock.recv(4096):
                    return False
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return True

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now() + seconds, next(self._order), act))

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.turn()
            except Exception:  # the thread must outlive whatever it meets
                _log.exception("a turn of the pump failed")
        for one in list(self._by_fd.values()):
            if isinstance(one, Sink):
                self.end(one, "shutdown")
            else:
                self.let_go(one)

    def turn(self) -> None:
        """Wait for something, then act on what there is."""
        self._asleep = True
        events = self._poller.poll(0 if self._todo else self._until_timer())
        self._asleep = False
        for fd, mask in events:
            one = self._by_fd.get(fd)
            if one is not None:
                self._guarded(one, one.on_event, mask)
        todo = self._todo
        for _ in range(len(todo)):
            act = todo.popleft()
            self._guarded(act, act)
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            act = heapq.heappop(self._timers)[2]
            self._guarded(act, act)

    def _guarded(self, whose: object, act: Callable[..., None], *arguments: object) -> None:
        """Call *act*; should it raise, end the one that it was about, if that is known."""
        try:
            act(*arguments)
        except Exception:  # one stream's trouble is not the others'
            _log.exception("the pump failed at one thing of many")
            if isinstance(whose, Sink):
                self.end(whose, "error")
            elif isinstance(whose, _Lingering):
                self.let_go(whose)

    def _until_timer(self) -> float:
        if not self._timers:
            return WAIT
        return min(WAIT, max(0.0, self._timers[0][0] - self._now()))


def _try_send(sock: Any, data: bytes | memoryview) -> int:
    """Return how many bytes a non-blocking socket took, or -1 if it is gone."""
    try:
        return int(sock.send(data))
    except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return 0
    except OSError:
        return -1


def _close(sock: Any) -> None:
    try:
        # A forked child may hold the descriptor too; the peer is told all the same.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass
    try:
        sock.close()
    except OSError:
        pass
