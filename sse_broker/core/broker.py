"""The hub that business code calls: ``send_to_user``, ``send_to_topic``, ``broadcast``.

A broker may be made at import, before a fork, in a script: it starts nothing,
locks nothing and opens nothing until it is used, and what it then makes belongs
to the process that used it (:mod:`sse_broker.core.process`).
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, NoReturn

from sse_broker.config import BrokerConfig
from sse_broker.core import signals
from sse_broker.core.client import Client
from sse_broker.core.counts import Counts, Stats
from sse_broker.core.forks import process_id
from sse_broker.core.identity import Identity, may_read
from sse_broker.core.ports import Authorizer, Clock, Log, LogLimits, PositionLost, SystemClock
from sse_broker.core.process import Life, Process
from sse_broker.core.reader import Reader
from sse_broker.core.sync import patched
from sse_broker.errors import (
    AuthenticationFailed,
    AuthorizerFailed,
    InvalidMessage,
    LogUnavailable,
    MessageTooLarge,
    StreamingUnsupported,
    TopicForbidden,
    TopicsNotEnabled,
)
from sse_broker.wire.command import Act, Command
from sse_broker.wire.ids import UserID, normal_user_id
from sse_broker.wire.message import (
    AllTenants,
    Message,
    Target,
    check_id,
    comment_frame,
    library_frame,
)
from sse_broker.wire.topics import check_pattern

__all__ = ["Broker"]

REVOKED_FOR = 86_400.0  # seconds

_log = logging.getLogger("sse_broker.broker")


class Broker:
    """Sends messages, and knows who is connected to this process.

    *log* is where messages are recorded and every process reads them from.
    *authorizer* is asked whether an identity may read a topic; by default the
    identity's own ``topics`` decide.  Every method may be called from any
    thread; none waits for a client.
    """

    def __init__(
        self,
        config: BrokerConfig | None = None,
        *,
        log: Log,
        authorizer: Authorizer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config or BrokerConfig()
        self.log = log
        self._authorizer = authorizer or may_read
        self._clock: Clock = clock or SystemClock()
        self._processes: dict[int, Process] = {}
        self._ticks: list[Callable[[], None]] = []
        self._parts: list[tuple[str, Callable[[], bool]]] = []
        self._dropped_said = self._failure_said = -60.0
        log.bind(_limits(self.config), self._clock)

    def __repr__(self) -> str:
        here = self._here()
        return (
            f"<Broker {self.log.url} {here.life.value}, {here.counts().active_connections} clients>"
        )

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Take streams in this process, from now on.  Idempotent; also after :meth:`stop`.

        Not needed before the first stream or to send.

        :raises LogUnavailable: the log cannot be read.
        :raises StreamingUnsupported: gevent has patched the standard library too late.
        """
        self._here_for_streams().start()

    def stop(self, timeout: float | None = None) -> None:
        """End every stream of this process in order, then its threads.  Idempotent.

        No stream is taken any more.  Each that is open writes what is queued and
        ``event: close``, with a reconnection time spread over the setting
        ``reconnect_window``; those that are not through after *timeout* seconds
        (the setting ``drain_timeout``) are cut.  Waits for that.  Sending is still
        possible afterwards.  A server that stops does this by itself.
        """
        self._here().stop(self.config.drain_timeout if timeout is None else timeout)

    def send_to_user(
        self,
        user_id: UserID,
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
    ) -> str:
        """Send to every stream of one user; return the message id.

        Without *tenant_id* the user is reached in whatever tenant; with it,
        only there.  The other arguments are those of :class:`Message`.  Returns
        once the log has the message; streams write it in their own time.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises InvalidMessage: the message cannot be sent as it is meant.
        :raises LogUnavailable: it was not recorded and nobody gets it.
        """
        return self.publish(
            Message(Target.USER, data, event, user_id, "", tenant_id, id=id, retry=retry)
        )

    def send_to_topic(
        self,
        topic: str,
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
    ) -> str:
        """Send to every stream that subscribes to *topic*; return the message id.

        Without *tenant_id* that is those without a tenant; ``ALL_TENANTS`` says
        everybody.  Otherwise as :meth:`send_to_user`.

        :raises InvalidTopic: *topic* is empty or a pattern.
        :raises TopicsNotEnabled: ``enable_topics`` is off.
        """
        return self.publish(
            Message(Target.TOPIC, data, event, None, topic, tenant_id, id=id, retry=retry)
        )

    def broadcast(
        self,
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
    ) -> str:
        """Send to every stream of a tenant; return the message id.

        Without *tenant_id* that is those without a tenant; ``ALL_TENANTS`` says
        everybody.  Otherwise as :meth:`send_to_user`.
        """
        return self.publish(
            Message(Target.BROADCAST, data, event, None, "", tenant_id, id=id, retry=retry)
        )

    def publish(self, message: Message) -> str:
        """Send a message; return its id.  See :meth:`send_to_user`.

        :raises MessageTooLarge: longer than ``max_message_bytes``.
        :raises TopicsNotEnabled: it is for a topic and ``enable_topics`` is off.
        """
        self.check(message)
        record = self.log.append(message)
        self._here().published()
        return record.id

    def last_event_id(self) -> str:
        """Return the id of now: a stream that begins there gets all that is sent from now on.

        For a page that is rendered with some state and connects afterwards.  Ask
        *before* the state is read: what is sent in between then comes to the page,
        instead of being missed.  Any thread, any process; asks the log.

        :raises LogUnavailable: the log cannot be read now.
        """
        return self.log.cursor(self.log.tail())

    def check(self, message: Message) -> None:
        """Refuse a message that :meth:`publish` would refuse.  Sends nothing; never waits.

        :raises MessageTooLarge: longer than ``max_message_bytes``.
        :raises TopicsNotEnabled: it is for a topic and ``enable_topics`` is off.
        :raises InvalidMessage: it has no tenant and ``require_tenant`` is on.
        """
        config = self.config
        if message.target is Target.TOPIC and not config.enable_topics:
            raise TopicsNotEnabled(field="topic")
        if config.require_tenant and message.tenant_id is None:
            raise InvalidMessage("tenant_id is required; or say ALL_TENANTS", field="tenant_id")
        size = len(message.body)
        if size > config.max_message_bytes:
            raise MessageTooLarge(
                f"{size} bytes, at most {config.max_message_bytes} go", field="data"
            )

    def disconnect_user(self, user_id: UserID, reason: str = "disconnected") -> None:
        """End every stream of a user, in all processes that share the log.

        Each gets what waits for it, then ``event: close`` with *reason*.  A
        browser comes back after that; the authenticator decides how it is met.
        Returns once the log has the command.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises InvalidMessage: *reason* is empty, too long or more than a line.
        :raises LogUnavailable: nobody was disconnected.
        """
        self.log.append(Command(Act.DISCONNECT_USER, normal_user_id(user_id), reason))

    def disconnect_client(self, client_id: str, reason: str = "disconnected") -> None:
        """End one stream, whichever process has it.  As :meth:`disconnect_user`."""
        self.log.append(Command(Act.DISCONNECT_CLIENT, client_id, reason))

    def revoke(
        self, token_id: str, expires_at: float | None = None, reason: str = "revoked"
    ) -> None:
        """End every stream of a token, in all processes, and refuse it from now on.

        *token_id* is what identities carry (the claim ``jti`` of a JWT).  It is
        refused with 401 until *expires_at*, in seconds since the Unix epoch, or
        for a day where that is not said.

        :raises InvalidMessage: *token_id* or *reason* is empty, too long or more than a line.
        :raises LogUnavailable: the token may still be accepted.
        """
        command = Command(Act.REVOKE, token_id, reason)
        until = self._clock.time() + REVOKED_FOR if expires_at is None else expires_at
        # First remembered, then said: a stream that registers meanwhile meets one of the two.
        self.log.roster.revoke(token_id, until)
        self.log.append(command)

    def check_token(self, identity: Identity) -> None:
        """Refuse an identity whose token is revoked.  Looks at the log if it has a token.

        :raises AuthenticationFailed: it is revoked.
        :raises LogUnavailable: nobody can say now.
        """
        if identity.token_id and self.log.roster.is_revoked(identity.token_id):
            raise AuthenticationFailed("the token is revoked")

    def get_stats(self) -> Stats:
        """Return a moment of this process, with sums over all.

        Memory only where streams are served; elsewhere the log is asked for the
        sums, which are 0 if it does not answer.
        """
        return self._here().stats()

    def counts(self) -> Counts:
        """Return this process's counters.  Memory only."""
        return self._here().counts()

    def is_user_online(self, user_id: UserID) -> bool:
        """Whether a user has an open stream in any process that shares the log.

        True at once for a stream of this process; what other processes have is
        known here a moment later, and of one that died for 15 s more.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises LogUnavailable: there is none here and nobody can say now about others.
        """
        user, here = normal_user_id(user_id), self._here()
        return here.is_online(user) or self.log.roster.is_online(user, here.presence.process)

    def get_online_users(self) -> list[str]:
        """Return the ids of all users with an open stream in any process that shares the log.

        :raises LogUnavailable: nobody can say now about other processes.
        """
        here = self._here()
        elsewhere = self.log.roster.online(here.presence.process)
        return sorted(elsewhere.union(here.online_users()))

    def register(self, client: Client) -> None:
        """Take in a client made by hand, as tests and the library's hosts do.

        It is offered every message from now on, until :meth:`unregister`, or
        until the reaper finds that nothing was written to it for too long.

        :raises TooManyConnections: a limit is reached.
        :raises TopicsNotEnabled: it has topics and ``enable_topics`` is off.
        :raises BrokerStopped: the broker is stopped.
        """
        self._here_for_streams().register(client)

    def unregister(self, client: Client, reason: str = "unregistered") -> None:
        """Take a client out.  Idempotent."""
        self._here().forget(client, reason)

    def check_topics(self, identity: Identity, topics: Iterable[str]) -> tuple[str, ...]:
        """Return *topics*, checked and authorised, for a stream of *identity*.

        :raises TopicsNotEnabled: there are some and ``enable_topics`` is off.
        :raises InvalidTopic: one is neither a name nor a pattern.
        :raises TopicForbidden: *identity* may not read one of them.
        :raises AuthorizerFailed: the authorizer raised.
        """
        wanted = tuple(dict.fromkeys(check_pattern(topic) for topic in topics))
        if wanted and not self.config.enable_topics:
            raise TopicsNotEnabled(field="topics")
        for topic in wanted:
            if not self._may_read(identity, topic):
                raise TopicForbidden(repr(topic), field="topics")
        return wanted

    def _may_read(self, identity: Identity, topic: str) -> bool:
        try:
            return self._authorizer(identity, topic)
        except Exception as err:  # the application's: it may be well in a moment
            self._authorizer_failed()
            raise AuthorizerFailed(field="topics", retry_after=1.0) from err

    def _authorizer_failed(self) -> None:
        """Count a failure of the application's authorizer, in an ``except`` clause of it."""
        here, now = self._here(), self._clock.monotonic()
        here.authorizer_failed()
        if now - self._failure_said >= 60:
            self._failure_said = now
            _log.exception(
                "an authorizer raised; the topic that it was asked about is closed for this"
                " client and message, or the stream is told to come back; %d in all so far",
                here.counts().authorizer_failures,
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
        self._here().refused(setting, streams=0 if publish else 1)

    def rate_unchecked(self) -> None:
        """Count a request that a host let through because its rate could not be told."""
        self._here().rate_unchecked()

    def open(
        self,
        identity: Identity,
        topics: Iterable[str] = (),
        last_event_id: str = "",
        *,
        room: int = 0,
        address: str = "",
    ) -> Reader:
        """Register a client for *identity* and return what reads for it.

        For hosts of streams: call it where the stream is written, and
        ``unregister`` with ``reader.client`` when that is over.  *topics* are
        taken as :meth:`check_topics` returned them.  *room* is how many streams
        the server can hold in this process, 0 where it does not say; *address*
        is counted for ``max_connections_per_address``.

        :raises TooManyConnections: a limit is reached.
        :raises BrokerStopped: the broker is stopped.
        :raises LogUnavailable: the log cannot be read now.
        """
        here = self._here_for_streams()
        here.ensure_running()
        start, lost = self._locate(last_event_id)
        client = Client(
            identity,
            topics=topics,
            buffer_size=self.config.client_buffer_size,
            overflow=self.config.overflow,
            behind=start is not None,
            clock=self._clock,
            spread=random.uniform(0.75, 1.0),
            address=address,
        )
        registered_at = here.register(client, room)
        try:
            self.check_token(identity)
        except AuthenticationFailed:  # since the request was checked: say so and end
            client.close("revoked")
        except LogUnavailable:
            here.forget(client, "log_unavailable")
            raise
        if lost:
            here.reset()
        return Reader(
            client,
            self.log,
            registered_at if start is None else start,
            heartbeat=self._heartbeat,
            heartbeat_interval=self.config.heartbeat_interval,
            retry=here.retry,
            authorizer=self._authorizer,
            on_dropped=self._on_dropped,
            on_reset=here.reset,
            on_failure=self._authorizer_failed,
            lost=lost,
            resumed=start is not None,
        )

    def each_tick(self, act: Callable[[], None]) -> None:
        """Have the reaper call *act* about once a second, in every process that has streams."""
        self._ticks.append(act)

    def look_after(self, part: str, is_well: Callable[[], bool], mend: Callable[[], None]) -> None:
        """Have :meth:`health` say how a part is, and the reaper call *mend* about once a second.

        Both are about the process that calls them, must not wait, and may be
        called by any thread.
        """
        self._parts.append((part, is_well))
        self.each_tick(mend)

    @property
    def clock(self) -> Clock:
        """The clock of this broker."""
        return self._clock

    def health(self) -> dict[str, bool]:
        """Return what readiness depends on, each with whether it is well.

        A broker that was never used is well: its threads start with the first stream.
        A thread that has died is said to be unwell, and started again.
        """
        here = self._here()
        runs = here.life is Life.RUNNING
        well = {
            "accepting": here.life is not Life.STOPPED,
            "reaper": not runs or here.reaper.is_healthy,
            "log": not runs or here.follows,
            "streams": not runs or here.hands_out,
        }
        for part, is_well in self._parts:
            well[part] = is_well() and well.get(part, True)
        here.mend()
        return well

    def retry(self) -> int:
        """Return a reconnection time in milliseconds, spread around the setting ``retry``.

        While the broker stops, and afterwards, spread over ``reconnect_window``.
        """
        return self._here().retry()

    def _locate(self, last_event_id: str) -> tuple[int | None, str]:
        if not last_event_id:
            return None, ""
        try:
            return self.log.locate(check_id(last_event_id)), ""
        except PositionLost as lost:
            return None, lost.reason
        except InvalidMessage:
            return None, "malformed"

    def _heartbeat(self, position: int, moved: bool) -> bytes:
        # A comment cannot carry the cursor, so where the log has moved past a quiet
        # client the event is due in either style, or the client is lost after retention.
        if self.config.heartbeat_style == "comment" and not moved:
            return comment_frame("heartbeat")
        at = self.log.cursor(position)
        return library_frame("heartbeat", at, {"time": int(self._clock.time())})

    def _on_dropped(self, client: Client, count: int) -> None:
        now = self._clock.monotonic()
        if now - self._dropped_said >= 60:
            self._dropped_said = now
            _log.warning(
                "%d frames dropped for a slow client (overflow=%s); %d in all so far",
                count,
                self.config.overflow,
                self.counts().messages_dropped,
            )
        signals.fire(signals.message_dropped, self, client=client, count=count)

    def _here(self) -> Process:
        pid = process_id()
        process = self._processes.get(pid)
        if process is None:  # setdefault is one step; a lock could be stuck after a fork
            process = self._processes.setdefault(pid, self._make())
        return process

    def _make(self) -> Process:
        if not self.log.shared and self._is_in_child():
            _log.warning(
                "%s is each process's own: what this child process sends reaches no stream of"
                " its parent; use sqlite:///path or redis://",
                self.log.url,
            )
        return Process(self, self.config, self.log, self._clock, self._ticks)

    def _is_in_child(self) -> bool:
        """Whether a parent process has the streams, so that those who send here may mean them."""
        multiprocessing = sys.modules.get("multiprocessing")
        if multiprocessing is not None and multiprocessing.parent_process() is not None:
            return True
        return any(process.has_streams for process in self._processes.values())

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Broker cannot be sent to another process; make one there, over a log that"
            " processes share: Broker(log='sqlite:///path') or redis://"
        )

    def _here_for_streams(self) -> Process:
        """Return this process's share, made for the threads that there are now.

        One that has only sent before gevent patched the standard library is
        made anew.  One that has streams or threads cannot be.
        """
        here = self._here()
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


def _limits(config: BrokerConfig) -> LogLimits:
    return LogLimits(
        resume_window=config.resume_window,
        history_size=config.history_size,
        history_ttl=config.history_ttl,
        history_bytes=config.history_bytes,
    )
