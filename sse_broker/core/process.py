"""What a broker is in one process: its registry, its reaper, its place in the log.

Made on first use per process id.  After a fork the parent's threads are dead
and its locks may be stuck, so the child never touches the parent's object.

Life: NEW ──start()──▶ RUNNING ──stop()──▶ STOPPED ──start()──▶ RUNNING

Lock map
    _lock     guards the registry, the counts, the life and ``delivery.matched``;
              native; held for dictionary work only
    _changing_life  held while the broker starts or stops, so one follows the other;
              taken before any other; a greenlet's lock under gevent, because
              both wait; reentrant, because a receiver may call either
    order     _lock is taken alone, or inside a log's own turn and the lock of the
              host of streams; a client's lock is never taken while it is held
"""

from __future__ import annotations

import enum
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from sse_broker.config import BrokerConfig
from sse_broker.core import signals
from sse_broker.core.admission import Admission
from sse_broker.core.client import Client, State
from sse_broker.core.commands import commands_about, mark_of
from sse_broker.core.counts import Counts, Stats, Tally
from sse_broker.core.delivery import MOST_BYTES, Delivery
from sse_broker.core.explain import accounts_here, addressed
from sse_broker.core.flow import Flow, kept_bytes
from sse_broker.core.identity import Identity, may_read
from sse_broker.core.inspection import Inspection, threads_of_ours, view_of
from sse_broker.core.latency import Latency
from sse_broker.core.measures import Measures, open_descriptors
from sse_broker.core.members import member_key, member_of
from sse_broker.core.overview import PAGE, overview_of, page_of
from sse_broker.core.ports import (
    Census,
    Clock,
    Following,
    Listener,
    Log,
    LogLimits,
    Lost,
    Record,
    StreamHost,
)
from sse_broker.core.presence import Presence
from sse_broker.core.questions import Questions
from sse_broker.core.reaper import TICK, Reaper
from sse_broker.core.rechecks import Rechecks
from sse_broker.core.registry import Registry
from sse_broker.core.subscriptions import Subscriptions
from sse_broker.core.sync import WakeChain, in_hub, native_lock, patched
from sse_broker.core.trace import Trace
from sse_broker.errors import BrokerStopped, LogUnavailable
from sse_broker.wire.command import Act, Command
from sse_broker.wire.message import Message

__all__ = ["Life", "Process"]

MOST_NAMES = 500  # topics among which one like a name that nobody has is looked for

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
        limits: LogLimits,
        make_host: Callable[[], StreamHost],
        ticks: Callable[[], Sequence[Callable[[], None]]] = tuple,
        may_read: Callable[[Identity, str], bool] = may_read,
    ) -> None:
        self._owner = owner
        self._config = config
        self._source = log
        self._clock = clock
        self._lock = native_lock()
        self.patched = patched()
        self._changing_life = threading.RLock()
        self._registry = Registry()
        self._tally = Tally(self._lock)
        self._life = Life.NEW
        self.could_not_start = False  # the log was away when streams were to be taken
        kept = kept_bytes(limits)[0]
        self.delivery = Delivery(
            self._registry, self._lock, log, make_host, kept * 3 // 4 if kept else MOST_BYTES
        )
        self.trace = Trace(config.trace_size, clock) if config.trace_size else None
        self.delivery.trace, self.delivery.latency = self.trace, Latency(clock)
        self.flow = Flow(
            limits,
            config.send_timeout,
            self._clients,
            lambda: self.delivery.delivered,
            self._slows_senders,
            clock.monotonic,
        )
        self.admission = Admission(
            config, self._registry, self._tally, lambda: self._life is Life.STOPPED
        )
        self.subscriptions = Subscriptions(config, self._registry, self._lock, self.delivery, log)
        self.rechecks = Rechecks(
            self._clients, self.subscriptions, may_read, clock, config.recheck_interval
        )
        self.delivery.on_command = self._take_command_locked
        self._chain = None if self.patched else WakeChain()
        self._following: Following | None = None
        self._remains: list[Callable[[], None]] = []  # ends what would outlive this object
        self._empty = threading.Event()
        self.presence = Presence(
            owner,
            log.roster,
            config.presence_grace,
            self.is_member_online,
            self.online_members,
            self._count,
        )
        self.reaper = Reaper(
            config,
            clock,
            self._clients,
            lambda: (self.delivery.delivered, self.delivery.collected),
            self.forget,
            self._each_tick(ticks),
            self._report,
            lambda client: self.delivery.settle((client,)),
            functools.partial(_end_each, self._remains),
            reports_apart=log.shared,
        )
        self.presence.nudge = self.reaper.nudge
        self.questions = Questions(log, self.presence.process, self.answer)

    @property
    def size(self) -> int:
        """How many clients there are.  Takes no lock."""
        return len(self._registry)

    @property
    def has_streams(self) -> bool:
        """Whether there are streams, or were when this process was forked.  Takes no lock."""
        return len(self._registry) > 0

    def count_on(self, before: Process) -> Process:
        """Take over what another one of this process has counted; return this one."""
        self._tally.gone = before._tally.gone
        self.flow.messages = before.flow.messages
        return self

    def _each_tick(self, ticks: Callable[[], Sequence[Callable[[], None]]]) -> Callable[[], None]:
        def tick() -> None:
            if self._chain is not None:
                self._chain.restart()
            failure: Exception | None = None
            for act in (self._restart_others, self.rechecks.tick, *ticks()):
                try:
                    act()
                except Exception as err:  # it is not the others' fault
                    failure = err
            if failure is not None:
                raise failure

        return tick

    def _report(self, now: float) -> None:
        if self.delivery.must_recheck:
            self._recheck()
        self.presence.report(now)

    def _recheck(self) -> None:
        """Obey the commands of a gap that could not be read, as far as the roster remembers them.

        :raises LogUnavailable: the roster cannot be asked now; asked again at the next report.
        """
        clients, roster = self._clients(), self._source.roster
        asked = {command for client in clients for command in commands_about(client)}
        found = [command for command in asked if roster.is_revoked(mark_of(command))]
        self.delivery.must_recheck = False
        self.delivery.obey(found)
        self.rechecks.everybody()
        _log.warning(
            "commands may have been lost with records of the log: %d streams were checked again,"
            " and %d commands were found",
            len(clients),
            len(found),
        )

    def _restart_others(self) -> None:
        if self._following is not None:
            self._following.restart()
        self.delivery.restart()

    def mend(self) -> None:
        """Start the reaper again if it died; it starts all others again.  Any thread."""
        if self._life is Life.RUNNING and not self.reaper.is_alive:
            self.start()

    def _clients(self) -> tuple[Client, ...]:
        with self._lock:
            return self._registry.clients()

    def _count(self) -> int:
        with self._lock:
            return len(self._registry)

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
        with self._changing_life:
            if self._life is not Life.RUNNING:
                self.delivery.start()
                self.could_not_start = True  # until it has
                self._following = self._source.listen(*_weakly(self.delivery))
                self._remains[:] = [self._following.stop]
                if self.delivery.host is not None:
                    self._remains.append(self.delivery.host.release)
                # Not a tail that was read before: what is recorded meanwhile comes to nobody.
                start = self._following.start
                with self._lock:
                    self.delivery.begin_after(start)
                    self._life = Life.RUNNING
                self.could_not_start = False
                _log.info("broker started on %s", self._source.url)
            self.reaper.start()

    def stop(self, timeout: float) -> None:
        """Close every stream in order, wait up to *timeout* seconds, cut the rest.  Idempotent.

        A start or stop that comes meanwhile waits for this one.
        """
        with self._changing_life:
            with self._lock:
                was, self._life = self._life, Life.STOPPED
                clients = self._registry.clients()
                self._empty.clear()
            if was is Life.RUNNING:
                self._end(clients, timeout)

    def _end(self, clients: Sequence[Client], timeout: float) -> None:
        self.delivery.close(clients, "shutdown")
        if clients:
            self._empty.wait(timeout)
        for client in self._clients():
            client.cut("shutdown")
            self.forget(client, "shutdown")
        if self._following is not None:
            self._following.stop()
        self.reaper.stop()
        self.rechecks.stop()
        self.subscriptions.stop()
        self.questions.stop()
        self.delivery.release()
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
        self.admission.check(client)
        self.ensure_running()
        client.queue.chain = self._chain
        with self._lock:
            if self._life is not Life.RUNNING:
                raise BrokerStopped(retry_after=1.0)
            no_room = self.admission.full_locked(room, client.address, client.identity)
            if not no_room:
                self._registry.add(client)
                self._tally.gone.client_connects += 1
            start = self.delivery.matched
            first = self._registry.of_user(client.tenant_id, client.user_id) == 1
        if no_room:
            raise self.admission.too_many(no_room)
        if first:
            self.presence.change(member_key(client.tenant_id, client.user_id))
        _log.debug("%r connected", client)
        signals.fire(signals.client_connected, self._owner, client=client)
        return start

    def forget(self, client: Client, reason: str) -> None:
        """Take a client out and fire ``client_disconnected``.  Any thread; idempotent."""
        client.finish(reason)
        if client.transport is not None:
            self.delivery.settle((client,))
        with self._lock:
            if not self._registry.remove(client):
                return
            self._tally.left_locked(client)
            if not len(self._registry):
                self._empty.set()
            known = not client.identity.is_anonymous
            last = known and not self._registry.of_user(client.tenant_id, client.user_id)
        if self.trace is not None:
            self.trace.ended(client, reason)
        if last:
            self.presence.change(member_key(client.tenant_id, client.user_id))
        _log.debug("%r disconnected: %s", client, client.reason)
        signals.fire(signals.client_disconnected, self._owner, client=client, reason=client.reason)

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
            self.admission.refused("")
            raise
        with self._lock:
            no_room = self.admission.full_locked(room, address, identity)
        if no_room:
            raise self.admission.too_many(no_room)

    def authorizer_failed(self) -> int:
        """Count a question to the application's authorizer that it did not answer; return all."""
        self._tally.add("authorizer_failures")
        return self._tally.gone.authorizer_failures

    def rate_unchecked(self) -> None:
        """Count a request whose rate nobody could tell."""
        self._tally.add("rates_unchecked")

    def reset(self, reason: str) -> None:
        """Count a stream whose continuity could not be proved, by the reason that it is told."""
        self._tally.reset(reason)

    def replay_began(self) -> None:
        """Count a stream that goes on where an earlier one ended."""
        self._tally.add("replays")

    def publish(self, message: Message) -> Record:
        """Record a message; wait before that, bounded, while too much is on its way here.

        :raises QueueFull: it still is after the setting ``send_timeout``.
        :raises LogUnavailable: the message was not recorded.
        """
        flow = self.flow
        flow.wait()
        record = self._source.append(message)
        flow.sent(record.position, len(record.frame))
        return record

    def _slows_senders(self) -> bool:
        """Whether the caller, a sender, may wait for what is on its way to be delivered here."""
        return (
            self._life is Life.RUNNING
            and self.follows
            and not self.delivery.is_mine
            and not in_hub()
        )

    def counts(self) -> Counts:
        """Return what was counted since the process began, live clients included.  Never waits."""
        self.delivery.look(self._clients())
        with self._lock:
            counts = self._tally.sum_locked(self._registry.clients())
        counts.messages_published = self.flow.messages
        return counts

    def inspect(self) -> Inspection:
        """Return what is to be seen of this process.  Memory only; never waits."""
        clients, now = self._clients(), self._clock.monotonic()
        self.delivery.look(clients)
        waiting, size = self.delivery.waiting
        host = self.delivery.host
        return Inspection(
            pid=os.getpid(),
            process=self.presence.process,
            life=self._life.value,
            log=self._source.url,
            follows=self.follows,
            host="" if host is None else type(host).__name__.lower(),
            host_is_alive=self.delivery.is_alive,
            delivered=self.delivery.delivered,
            waiting=waiting,
            waiting_bytes=size,
            senders_waiting=self.flow.waiting,
            threads=threads_of_ours(),
            streams=tuple(view_of(client, now) for client in clients),
        )

    def measures(self) -> Measures:
        """Return what an operator watches of this process.  Memory only; never waits."""
        clients = self._clients()
        queued = [frames for frames in (len(client.queue.queue) for client in clients) if frames]
        records, size = self.delivery.waiting
        host: Any = self.delivery.host
        runs = self._life is Life.RUNNING
        late = self._clock.monotonic() - self.reaper.last_tick - TICK if runs else 0.0
        return Measures(
            queued_frames=sum(queued),
            queued_most=max(queued, default=0),
            clients_behind=sum(client.state is State.BEHIND for client in clients),
            log_lag=records,
            bytes_waiting=size,
            senders_waiting=self.flow.waiting,
            longest_turn=0.0 if host is None else host.take_longest_turn(),
            reaper_late=max(0.0, late),
            calls_waiting=0 if host is None else host.calls_waiting,
            descriptors=open_descriptors(),
            latency=tuple(self.delivery.latency.buckets),
            latency_sum=self.delivery.latency.sum,
        )

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

    def _take_command_locked(self, command: Command) -> Callable[[], None] | None:
        if command.act is Act.ASK:
            return lambda: self.questions.take(command)
        return self.subscriptions.take_locked(command)

    def answer(self, what: str, about: dict[str, Any]) -> Any:
        """Return what this process has to say to a question to all.  Memory only; never waits."""
        if what == "listeners":
            return [self._listeners(str(topic), tenant) for topic, tenant in about["topics"]]
        if what == "explain":
            return self._account(about)
        if what == "overview":
            host = self.delivery.host
            kind = "" if host is None else type(host).__name__.lower()
            now = self._clock.monotonic()
            return overview_of(self._clients(), kind, self.counts(), self.measures(), now)
        if what == "find":
            return self._find(about)
        return None

    def _listeners(self, topic: str, tenant: str | None) -> int:
        address = {"target": "topic", "user_id": None, "topics": [topic], "tenant_id": tenant}
        with self._lock:
            return len(self._registry.match(addressed(address)))

    def _find(self, about: dict[str, Any]) -> dict[str, Any]:
        user, topic = str(about.get("user") or ""), str(about.get("topic") or "")
        tenant, most = str(about.get("tenant") or ""), int(about.get("most", PAGE))
        with self._lock:
            clients = self._registry.clients_of(user) if user else self._registry.clients()
            names = self._registry.topic_names(MOST_NAMES) if topic else []
        chosen = [
            client
            for client in clients
            if (not tenant or client.tenant_id == tenant) and (not topic or client.reads(topic))
        ]
        return {**page_of(chosen, most, self._clock.monotonic()), "names": names}

    def _account(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        user, message = str(about.get("user_id", "")), about.get("message")
        with self._lock:
            clients = self._registry.clients_of(user)
        return accounts_here(
            self.presence.process,
            addressed(message) if isinstance(message, dict) else None,
            str(about.get("message_id", "")),
            user,
            clients,
            self.trace,
            (self._clock.monotonic(), self._clock.time()),
        )

    def online_members(self) -> list[str]:
        """Return every user with an open stream here, as :func:`member_key` writes them."""
        with self._lock:
            members = self._registry.members()
        return [member_key(*member) for member in members]

    def is_member_online(self, key: str) -> bool:
        """Whether a user of a tenant has an open stream here."""
        with self._lock:
            return self._registry.of_user(*member_of(key)) > 0

    def is_online(self, user_id: str, tenant_id: str | None) -> bool:
        """Whether a user has an open stream here; without a tenant in whatever tenant."""
        with self._lock:
            return len(self._registry.clients_of(user_id, tenant_id)) > 0


def _weakly(delivery: Delivery) -> tuple[Listener, Lost]:
    """Return a delivery's listeners for a log, which do not keep it alive."""
    reference = weakref.ref(delivery)

    def deliver(record: Record) -> None:
        found = reference()
        if found is not None:
            found.deliver(record)

    def lose(position: int) -> None:
        found = reference()
        if found is not None:
            found.lose(position)

    return deliver, lose


def _end_each(remains: list[Callable[[], None]]) -> None:
    for end in remains:
        end()
