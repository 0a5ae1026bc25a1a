"""What hosts of streams ask of a broker, and what looks after it: ``broker.streams``.

An application needs nothing of this.  A host (a WSGI response, a server's worker)
checks with :meth:`Streams.check_room`, :meth:`Streams.check_topics` and
:meth:`Streams.check_token` whether a stream is let in, calls :meth:`Streams.open`
where the stream is written, and :meth:`Streams.forget` when it has ended.

What belongs to one process is made at its first use there
(:mod:`sse_broker.core.process`), so nothing is locked or started before a fork.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from sse_broker.config import BrokerConfig
from sse_broker.core import signals
from sse_broker.core.access import Access
from sse_broker.core.client import Client
from sse_broker.core.counts import Counts, Stats
from sse_broker.core.forks import process_id
from sse_broker.core.grants import allows
from sse_broker.core.identity import Identity
from sse_broker.core.listeners import Listeners
from sse_broker.core.measures import Measures
from sse_broker.core.ports import (
    Authorizer,
    Clock,
    Log,
    LogLimits,
    Record,
    StreamHost,
)
from sse_broker.core.process import Life, Process
from sse_broker.core.questions import ask
from sse_broker.core.reader import Reader
from sse_broker.core.resume import locate
from sse_broker.core.since import Since, begin_at
from sse_broker.core.state import ALL, state_at, unmarked
from sse_broker.core.sync import patched
from sse_broker.errors import (
    AuthenticationFailed,
    LogUnavailable,
    StreamingUnsupported,
    TooManyConnections,
)
from sse_broker.wire.message import Message, comment_frame, library_frame
from sse_broker.wire.topics import check_pattern

__all__ = ["Streams"]

_log = logging.getLogger("sse_broker.broker")


class Streams:
    """The streams of one broker, for their hosts.

    *owner* is the broker: the sender of its signals.  Any thread may call any
    method; only those that say so wait.
    """

    def __init__(
        self,
        owner: object,
        config: BrokerConfig,
        log: Log,
        clock: Clock,
        limits: LogLimits,
        make_host: Callable[[], StreamHost],
        authorizer: Authorizer | None = None,
    ) -> None:
        self.config = config
        self.log = log
        self.clock = clock
        self._limits = limits
        self._owner = owner
        self._make_host = make_host
        self.app_context: Callable[[], AbstractContextManager[object]] = nullcontext
        """What the application's own functions are called in; set by who knows the app."""
        self.access = Access(
            config, log, clock, authorizer, lambda: self.app_context(), self._authorizer_failed
        )
        self._processes: dict[int, Process] = {}
        self._ticks: dict[object, Callable[[], None]] = {}
        self._parts: dict[tuple[str, Callable[[], bool]], None] = {}
        self._dropped_said = -60.0
        self.listeners = Listeners(owner, self.ask, clock)
        self._ticks["listeners"] = self.listeners.tick
        self.is_hosted = False  # whether an application means to serve streams of this broker
        self.is_served = False  # whether this process, or the one it was forked from, does
        self._said_alone = False

    def describe(self) -> str:
        """Return this process's life and number of clients, for a ``repr``.  Never waits."""
        here = self.here()
        return f"{here.life.value}, {here.size} clients"

    def start(self) -> None:
        """See :meth:`Broker.start <sse_broker.Broker.start>`."""
        self._here_for_streams().start()

    def stop(self, timeout: float | None = None) -> None:
        """See :meth:`Broker.stop <sse_broker.Broker.stop>`."""
        self.here().stop(self.config.drain_timeout if timeout is None else timeout)
        self.access.asking.stop()

    def open(
        self,
        identity: Identity,
        topics: Iterable[str] = (),
        last_event_id: str = "",
        *,
        room: int = 0,
        address: str = "",
        since: Since | None = None,
    ) -> Reader:
        """Register a client for *identity* and return what reads for it.

        Called where the stream is written, and :meth:`forget` with ``reader.client``
        when that is over.  *topics* are as :meth:`check_topics` returned them.
        *room* is how many streams the server can hold in this process, 0 where the
        server does not say; *address* is counted for ``max_connections_per_address``.
        A stream that does not resume begins with what *since* asks for.

        :raises TooManyConnections: a limit is reached.
        :raises BrokerStopped: the broker is stopped.
        :raises LogUnavailable: the log cannot be read now.
        """
        here = self._here_for_streams()
        here.ensure_running()
        topics = tuple(topics)
        base, missing = unmarked(last_event_id)
        start, lost = locate(self.log, base, identity, topics, self.access.may_read)
        client = Client(
            identity,
            topics=topics,
            buffer_size=self.config.client_buffer_size,
            overflow=self.config.overflow,
            behind=start is not None or since is not None,
            clock=self.clock,
            spread=random.uniform(0.75, 1.0),
            address=address,
        )
        registered_at = here.register(client, room)
        if identity.expires_at is not None and identity.expires_at <= self.clock.time():
            client.close("expired")
        try:
            self.check_token(identity)
        except AuthenticationFailed:  # revoked since the request was checked: say so and end
            client.close("revoked")
        except LogUnavailable:
            here.forget(client, "log_unavailable")
            raise
        begin, earliest = registered_at if start is None else start, None
        try:
            if start is None and since is not None:
                begin, is_whole = begin_at(self.log, since, self._wants(client))
                earliest = None if is_whole else self._time_after(begin)
            state = state_at(self.log, client, begin, ALL if start is None else missing)
        except LogUnavailable:
            here.forget(client, "log_unavailable")
            raise
        if lost:
            here.reset(lost)
        elif start is not None:
            here.replay_began()
        if here.trace is not None:
            here.trace.began(client, start, lost)
        return Reader(
            client,
            self.log,
            begin,
            heartbeat=self._heartbeat,
            heartbeat_interval=self.config.heartbeat_interval,
            retry=here.admission.retry,
            authorizer=self.access.of_readers,
            on_dropped=self._on_dropped,
            on_reset=here.reset,
            on_failure=self.access.failed,
            lost=lost if earliest is None else lost or "trimmed",
            resumed=start is not None,
            state=state,
            earliest=earliest,
        )

    def _wants(self, client: Client) -> Callable[[Record], bool]:
        """Return whether a record is for *client*, as live delivery would decide it."""
        known: dict[str, bool] = {}

        def may_read_topic(topic: str) -> bool:
            if topic not in known:
                try:
                    known[topic] = self.access.ask(client.identity, topic)
                except Exception:  # the application's; the reader says so when it comes to it
                    known[topic] = False
            return known[topic]

        def wants(record: Record) -> bool:
            message = record.message
            if not isinstance(message, Message) or not client.wants(message):
                return False
            return allows(client, message, may_read_topic)

        return wants

    def _time_after(self, position: int) -> int:
        """Return when the first message after a position was made, or now, as Unix time."""
        for record in self.log.read(position, 1):
            if isinstance(record.message, Message):
                return int(record.message.created_at.timestamp())
        return int(self.clock.time())

    def register(self, client: Client) -> None:
        """Take in a client that reads its queue by itself.  See :meth:`Broker.register`."""
        self._here_for_streams().register(client)

    def forget(self, client: Client, reason: str) -> None:
        """Take a client out whose stream has ended.  Idempotent."""
        self.here().forget(client, reason)

    def check_topics(self, identity: Identity, topics: Iterable[str]) -> tuple[str, ...]:
        """See :meth:`Access.check_topics <sse_broker.core.access.Access.check_topics>`."""
        return self.access.check_topics(identity, topics)

    def check_token(self, identity: Identity) -> None:
        """See :meth:`Access.check_token <sse_broker.core.access.Access.check_token>`."""
        self.access.check_token(identity)

    def change_topics(
        self, identity: Identity, client_id: str, add: Iterable[str], remove: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Change the topics of a live stream of *identity*, whichever process has it.

        Returns all that it has then.  Waits some seconds at most.

        :raises NoSuchStream: no process has it, or it is somebody else's.
        :raises TopicForbidden, InvalidTopic, TopicsNotEnabled: nothing was changed.
        :raises AuthorizerFailed: the authorizer raised; nothing was changed.
        :raises BrokerStopped, LogUnavailable: nothing was changed.
        """
        wanted = self.check_topics(identity, add)
        gone = tuple(check_pattern(topic) for topic in remove)
        here = self._here_for_streams()
        here.ensure_running()
        return here.subscriptions.change(
            identity, client_id, wanted, gone, is_alone=not self.log.shared
        )

    def check_room(
        self, identity: Identity | None = None, *, room: int = 0, address: str = ""
    ) -> None:
        """Raise what :meth:`open` would raise now if there is no room for a stream.

        Without *identity*, as far as that can be said before it is known.

        :raises TooManyConnections: a limit is reached.
        :raises BrokerStopped: the broker is stopped.
        """
        self._here_for_streams().check_room(identity, room=room, address=address)

    def refused(self, setting: str, *, publish: bool = False) -> None:
        """Count a stream, or a publish, that a host refused because of *setting*."""
        self.here().admission.refused(setting, streams=0 if publish else 1)

    def too_many(self, setting: str) -> TooManyConnections:
        """Count a stream that a host refuses because of *setting*; return what says so."""
        return self.here().admission.too_many(setting)

    def rate_unchecked(self) -> None:
        """Count a request that a host let through because its rate could not be told."""
        self.here().rate_unchecked()

    def publish(self, message: Message) -> Record:
        """Record a message that was checked.  See :meth:`Broker.publish`."""
        here = self.here()
        if here.life is Life.NEW:
            self._say_if_alone()
        return here.publish(message)

    def ask(self, what: str, about: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Return every process's answer to a question, and how many did not answer in time.

        Waits for the answers, two seconds at most.

        :raises LogUnavailable: nobody could be asked.
        """
        if not self.log.shared:
            here = self.here()
            return {here.presence.process: here.answer(what, about)}, 0
        return ask(self.log, what, about)

    def each_tick(self, act: Callable[[], None], key: object = None) -> None:
        """Have the reaper call *act* about once a second, in every process that has streams.

        Of several with one *key*, the last one is called; by default *act* is its own.
        """
        self._ticks[act if key is None else key] = act

    def look_after(self, part: str, is_well: Callable[[], bool], mend: Callable[[], None]) -> None:
        """Have :meth:`health` say how a part is, and the reaper call *mend* about once a second.

        Both are about the process that calls them, must not wait, and may be
        called by any thread.
        """
        self._parts[part, is_well] = None
        self.each_tick(mend)

    def health(self) -> dict[str, bool]:
        """See :meth:`Broker.health <sse_broker.Broker.health>`."""
        here = self.here()
        if here.could_not_start and here.life is Life.NEW:
            with suppress(LogUnavailable):  # or nobody would try again where nobody is sent
                here.start()
        runs = here.life is Life.RUNNING
        well = {
            "accepting": here.life is not Life.STOPPED,
            "reaper": not runs or here.reaper.is_healthy,
            "log": here.follows if runs else not here.could_not_start,
            "streams": not runs or here.delivery.is_alive,
        }
        for part, is_well in self._parts:
            well[part] = is_well() and well.get(part, True)
        here.mend()
        return well

    def counts(self) -> Counts:
        """Return this process's counters.  Memory only."""
        return self.here().counts()

    def measures(self) -> Measures:
        """Return what an operator watches of this process.  Memory only; never waits."""
        return self.here().measures()

    def stats(self) -> Stats:
        """See :meth:`Broker.get_stats <sse_broker.Broker.get_stats>`."""
        return self.here().stats()

    def retry(self) -> int:
        """Return a reconnection time in milliseconds, spread around the setting ``retry``.

        While the broker stops, and afterwards, spread over ``reconnect_window``.
        """
        return self.here().admission.retry()

    def _say_if_alone(self) -> None:
        """Warn once where a process sends over a log of its own that nobody else reads."""
        said = self.log.shared or self.is_served or self._said_alone or not self.is_hosted
        if not said:
            self._said_alone = True
            _log.warning(
                "a message was sent over %s, the log of one process, by a process that has no"
                " streams: nobody gets it. Where another process serves the streams, both need"
                " the same SSE_LOG_URL, sqlite:////path/to/sse.db or redis://host:6379/0",
                self.log.url,
            )

    def here(self) -> Process:
        """Return this process's share of the broker, made at its first use here."""
        pid = process_id()
        process = self._processes.get(pid)
        if process is None:  # setdefault is one step; a lock could be stuck after a fork
            process = self._processes.setdefault(pid, self._make())
        return process

    def _here_for_streams(self) -> Process:
        """Return this process's share, made for the threads that there are now.

        One that has only sent before gevent patched the standard library is
        made anew.  One that has streams or threads cannot be.
        """
        here = self.here()
        if here.patched is patched():
            return here
        if here.life is Life.RUNNING:
            raise StreamingUnsupported(
                "gevent has patched the standard library after this broker was started in this"
                " process; call gevent.monkey.patch_all() first of all"
            )
        made = self._make().count_on(here)
        self._processes[process_id()] = made
        return made

    def _make(self) -> Process:
        if not self.log.shared and self._is_in_child():
            _log.warning(
                "%s is each process's own: what this child process sends reaches no stream of"
                " its parent; use sqlite:///path or redis://",
                self.log.url,
            )
        return Process(
            self._owner,
            self.config,
            self.log,
            self.clock,
            self._limits,
            self._make_host,
            lambda: tuple(self._ticks.values()),
            self.access.may_still_read,
        )

    def _is_in_child(self) -> bool:
        """Whether a parent process has the streams, so that those who send here may mean them."""
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            return True
        return any(process.has_streams for process in self._processes.values())

    def _heartbeat(self, position: int, moved: bool) -> bytes:
        # A comment cannot carry the cursor, so where the log has moved past a quiet
        # client the event is due in either style, or the client is lost after retention.
        if self.config.heartbeat_style == "comment" and not moved:
            return comment_frame("heartbeat")
        at = self.log.cursor(position)
        return library_frame("heartbeat", at, {"time": int(self.clock.time())})

    def _authorizer_failed(self) -> int:
        return self.here().authorizer_failed()

    def _on_dropped(self, client: Client, count: int) -> None:
        trace = self.here().trace
        if trace is not None:
            trace.dropped(client, count)
        now = self.clock.monotonic()
        if now - self._dropped_said >= 60:
            self._dropped_said = now
            _log.warning(
                "%d frames dropped for a slow client (overflow=%s); %d in all so far",
                count,
                self.config.overflow,
                self.counts().messages_dropped,
            )
        signals.fire(signals.message_dropped, self._owner, client=client, count=count)
