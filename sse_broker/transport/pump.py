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

Everything here belongs to who holds the pump's lock: its thread, for each turn; who
sends to a few, for that; and who asks what was written.  :meth:`Pump.adopt`,
:meth:`Pump.call`, :meth:`Pump.linger` and what rings a sink need no lock: they only
append to ``_todo`` and wake the thread.

Lock map
    _lock     native; held for a turn, which never waits; a sender tries it and waits not
    order     taken inside a log's own turn; the process's lock and a client's, for
              O(1) work or one copy of its queue, are taken inside it
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
from sse_broker.core.registry import Audience, Bucket
from sse_broker.core.sync import Loop, native_lock
from sse_broker.core.threads import is_alive, spawn
from sse_broker.transport.cohort import Cohort, leave, offer, settle
from sse_broker.transport.poller import make_poller
from sse_broker.transport.side import Side
from sse_broker.transport.sink import Lingering, Sink, close, try_send
from sse_broker.transport.sockets import FLAGS, c_send

__all__ = ["Pump", "Sink"]

LINGER = 2.0  # seconds that a peer has to read the rest and close
WAIT = 5.0  # seconds; a net under every wait
ASIDE_BYTES = 64 * 1024  # read at the side at once, for one client
FEW, PAUSE = Loop.FEW, Loop.PAUSE
SLICE = 1_000  # clients that are settled before others may have the lock
GATHER = 0.0005  # seconds in which more of a burst comes in before it is written
TOGETHER = 16  # clients from which on a cohort pays
_CLOSED = State.CLOSED

_log = logging.getLogger("sse_broker.pump")


_SEND = c_send()


class Pump:
    """The one thread that writes for all streams of a process.  A host of streams."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._poller = make_poller()
        self._by_fd: dict[int, Sink | Lingering] = {}
        self._todo: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._asleep = False
        self._stopped = False
        self._lock = native_lock()
        self._patience = native_lock()  # held but at the end: to take it is to wait
        self._patience.acquire()
        self._spread_at = 0.0
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
        if not self._stopped:
            self._stopped = True
            self._patience.release()
        self._poller.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self.side.stop()

    # From any thread.

    def post(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, on the pump's thread.  Never waits."""
        self._todo.append(act)
        if self._asleep:
            self._rouse()

    def _rouse(self) -> None:
        self._asleep = False
        self._poller.wake()

    call = again = post

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """See :class:`Host`: for a few, and after a pause, on the caller's thread."""
        if not self._is_free() or clients() > FEW or not self._lock.acquire(False):
            self.post(act)
            return
        try:
            self._guarded(act, act)
        finally:
            self._lock.release()

    def _is_free(self) -> bool:
        return not self._todo and self._now() - self._spread_at > PAUSE

    def adopt(
        self, reader: Reader, sock: Any, chunked: bool, on_end: Callable[[int], None]
    ) -> None:
        """Write *reader*'s stream to *sock* from now on.

        The socket is the pump's.  *on_end* is called once at the end, at the
        side, with the bytes that were written here, those of the chunked coding too.
        """
        sock.setblocking(False)
        sink = Sink(self, reader, sock, chunked, on_end)
        reader.client.abort = sink.ring  # a cut is seen although the socket is stuck
        reader.on_dropped = sink.tell_dropped
        self.post(lambda: self._take_over(sink))

    def linger(self, sock: Any) -> None:
        """Close *sock* once its peer has, or after ``LINGER`` seconds; what was sent arrives."""
        self.post(lambda: self._linger(sock))

    # By who holds the lock.

    def spread(self, clients: Sequence[Client], batch: Batch) -> None:
        """Write a batch to each client that is ready; queue it for the others."""
        if isinstance(clients, Audience) and len(clients) >= TOGETHER:
            self._write_together(clients, batch)
        else:
            if isinstance(clients, Audience) and clients.bucket.cohort is not None:
                self._dissolve(clients.bucket)
            for client in clients:
                self._write_batch(client, batch)
        self._spread_at = self._now()

    def _write_together(self, clients: Audience, batch: Batch) -> None:
        cohort = clients.bucket.cohort
        if cohort is None:
            cohort = clients.bucket.cohort = Cohort()
        cohort.follow(clients)
        cohort.gather(batch)
        try:
            failed = cohort.write(batch, _SEND or self._python_send, self._now())
        except BaseException:  # who has how much of it? they come back with their last ids
            for sink in cohort.members():
                self.end(sink, "error")
            raise
        for sink, took in failed:
            self._guarded(sink, self._keep_rest, sink, batch, took)

    def _keep_rest(self, sink: Sink, batch: Batch, took: int) -> None:
        self._note(sink, batch)
        self._write_rest(sink, batch.form(sink.chunked)[0], took)

    def _dissolve(self, bucket: Bucket) -> None:
        """Give up a cohort whose audience has become small."""
        cohort, bucket.cohort = bucket.cohort, None
        for sink in cohort.members():
            leave(sink)  # its other cohorts too, which take it in again:
            sink.ready = True  # it still has nothing to write

    def _write_batch(self, client: Client, batch: Batch) -> None:
        sink = client.sink
        if sink is None or not sink.takes(batch):
            offer(client, batch)
            return
        data, size, c_size = batch.form(sink.chunked)
        try:
            took = (_SEND or self._python_send)(sink.fd, data, c_size, FLAGS)
            self._note(sink, batch)
        except BaseException:  # how much of it is out? it comes back with its last id
            self.end(sink, "error")
            raise
        if took == size:
            client.last_seen = self._now()
            sink.written += size
        else:
            self._write_rest(sink, data, took)

    @staticmethod
    def _note(sink: Sink, batch: Batch) -> None:
        sink.reader.cursor = batch.last
        sink.client.sent += batch.count

    def _python_send(self, fd: int, data: bytes, size: object, flags: int) -> int:
        del size, flags
        sink = self._by_fd[fd]
        return try_send(sink.sock, data)

    def heed(self, clients: Sequence[Client]) -> None:
        """Do at once what some clients' bells have rung for, before anything else is written."""
        for client in clients:
            if client.sink is not None:
                client.sink()

    def settle(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them.  Any thread; waits for a turn's end.

        A second at most: then they know a little later.
        """
        self._settle(clients, 1.0)

    def look(self, clients: Sequence[Client]) -> None:
        """As :meth:`settle`, as far as that can be had without waiting.  Any thread."""
        self._settle(clients, 0.0)

    def _settle(self, clients: Sequence[Client], timeout: float) -> None:
        for start in range(0, len(clients), SLICE):
            if not self._lock.acquire(timeout=timeout):
                return
            try:
                for client in clients[start : start + SLICE]:
                    if isinstance(client.sink, Sink) and client.sink.member_of:
                        settle(client.sink)
            finally:
                self._lock.release()

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
        leave(sink)
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
            took = try_send(sink.sock, data)
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
            took = try_send(sink.sock, data)
        if took < 0:
            self.end(sink, "client_gone")
            return False
        sink.written += took
        if took:
            sink.client.last_seen = self._now()
        if took == len(data):
            return True
        leave(sink)
        sink.out = memoryview(data)[took:]
        self._poller.change(sink.fd, True)
        return False

    def go_on(self, sink: Sink) -> None:
        """Write on where the socket stopped."""
        data = sink.out
        assert data is not None
        took = try_send(sink.sock, data)
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
            try_send(sink.sock, b"0\r\n\r\n")
        self.end(sink, sink.client.reason, linger=True)

    def end(self, sink: Sink, reason: str, linger: bool = False) -> None:
        """Take a sink out and have the rest done at the side.  Idempotent."""
        sock, sink.sock = sink.sock, None
        if sock is None:
            return
        sink.client.sink = None  # first: it does not stay in the audience
        sink.client.abort = None
        leave(sink)
        sink.out = None
        del self._by_fd[sink.fd]
        self._poller.remove(sink.fd)
        sink.client.finish(reason)
        if linger:
            self._linger(sock)
        else:
            close(sock)
        self.side.submit(lambda: sink.on_end(sink.written))

    def _take_over(self, sink: Sink) -> None:
        try:
            self._poller.add(sink.fd)
        except (OSError, ValueError):
            sink.client.finish("client_gone")
            close(sink.sock)
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
            close(sock)
            return
        self._by_fd[fd] = rest = Lingering(self, sock)
        self._later(LINGER, lambda: self.let_go(rest))

    def let_go(self, rest: Lingering) -> None:
        """Close a lingering socket.  Idempotent."""
        sock, rest.sock = rest.sock, None
        if sock is not None:
            fd = sock.fileno()
            del self._by_fd[fd]
            self._poller.remove(fd)
            close(sock)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self._now() + seconds, next(self._order), act))
        if self._asleep:  # it is not the pump that says this
            self._rouse()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.turn()
            except Exception:  # the thread must outlive whatever it meets
                _log.exception("a turn of the pump failed")
        with self._lock:
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
        if self._todo and self._now() - self._spread_at < PAUSE:
            self._patience.acquire(timeout=GATHER)  # more is coming, from who needs the GIL now
        with self._lock:
            self._act_on(events)

    def _act_on(self, events: list[tuple[int, int]]) -> None:
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
            elif isinstance(whose, Lingering):
                self.let_go(whose)

    def _until_timer(self) -> float:
        if not self._timers:
            return WAIT
        return min(WAIT, max(0.0, self._timers[0][0] - self._now()))
