"""What a broker is in one process: its registry, its reaper, its place in the log.

Made on first use per process id.  After a fork the parent's threads are dead
and its locks may be stuck, so the child never touches the parent's object.

Life: NEW ──start()──▶ RUNNING ──stop()──▶ STOPPED ──start()──▶ RUNNING

Lock map
    _lock     guards the registry, the counts, the life and ``_matched``; native;
              held for dictionary work only
    _starting held while the broker starts; taken before any other; a greenlet's
              lock under gevent, because starting a thread waits
    order     _lock is taken alone, or inside a log's own turn and the lock of the
              host of streams; a client's lock is never taken while it is held
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
import random
import threading
from collections.abc import Callable, Sequence

from sse_broker.config import BrokerConfig
from sse_broker.core import signals
from sse_broker.core.batch import Batch
from sse_broker.core.client import Client
from sse_broker.core.counts import Counts, Stats
from sse_broker.core.identity import Identity
from sse_broker.core.ports import Census, Clock, Following, Log, Record
from sse_broker.core.presence import Presence
from sse_broker.core.reaper import Reaper
from sse_broker.core.registry import Registry
from sse_broker.core.room import WHOSE, full
from sse_broker.core.sync import Host, WakeChain, host, native_lock, patched
from sse_broker.errors import (
    BrokerStopped,
    InvalidUserID,
    LogUnavailable,
    TooManyConnections,
    TopicsNotEnabled,
)
from sse_broker.wire.command import Act, Command
from sse_broker.wire.message import Message

__all__ = ["Life", "Process"]

BATCH_BYTES = 32 * 1024  # of frames that are handed out together
MOST_WAITING, MOST_BYTES = 16_384, 32 * 1024 * 1024  # records on their way to the clients

_log = logging.getLogger("sse_broker.broker")


class Life(enum.Enum):
    """Whether a broker takes streams in this process."""

    NEW = "new"
    RUNNING = "running"
    STOPPED = "stopped"


class Process:
    """One process's share of a broker."""

    def __init__(
        self,
        owner: object,
        config: BrokerConfig,
        log: Log,
        clock: Clock,
        ticks: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._owner = owner
        self._config = config
        self._source = log
        self._clock = clock
        self._lock = native_lock()
        self.patched = patched()
        self._starting = threading.Lock()
        self._registry = Registry()
        self._life = Life.NEW
        self._matched = 0  # who is registered now is offered everything after this
        self._delivered = 0  # who was registered has been offered everything up to this
        # Records, and between them the positions from which on they follow after a loss.
        self._incoming: collections.deque[Record | int] = collections.deque()
        self._is_due = False  # whether the host has been asked to hand out and has not begun
        self._is_at_it = False  # a log handler that sends comes in between
        self._received = self._handed = 0  # bytes; each is written by one side alone, but at a skip
        self._host: Host | None = None
        self._chain = None if self.patched else WakeChain()
        self._following: Following | None = None
        self._empty = threading.Event()
        self._gone = Counts()  # events, and what the clients that are gone had counted
        self.presence = Presence(
            owner, log.roster, config.presence_grace, self.is_online, self.online_users, self._count
        )
        self.reaper = Reaper(
            config,
            clock,
            self._clients,
            lambda: (self._delivered, self._handed),
            self.forget,
            self._each_tick(ticks),
            self.presence.report,
            lambda client: self._settle((client,)),
        )
        self.presence.nudge = self.reaper.nudge

    @property
    def has_streams(self) -> bool:
        """Whether there are streams, or were when this process was forked.  Takes no lock."""
        return len(self._registry) > 0

    def count_on(self, before: Process) -> Process:
        """Take over what another one of this process has counted; return this one."""
        self._gone = before._gone
        return self

    def _each_tick(self, ticks: Sequence[Callable[[], None]]) -> Callable[[], None]:
        def tick() -> None:
            if self._chain is not None:
                self._chain.restart()
            failure: Exception | None = None
            for act in (self._restart_others, *ticks):
                try:
                    act()
                except Exception as err:  # it is not the others' fault
                    failure = err
            if failure is not None:
                raise failure

        return tick

    def _restart_others(self) -> None:
        if self._following is not None:
            self._following.restart()
        if self._host is not None:
            self._host.restart()
            if self._incoming:
                self._host.again(self._fan_out)

    def mend(self) -> None:
        """Start the reaper again if it died; it starts all others again.  Any thread."""
        if self._life is Life.RUNNING and not self.reaper.is_alive:
            self.start()

    def _clients(self) -> tuple[Client, ...]:
        with self._lock:
            return self._registry.clients()

    def _settle(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them so far."""
        if self._host is not None:
            self._host.settle(clients)

    def _count(self) -> int:
        with self._lock:
            return len(self._registry)

    @property
    def hands_out(self) -> bool:
        """Whether what arrives here is handed to the streams."""
        return self._host is None or self._host.is_alive

    @property
    def follows(self) -> bool:
        """Whether what the log records arrives here."""
        return self._following is not None and self._following.is_healthy

    @property
    def life(self) -> Life:
        """Whether streams are taken."""
        return self._life

    def start(self) -> None:
        """Listen to the log and start the reaper.  Any thread; idempotent.

        :raises LogUnavailable: the log cannot be read.
        """
        with self._starting:
            if self._life is not Life.RUNNING:
                self._host, self._is_due = host(), False
                self._following = self._source.listen(self.deliver, self.lose)
                # Not a tail that was read before: what is recorded meanwhile comes to nobody.
                start = self._following.start
                with self._lock:
                    self._matched = max(self._matched, start)
                    self._delivered = max(self._delivered, start)
                    self._life = Life.RUNNING
                _log.info("broker started on %s", self._source.url)
            self.reaper.start()

    def stop(self, timeout: float) -> None:
        """Close every stream in order, wait up to *timeout* seconds, cut the rest.  Idempotent."""
        with self._lock:
            was, self._life = self._life, Life.STOPPED
            clients = self._registry.clients()
            self._empty.clear()
        if was is not Life.RUNNING:
            return
        assert self._host is not None
        self._host.call(
            lambda: self._close(clients)
        )  # there, so that what was sent before comes first
        if clients:
            self._empty.wait(timeout)
        for client in self._clients():
            client.cut("shutdown")
            self.forget(client, "shutdown")
        if self._following is not None:
            self._following.stop()
        self.reaper.stop()
        try:
            self.presence.leave()
        except LogUnavailable as err:
            _log.warning("the others will see for a while who was online here: %s", err)
        _log.info("broker stopped; %d streams were closed", len(clients))

    def ensure_running(self) -> None:
        """Start at first use; start a dead reaper again.

        :raises BrokerStopped: :meth:`stop` was called since.
        """
        if self._life is Life.STOPPED:
            raise BrokerStopped("it takes no streams until it is started again", retry_after=1.0)
        if self._life is Life.NEW or not self.reaper.is_alive:
            self.start()

    def register(self, client: Client, room: int = 0) -> int:
        """Take a client in; return the position from which on it is offered everything.

        Any thread; fires ``client_connected``.  *room* is as in :meth:`check_room`.

        :raises TooManyConnections: a limit is reached; nothing changed.
        :raises TopicsNotEnabled: it has topics and ``enable_topics`` is off.
        :raises BrokerStopped: the broker is stopped.
        """
        self.check(client)
        self.ensure_running()
        client.queue.chain = self._chain
        with self._lock:
            if self._life is not Life.RUNNING:
                raise BrokerStopped(retry_after=1.0)
            no_room = full(self._config, self._registry, room, client.address, client.identity)
            if not no_room:
                self._registry.add(client)
                self._gone.client_connects += 1
            start = self._matched
            first = self._registry.of_user(client.user_id) == 1
        if no_room:
            raise self._too_many(no_room)
        if first:
            self.presence.change(client.user_id)
        _log.debug("%r connected", client)
        signals.fire(signals.client_connected, self._owner, client=client)
        return start

    def forget(self, client: Client, reason: str) -> None:
        """Take a client out and fire ``client_disconnected``.  Any thread; idempotent."""
        client.finish(reason)
        if client.sink is not None:
            self._settle((client,))
        with self._lock:
            if not self._registry.remove(client):
                return
            self._gone.client_disconnects += 1
            self._gone.messages_sent += client.sent
            self._gone.messages_dropped += client.dropped
            if not len(self._registry):
                self._empty.set()
            last = not self._registry.of_user(client.user_id)
        if last:
            self.presence.change(client.user_id)
        _log.debug("%r disconnected: %s", client, client.reason)
        signals.fire(signals.client_disconnected, self._owner, client=client, reason=client.reason)

    def check(self, client: Client) -> None:
        """Refuse a client that could never be registered here."""
        if client.topics and not self._config.enable_topics:
            raise TopicsNotEnabled(field="topics")
        if self._config.require_tenant and client.tenant_id is None:
            raise InvalidUserID("a tenant is required", field="tenant_id")

    def check_room(
        self, identity: Identity | None = None, *, room: int = 0, address: str = ""
    ) -> None:
        """Raise TooManyConnections or BrokerStopped as registering now would.

        *room* is how many streams the server can hold in this process, 0 where it
        does not say.  What is not known yet is not asked.
        """
        try:
            self.ensure_running()
        except BrokerStopped:
            self.refused("")
            raise
        with self._lock:
            no_room = full(self._config, self._registry, room, address, identity)
        if no_room:
            raise self._too_many(no_room)

    def _too_many(self, setting: str) -> TooManyConnections:
        self.refused(setting)
        return TooManyConnections(
            WHOSE[setting], field=setting, retry_after=self.retry_later() / 1000
        )

    def refused(self, setting: str, streams: int = 1) -> None:
        """Count a refusal for now, by the setting whose limit was met if it was one."""
        with self._lock:
            self._gone.connections_refused += streams
            if setting:
                self._gone.refusals[setting] = self._gone.refusals.get(setting, 0) + 1

    def authorizer_failed(self) -> None:
        """Count a question to the application's authorizer that it did not answer."""
        with self._lock:
            self._gone.authorizer_failures += 1

    def rate_unchecked(self) -> None:
        """Count a request whose rate nobody could tell."""
        with self._lock:
            self._gone.rates_unchecked += 1

    def reset(self) -> None:
        """Count a stream whose continuity could not be proved."""
        with self._lock:
            self._gone.resets += 1

    def published(self) -> None:
        """Count a message that this process sent."""
        with self._lock:
            self._gone.messages_published += 1

    def deliver(self, record: Record) -> None:
        """Offer one record to the clients it is for.  Called in log order; waits for nobody."""
        self._hand_over(record)

    def lose(self, position: int) -> None:
        """Have every client told what it missed: records before *position* never came here."""
        self._hand_over(position)

    def _hand_over(self, item: Record | int) -> None:
        host, incoming = self._host, self._incoming
        assert host is not None
        incoming.append(item)
        if isinstance(item, Record):
            self._received += len(item.frame)
            if len(incoming) > MOST_WAITING or self._received - self._handed > MOST_BYTES:
                incoming.clear()  # a host that is this far behind: the log has them all
                self._handed = self._received
                incoming.append(item.position)
        if self._is_due:  # what has been asked for finds this one too
            return
        self._is_due = True
        if isinstance(item, int) or isinstance(item.message, Command):
            host.call(self._fan_out)
        else:
            message = item.message
            host.hand_out(self._fan_out, lambda: self._audience_of(message))

    def _audience_of(self, message: Message) -> int:
        with self._lock:
            return len(self._registry.match(message))

    def _fan_out(self) -> None:
        """Hand out what came in.  One at a time; who comes in between leaves it to that one."""
        self._is_due = False  # first, or what comes in at the end is found by nobody
        if not self._is_at_it:
            self._is_at_it = True
            try:
                self._hand_out()
            finally:
                self._is_at_it = False

    def _hand_out(self) -> None:
        """Neighbours for the same clients go together: one write each."""
        incoming, size = self._incoming, 0
        batch: list[Record] = []
        whom: Sequence[Client] = ()
        while incoming:
            try:
                item = incoming.popleft()
            except IndexError:  # cleared a moment ago
                continue
            if isinstance(item, int) or isinstance(item.message, Command):
                self._spread(whom, batch, size)
                whom, batch, size = (), [], 0
                self._act_on(item)
                continue
            with self._lock:
                clients = self._registry.match(item.message)
                self._matched = item.position
            others = clients is not whom and (len(clients) > 1 or clients != whom)
            if others or size > BATCH_BYTES:
                self._spread(whom, batch, size)
                whom, batch, size = clients, [], 0
            batch.append(item)
            size += len(item.frame)
        self._spread(whom, batch, size)

    def _spread(self, clients: Sequence[Client], batch: list[Record], size: int) -> None:
        if batch:
            if clients:
                self._write(clients, Batch(batch))
            self._delivered = batch[-1].position
            self._handed += size

    def _write(self, clients: Sequence[Client], batch: Batch) -> None:
        assert self._host is not None
        try:
            self._host.spread(clients, batch)
        except Exception:  # some may have it, and some not: the log has it for all
            _log.exception("handing out failed; %d streams go on from the log", len(clients))
            self._have_read(clients)

    def _have_read(self, clients: Sequence[Client]) -> None:
        """Have clients go on from the log, before anything else is written to them."""
        for client in clients:
            client.fall_behind()
        self._heed(clients)

    def _act_on(self, item: Record | int) -> None:
        if isinstance(item, int):
            self._go_on_from(item)
            return
        assert isinstance(item.message, Command)
        self._obey(item.message)
        with self._lock:
            self._matched = item.position
        self._delivered = item.position

    def _go_on_from(self, position: int) -> None:
        with self._lock:
            clients = self._registry.clients()
            self._matched = position
        self._have_read(clients)
        self._delivered = position
        _log.warning("%d streams go on from the log: not all records came to them", len(clients))

    def _obey(self, command: Command) -> None:
        """End the streams here that a command is about."""
        with self._lock:
            if command.act is Act.DISCONNECT_USER:
                clients = self._registry.clients_of(command.value)
            elif command.act is Act.DISCONNECT_CLIENT:
                found = self._registry.find(command.value)
                clients = () if found is None else (found,)
            elif command.act is Act.REVOKE:
                clients = self._registry.clients()
            else:
                clients = ()
        for client in clients:
            if command.act is not Act.REVOKE or client.identity.token_id == command.value:
                client.close(command.reason, self._delivered)
        self._heed(clients)

    def _heed(self, clients: Sequence[Client]) -> None:
        assert self._host is not None
        self._host.heed(clients)

    def counts(self) -> Counts:
        """Return what was counted since the process began, live clients included."""
        self._settle(self._clients())
        with self._lock:
            counts = dataclasses.replace(self._gone, refusals=dict(self._gone.refusals))
            clients = self._registry.clients()
        counts.active_connections = len(clients)
        counts.messages_sent += sum(client.sent for client in clients)
        counts.messages_dropped += sum(client.dropped for client in clients)
        return counts

    def stats(self) -> Stats:
        """Return a moment of this process, and of all as the last report had it."""
        counts = self.counts()
        with self._lock:
            users, topics = self._registry.user_count(), self._registry.topic_count()
        census = self._census(counts.active_connections, users)
        return Stats(
            total_clients=counts.active_connections,
            total_users=users,
            total_topics=topics,
            is_running=self._life is Life.RUNNING,
            buffer_size=self._config.client_buffer_size,
            max_connections=self._config.max_connections,
            log=self._source.url,
            messages_published=counts.messages_published,
            messages_sent=counts.messages_sent,
            messages_dropped=counts.messages_dropped,
            client_connects=counts.client_connects,
            client_disconnects=counts.client_disconnects,
            connections_refused=counts.connections_refused,
            resets=counts.resets,
            processes=census.processes,
            cluster_clients=census.clients,
            cluster_users=census.users,
        )

    def _census(self, clients: int, users: int) -> Census:
        if not self._source.shared:
            return Census(1, clients, users)
        if self._life is Life.RUNNING:
            return self.presence.census
        try:  # who only publishes hears nothing and has to ask
            return self._source.roster.census()
        except LogUnavailable:
            return Census()

    def online_users(self) -> list[str]:
        """Return every user with an open stream here."""
        with self._lock:
            return self._registry.users()

    def is_online(self, user_id: str) -> bool:
        """Whether a user has an open stream here."""
        with self._lock:
            return self._registry.of_user(user_id) > 0

    def retry(self) -> int:
        """Return a reconnection time in milliseconds, spread so that nobody comes back in step."""
        if self._life is Life.STOPPED:
            return round(1000 * random.uniform(1.0, max(1.0, self._config.reconnect_window)))
        spread = round(self._config.retry * random.uniform(0.8, 1.2))
        return min(60_000, max(1_000, spread))

    def retry_later(self) -> int:
        """Return a reconnection time for who was refused: one to four times the setting ``retry``.

        Spread so far that a flood that was refused at one moment comes back thinned out.
        While the broker stops it is :meth:`retry`: there is room again elsewhere.
        """
        if self._life is Life.STOPPED:
            return self.retry()
        return min(60_000, round(self._config.retry * random.uniform(1.0, 4.0)))

    def _close(self, clients: Sequence[Client]) -> None:
        for client in clients:
            client.close("shutdown", self._delivered)
