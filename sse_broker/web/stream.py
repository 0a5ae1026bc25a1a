"""A client as a WSGI response body: threads and greenlets iterate it to its end.

Bytes go past the server only where the object that the server iterates is the
stream itself.  A worker of ours that finds it so calls :meth:`Stream.leave` and takes
the stream over after its first frames; another server says so when it asks for the
second item (:meth:`Server.passage <sse_broker.servers.Server.passage>`).  Whatever
is in between, a tracer, an encoder, ``map``, has each byte from here in the thread of
the request, and its end when the stream ends.

An iterator class and not a generator: a generator that was never started never
runs its ``finally``.  The client is registered at the first iteration and never
in the view, so HEAD, a failing ``after_request`` or a client that left early
leaves nothing behind.  A stream that somebody takes items from and then forgets
is taken out with the next one, or by the reaper's next tick.
"""

from __future__ import annotations

import collections
import logging
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Response

from sse_broker.core.client import Client
from sse_broker.core.identity import Identity
from sse_broker.core.reader import Reader
from sse_broker.core.since import Since
from sse_broker.core.streams import Streams
from sse_broker.errors import BrokerStopped, LogUnavailable, TooManyConnections
from sse_broker.servers import Server
from sse_broker.servers.capacity import Seats, seats, threads_for_streams
from sse_broker.servers.connection import Connection
from sse_broker.servers.ending import end_with_server
from sse_broker.transport.sockets import tune
from sse_broker.transport.threads import Served, serve
from sse_broker.transport.watch import watch
from sse_broker.web.refusal import busy_frames

__all__ = ["Stream", "StreamResponse", "take_out_forgotten"]

WAIT = 60.0  # seconds; a net under every wait, heartbeats come more often
POLLED_WAIT = 5.0  # where the server can only be asked whether the client left

_log = logging.getLogger("sse_broker.stream")
_warned_of_workers = False
_said_what_is_in_between = False


class Stream(Iterator[bytes]):
    """The body of one stream.  Iterated by one thread; ``close()`` may come at any time."""

    _is_over = True  # until there is something to take out

    def __init__(
        self,
        streams: Streams,
        identity: Identity,
        topics: tuple[str, ...],
        last_event_id: str,
        server: Server,
        *,
        several: bool = False,
        room: int = 0,
        address: str = "",
        since: Since | None = None,
    ) -> None:
        self._streams = streams
        self._identity = identity
        self._topics = topics
        self._last_event_id, self._since = last_event_id, since
        self._server = server
        self._room = room
        self._address = address
        self._several = several
        self._wait = WAIT if server.has_left is None else POLLED_WAIT
        self._leaves = False
        self._response: Any = None
        self._is_under_way = False
        self._reader: Reader | None = None
        self._held = _Held(streams)
        self._is_over = False
        self.at_close: list[Callable[[], Any]] = []
        """What the response is to call when its server, or what is in between, closes it."""

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        reader = self._reader
        if reader is None:
            return self._first()
        reader.client.last_seen = self._streams.clock.monotonic()  # the last chunk was written
        if not self._is_under_way:
            self._is_under_way = True
            self._get_under_way(reader)
        has_left = self._server.has_left
        while not self._is_over:
            chunk = self._next(reader)
            if chunk:
                return chunk
            if chunk is None or (has_left is not None and has_left()):
                break
        self._end()  # first: whoever watches would take what follows for the client's end
        self._server.hang_up()
        raise StopIteration

    def _first(self) -> bytes:
        if self._is_over:
            self._server.hang_up()
            raise StopIteration
        take_out_forgotten()
        _warn_of_workers(self._several and not self._streams.log.shared)
        end_with_server(self._streams, self._server)
        try:
            if not self._leaves:
                self._keep_thread()
            self._reader = reader = self._streams.open(
                self._identity,
                self._topics,
                self._last_event_id,
                room=self._room,
                address=self._address,
                since=self._since,
            )
        except (TooManyConnections, BrokerStopped, LogUnavailable) as err:
            self._is_over = True
            self._held.release()
            return busy_frames(err, self._streams.retry())
        held, server, sock = self._held, self._server, self._server.socket
        held.client = reader.client
        if sock is not None:
            tune(sock)
            if not self._leaves:
                held.connection = Connection(sock, server.is_socket_foreign)
                reader.client.abort = held.connection.cut
                if not server.is_socket_foreign:
                    held.unwatch = watch(sock, reader.client.cut)
        return reader.next(0) or b""

    def _keep_thread(self) -> None:
        """Take one of the threads that streams may keep.

        :raises TooManyConnections: the rest is kept for other requests.
        """
        if self._server.hands_off:
            _say_what_is_in_between(sys._getframe(3))
        here = seats()
        if not here.take(threads_for_streams(self._server, self._streams.config.reserve_threads)):
            raise self._streams.too_many("reserve_threads")
        self._held.seats = here

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or was refused."""
        return self._is_over

    def leave(self) -> None:
        """Have another writer take this stream over once its first frames are sent.

        Called before the first iteration, by a server that iterates the stream itself.
        """
        self._leaves = True

    def _get_under_way(self, reader: Reader) -> None:
        """Have live messages written where they are fanned out, now that headers are sent."""
        caller = sys._getframe(1).f_back  # none where a server in C iterates, as uWSGI does
        passage = self._server.passage(self, caller) if caller is not None else None
        host = self._streams.here().delivery.host
        if passage is not None and host is not None:
            self._response = passage.response
            self._held.served = serve(host, reader, self._server.socket, passage.chunked)

    def _next(self, reader: Reader) -> bytes | None:
        served = self._held.served
        if served is None:
            return reader.next(self._wait)
        chunk = served.next(self._wait)
        self._response.sent += served.take_written()
        return chunk

    def hand_off(self) -> tuple[Streams, Reader] | None:
        """Return what another writer needs to go on; ``None`` if the stream is over.

        From then on that writer takes the client out at its end, and calls
        :meth:`close` for what the application has put off to it.
        """
        if self._is_over or self._reader is None:
            return None
        self._is_over = True
        return self._streams, self._reader

    def close(self) -> None:
        """End the stream, and do what the response put off to its end.

        The server, or what is in between, calls it: any thread, idempotent.
        """
        self._end()
        self._server.hang_up()
        todo, self.at_close = self.at_close, []
        for act in todo:
            act()

    def _end(self) -> None:
        """Take the client out.  Any thread; idempotent; waits for nothing."""
        if self._is_over:
            return
        self._is_over = True
        self._held.release()

    def __del__(self) -> None:
        # This may run at any allocation, under any lock: nothing is done here but a note.
        if not self._is_over:
            _forgotten.append(self._held)


class StreamResponse(Response):
    """A response whose body is passed to the server as it is."""

    implicit_sequence_conversion = False

    def get_app_iter(self, environ: Any) -> Iterable[bytes]:
        """Return the stream itself, if nothing was put in its place or around it."""
        stream = self.response
        if type(stream) is not Stream:
            return super().get_app_iter(environ)
        stream.at_close = self._on_close
        return stream


class _Held:
    """What a stream holds of its process, until it ends or somebody finds that it was forgotten."""

    __slots__ = ("client", "connection", "seats", "served", "streams", "unwatch")

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.seats: Seats | None = None
        self.client: Client | None = None
        self.served: Served | None = None
        self.connection: Connection | None = None
        self.unwatch: Callable[[], None] | None = None

    def release(self) -> None:
        """Let go of it all.  Any thread, once."""
        if self.served is not None:  # first: nobody may write to a descriptor that is closed
            self.served.leave()
        if self.connection is not None:
            self.connection.end()
        if self.unwatch is not None:
            self.unwatch()
        if self.seats is not None:
            self.seats.leave()
        if self.client is not None:
            self.streams.forget(self.client, "client_gone")


_forgotten: collections.deque[_Held] = collections.deque()


def take_out_forgotten() -> None:
    """Take out the clients of streams that were dropped without ``close()``.  Any thread."""
    while _forgotten:
        try:
            held = _forgotten.popleft()
        except IndexError:  # another thread has it
            return
        held.release()


def _say_what_is_in_between(caller: types.FrameType) -> None:
    """Say once who keeps streams from leaving their threads."""
    global _said_what_is_in_between
    if not _said_what_is_in_between:
        _said_what_is_in_between = True
        module, function = caller.f_globals.get("__name__"), caller.f_code.co_name
        _log.warning(
            "streams keep their threads: what iterates them (%s.%s, or an iterator that it"
            " iterates) is not the server itself, and has to see every byte; a middleware that"
            " leaves the bodies of streams alone would let them leave",
            module,
            function,
        )


def _warn_of_workers(due: bool) -> None:
    global _warned_of_workers
    if due and not _warned_of_workers:
        _warned_of_workers = True
        _log.warning(
            "several worker processes, each with a memory:// log of its own: a message reaches"
            " only the clients of the worker that sent it; run one worker with more threads"
        )
