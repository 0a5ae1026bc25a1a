"""A client as a WSGI response body: threads and greenlets iterate it to its end.

A server that says ``sse_broker.handoff`` in its environ is given the stream after
its first frames (:mod:`sse_broker.transport.pump`); the body then ends early for it.

An iterator class and not a generator: a generator that was never started never
runs its ``finally``.  The client is registered at the first iteration and never
in the view, so HEAD, a failing ``after_request`` or a client that left early
leaves nothing behind; whatever else goes wrong, the reaper finds it.
"""

from __future__ import annotations

import logging
import os
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from sse_broker.core.identity import Identity
from sse_broker.core.reader import Reader
from sse_broker.core.streams import Streams
from sse_broker.core.sync import native_lock
from sse_broker.errors import BrokerStopped, LogUnavailable, TooManyConnections
from sse_broker.servers.capacity import HANDOFF
from sse_broker.servers.ending import end_with_server
from sse_broker.transport.direct import may_pass
from sse_broker.transport.sockets import server_socket, tune, waitress_socket
from sse_broker.transport.threads import Served, serve
from sse_broker.transport.watch import watch
from sse_broker.web.refusal import busy_frames, hang_up

__all__ = ["Handoff", "Stream"]

WAIT = 60.0  # seconds; a net under every wait, heartbeats come more often
POLLED_WAIT = 5.0  # where the server can only be asked whether the client left

_log = logging.getLogger("sse_broker.stream")
_warned_of_workers = False


class Handoff(Protocol):
    """What a server puts into environ to be given a stream."""

    stream: Stream | None
    """The stream that the response is, if it is one."""

    def accepts(self) -> bool:
        """Whether the server takes the stream over once its first frames are sent."""


class Stream(Iterator[bytes]):
    """The body of one stream.  Iterated by one thread; ``close()`` may come at any time."""

    def __init__(
        self,
        streams: Streams,
        identity: Identity,
        topics: tuple[str, ...],
        last_event_id: str,
        environ: Mapping[str, Any],
        *,
        room: int = 0,
        address: str = "",
    ) -> None:
        self._streams = streams
        self._identity = identity
        self._topics = topics
        self._last_event_id = last_event_id
        self._room = room
        self._address = address
        self._socket = server_socket(environ)
        self._left: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
        self._foreign = waitress_socket(environ)
        self._wait = WAIT if self._left is None else POLLED_WAIT
        self._now = streams.clock.monotonic
        self._several = bool(environ.get("wsgi.multiprocess"))
        self._handoff = environ.get(HANDOFF)
        if self._handoff is not None:
            self._handoff.stream = self
        self._handed = False
        self.start_response: Any = None
        """What the response was given by its server, or by what is between the two."""
        self._served: Served | None = None
        self._response: Any = None
        self._is_under_way = False
        self._yielded = 0  # bytes, at first
        self._reader: Reader | None = None
        self._unwatch: Callable[[], None] | None = None
        self._lock = native_lock()  # the socket is not shut down once close() has returned
        self._closed = False
        self._refused = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        reader = self._reader
        if reader is None:
            return self._first()
        if self._handed:
            raise StopIteration
        reader.client.last_seen = self._now()  # the last chunk was written
        if not self._is_under_way:
            self._get_under_way(reader)
        while not self._closed:
            chunk = self._next(reader)
            if chunk:
                return chunk
            if chunk is None or (self._left is not None and self._left()):
                break
        self.close()
        raise StopIteration

    def _first(self) -> bytes:
        if self._closed:
            raise StopIteration
        _warn_of_workers(self._several and not self._streams.log.shared)
        end_with_server(self._streams)
        try:
            reader = self._streams.open(
                self._identity,
                self._topics,
                self._last_event_id,
                room=self._room,
                address=self._address,
            )
        except (TooManyConnections, BrokerStopped, LogUnavailable) as err:
            self._closed = self._refused = True
            return busy_frames(err, self._streams.retry())
        self._reader = reader
        if self._socket is not None:
            _open.add(self)
            tune(self._socket)
        elif self._foreign is not None:
            tune(self._foreign)
            reader.client.abort = self._abort_foreign
        if self._handoff is not None and self._handoff.accepts():
            self._handed = True
        elif self._socket is not None:
            reader.client.abort = self._abort
            self._unwatch = watch(self._socket, reader.client.cut)
        first = reader.next(0) or b""
        self._yielded = len(first)
        return first

    def _get_under_way(self, reader: Reader) -> None:
        """Have live messages written where they are fanned out, now that headers are sent."""
        self._is_under_way = True
        if self._socket is not None and self._handoff is None:
            self._response = may_pass(self.start_response, self._yielded)
        if self._response is not None:
            host = self._streams.here().delivery.host
            self._served = serve(host, reader, self._socket, bool(self._response.chunked))
        self.start_response = None

    def _next(self, reader: Reader) -> bytes | None:
        served = self._served
        if served is None:
            return reader.next(self._wait)
        chunk = served.next(self._wait)
        self._response.sent += served.take_written()
        return chunk

    def hand_off(self) -> tuple[Streams, Reader] | None:
        """Return what another writer needs to go on, if this stream is to be handed off."""
        return (self._streams, self._reader) if self._handed and self._reader else None

    def leave_to_parent(self, dead: socket.socket) -> None:
        """In a forked child: put *dead* where this process has the parent's connection.

        Under gevent a copy of the write that the parent is in may go on here.
        """
        fd = -1 if self._socket is None else self._socket.fileno()
        if fd >= 0:  # else it is closed already
            os.dup2(dead.fileno(), fd, inheritable=False)

    def close(self) -> None:
        """Take the client out.  Any thread; idempotent; waits for nothing."""
        _open.discard(self)
        with self._lock:
            self._closed = True
            unwatch, self._unwatch = self._unwatch, None
        if self._served is not None:
            self._served.leave()
        if unwatch is not None:
            unwatch()
        if self._refused:
            hang_up(self._socket)
        if self._reader is not None:
            self._streams.forget(self._reader.client, "client_gone")

    def _abort_foreign(self) -> None:
        """Shut a connection down that another thread may close meanwhile."""
        try:
            self._foreign.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _abort(self) -> None:
        """Shut the connection down under a write that is stuck in it."""
        with self._lock:
            if self._closed or self._socket is None:
                return
            try:
                # A second descriptor: shutdown() on a TLS socket would touch the TLS
                # state that the stuck thread is using.
                twin = socket.socket(fileno=os.dup(self._socket.fileno()))
            except OSError:
                return
            try:
                twin.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            finally:
                twin.close()


_open: weakref.WeakSet[Stream] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Let go of the connections that a fork has copied, so that only the parent writes and ends."""
    streams = list(_open)
    _open.clear()
    if streams:
        dead, peer = socket.socketpair()
        peer.close()
        for stream in streams:
            stream.leave_to_parent(dead)
        dead.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _warn_of_workers(due: bool) -> None:
    global _warned_of_workers
    if due and not _warned_of_workers:
        _warned_of_workers = True
        _log.warning(
            "several worker processes, each with a memory:// log of its own: a message reaches"
            " only the clients of the worker that sent it; run one worker with more threads"
        )
