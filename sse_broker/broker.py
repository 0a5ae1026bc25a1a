"""The hub that business code calls: ``send_to_user``, ``send_to_topic``, ``broadcast``.

A broker may be made at import, before a fork, in a script: it starts nothing,
locks nothing and opens nothing until it is used, and what it then makes belongs
to the process that used it.  What hosts of streams call is another object,
``broker.streams`` (:class:`~sse_broker.core.streams.Streams`).
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import NoReturn

from sse_broker.commit import AfterCommit, AnySession
from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client
from sse_broker.core.commands import REMEMBERED, mark_of, of_member
from sse_broker.core.counts import Stats
from sse_broker.core.explain import Explanation, explain
from sse_broker.core.inspection import Inspection
from sse_broker.core.members import member_key, member_of
from sse_broker.core.ports import Authorizer, Clock, Log, LogLimits, SystemClock
from sse_broker.core.sending import Sender, check_message
from sse_broker.core.streams import Streams
from sse_broker.errors import InvalidMessage
from sse_broker.logs import open_log
from sse_broker.transport.hosts import stream_host
from sse_broker.wire.command import Act, Command
from sse_broker.wire.ids import UserID, normal_tenant_id, normal_user_id
from sse_broker.wire.message import ALL_TENANTS, AllTenants, Message, Target
from sse_broker.wire.topics import check_name

__all__ = ["Broker"]

EARLIEST = 1e9  # seconds since the Unix epoch, in 2001: what is less was meant as something else


class Broker(Sender[str]):
    """Sends messages, and knows who is connected to this process.

    *log* is a URL (:func:`~sse_broker.open_log`) or an open log: messages are
    recorded there, and every process that shares it reads them from there.
    *authorizer* is asked whether an identity may read a topic; by default the
    identity's own ``topics`` decide.  Every method may be called from any thread;
    none waits for a client.  Nothing starts here.

    :raises InvalidConfig: no log has that URL's scheme.
    """

    def __init__(
        self,
        config: BrokerConfig | None = None,
        *,
        log: Log | str = "memory://",
        authorizer: Authorizer | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config or BrokerConfig()
        self.log = open_log(log) if isinstance(log, str) else log
        self._clock: Clock = clock or SystemClock()
        limits = _limits(self.config)
        self.log.bind(limits, self._clock)
        self.streams = Streams(
            self, self.config, self.log, self._clock, limits, stream_host, authorizer
        )

    def __repr__(self) -> str:
        return f"<Broker {self.log.url} {self.streams.describe()}>"

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
        self.streams.start()

    def stop(self, timeout: float | None = None) -> None:
        """End every stream of this process in order, then its threads.  Idempotent.

        No stream is taken any more.  Each that is open writes what is queued and
        ``event: close``, with a reconnection time spread over the setting
        ``reconnect_window``; those that are not through after *timeout* seconds
        (the setting ``drain_timeout``) are cut.  Waits for that.  Sending is still
        possible afterwards.  A server that stops does this by itself.
        """
        self.streams.stop(timeout)

    def publish(self, message: Message) -> str:
        """Send a message; return its id.

        Returns once the log has the message; streams write it in their own time.
        Waits while too much is on its way to this process's streams: so a tight
        loop does not outrun readers that keep reading.  A reader that has stopped is
        not waited for.

        :raises QueueFull: that did not get better within the setting ``send_timeout``;
            nobody gets the message.
        :raises MessageTooLarge: longer than ``max_message_bytes``.
        :raises TopicsNotEnabled: the message is for a topic and ``enable_topics`` is off.
        :raises LogUnavailable: the message was not recorded and nobody gets it.
        """
        check_message(self.config, message)
        return self.streams.publish(message).id

    def last_event_id(self) -> str:
        """Return the id of now: a stream that begins there gets all that is sent from now on.

        For a page that is rendered with some state and connects afterwards.  Ask
        *before* the state is read: what is sent in between then comes to the page,
        instead of being missed.  Any thread, any process; asks the log.

        :raises LogUnavailable: the log cannot be read now.
        """
        return self.log.cursor(self.log.tail())

    def clear_retained(
        self,
        *,
        user_id: UserID | None = None,
        topic: str | None = None,
        event: str | None = None,
        tenant_id: UserID | AllTenants | None = None,
    ) -> int:
        """Let go of the retained messages of a user or a topic; return how many there were.

        Of one *event*, or of all where it is not said.  *tenant_id* is what it was
        when the messages were sent: without it, those that were sent without one.
        Streams that have them already are told nothing: send a message that says so,
        without *retain*.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises InvalidTopic: *topic* is empty or a pattern.
        :raises InvalidMessage: neither or both of *user_id* and *topic* are said.
        :raises LogUnavailable: nothing was cleared, or nobody knows.
        """
        if (user_id is None) == (topic is None):
            raise InvalidMessage("say one of user_id and topic", field="topic")
        tenant = tenant_id if tenant_id is ALL_TENANTS else normal_tenant_id(tenant_id)
        if topic is not None:
            return self.log.clear_retained(tenant, Target.TOPIC, check_name(topic), event)
        return self.log.clear_retained(tenant, Target.USER, normal_user_id(user_id), event)

    def disconnect_user(
        self,
        user_id: UserID,
        reason: str = "disconnected",
        *,
        tenant_id: UserID | AllTenants | None = None,
    ) -> None:
        """End every stream of a user, in all processes that share the log.

        Each gets what waits for it, then ``event: close`` with *reason*; what has not
        ended after the setting ``drain_timeout`` is cut.  A
        browser comes back after that; the authenticator decides how it is met.
        Without *tenant_id* it is that user in whatever tenant, as for :meth:`send_to_user`.
        Returns once the log has the command.

        :raises InvalidUserID: *user_id* or *tenant_id* is nil, empty or no id.
        :raises InvalidMessage: *reason* is empty, too long or more than a line, or there is
            no tenant and ``require_tenant`` is on.
        :raises LogUnavailable: nobody was disconnected.
        """
        tenant = self._tenant(tenant_id)
        command = of_member(Act.DISCONNECT_USER, normal_user_id(user_id), tenant, reason)
        self._command(command, self._clock.time() + REMEMBERED)

    def disconnect_client(self, client_id: str, reason: str = "disconnected") -> None:
        """End one stream, whichever process has it.  As :meth:`disconnect_user`."""
        command = Command(Act.DISCONNECT_CLIENT, client_id, reason)
        self._command(command, self._clock.time() + REMEMBERED)

    def revoke(
        self, token_id: str, expires_at: float | None = None, reason: str = "revoked"
    ) -> None:
        """End every stream of a token, in all processes, and refuse it from now on.

        A stream ends at once: what waits for it is dropped, it gets ``event: close``
        with *reason*, and is cut after the setting ``drain_timeout``.
        *token_id* is what identities carry (the claim ``jti`` of a JWT).  It is
        refused with 401 until *expires_at*, in seconds since the Unix epoch, when it
        ends by itself.  Where that is not said, it is refused for good, and the log
        remembers it for good.

        :raises InvalidMessage: *token_id* or *reason* is empty, too long or more than a line,
            or *expires_at* is no moment.
        :raises LogUnavailable: the token may still be accepted.
        """
        command = Command(Act.REVOKE, token_id, reason)
        self._command(command, math.inf if expires_at is None else _moment(expires_at))

    def _command(self, command: Command, until: float) -> None:
        # Both in one step: a stream that registers meanwhile, and a process that misses
        # the record, meet one of the two.
        self.log.revoke(mark_of(command), until, command)

    def _tenant(self, tenant_id: UserID | AllTenants | None) -> str | None:
        """Return the tenant that a call is about; ``None`` is whatever tenant."""
        if tenant_id is None and self.config.require_tenant:
            raise InvalidMessage("tenant_id is required; or say ALL_TENANTS", field="tenant_id")
        return None if tenant_id is ALL_TENANTS else normal_tenant_id(tenant_id)

    def recheck(self, user_id: UserID, *, tenant_id: UserID | AllTenants | None = None) -> None:
        """Ask again now what the open streams of a user may read, in all processes.

        The identity's topics and the authorizer are asked about each topic.  A stream
        that lost some gets ``event: revoked`` with their names and goes on with the
        rest; one that has none left ends.  With *tenant_id*, streams of that tenant only.
        Returns once the log has the command.

        :raises InvalidUserID: *user_id* or *tenant_id* is nil, empty or no id.
        :raises LogUnavailable: nobody is asked.
        """
        tenant = self._tenant(tenant_id)
        self.log.append(of_member(Act.RECHECK, normal_user_id(user_id), tenant, "recheck"))

    def get_stats(self) -> Stats:
        """Return a moment of this process, with sums over all.

        Memory only where streams are served; elsewhere the log is asked for the
        sums, which are 0 if it does not answer.
        """
        return self.streams.stats()

    def inspect(self) -> Inspection:
        """Return a moment of this process in detail: its streams, what is on its way, its threads.

        Memory only; never waits.  It says who is connected and what they subscribe
        to, so it is for operators and tests and not for everybody.
        """
        return self.streams.here().inspect()

    def health(self) -> dict[str, bool]:
        """Return what readiness depends on, each with whether it is well.

        A broker that was never used is well: its threads start with the first stream.
        A thread that has died is said to be unwell, and started again.
        """
        return self.streams.health()

    def explain(self, message_id: str, *, user_id: UserID) -> Explanation:
        """Return why a user got a message, or did not: a verdict, a sentence, and the facts.

        Over all processes that share the log.  What became of a message on its way is
        remembered for the newest ``trace_size`` ones.  Waits for the processes'
        answers, two seconds at most; for operators, not for each request.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises LogUnavailable: the log cannot be read now.
        """
        return explain(self.log, self.streams.ask, message_id, normal_user_id(user_id))

    def count_listeners(self, topic: str, *, tenant_id: UserID | AllTenants | None = None) -> int:
        """Return how many streams would get a message to *topic* now, over all processes.

        Patterns count.  *tenant_id* is as for :meth:`send_to_topic`.  Waits for the
        processes' answers, two seconds at most; who does not answer is not counted.

        :raises InvalidTopic: *topic* is empty or a pattern.
        :raises LogUnavailable: nobody can say now.
        """
        tenant = tenant_id if tenant_id is ALL_TENANTS else normal_tenant_id(tenant_id)
        topic = check_name(topic)
        return self.streams.listeners.count(topic, "*" if tenant is ALL_TENANTS else tenant)

    def is_user_online(
        self, user_id: UserID, *, tenant_id: UserID | AllTenants | None = None
    ) -> bool:
        """Whether a user has an open stream in any process that shares the log.

        True at once for a stream of this process; what other processes have is
        known here a moment later, and of one that died for 15 s more.  Without
        *tenant_id* it is that user in whatever tenant, as for :meth:`send_to_user`.

        :raises InvalidUserID: *user_id* or *tenant_id* is nil, empty or no id.
        :raises InvalidMessage: there is no tenant and ``require_tenant`` is on.
        :raises LogUnavailable: there is none here and nobody can say now about others.
        """
        user, tenant, here = normal_user_id(user_id), self._tenant(tenant_id), self.streams.here()
        if here.is_online(user, tenant):
            return True
        if self.log.roster.is_online(member_key(tenant, user), here.presence.process):
            return True
        if tenant is not None or not self.log.shared:
            return False
        elsewhere = here.presence.elsewhere(self._clock.monotonic())
        return any(member_of(key)[1] == user for key in elsewhere)

    def get_online_users(self, *, tenant_id: UserID | AllTenants | None = None) -> list[str]:
        """Return the ids of all users with an open stream in any process that shares the log.

        With *tenant_id*, of that tenant; without it of all, where equal ids of two
        tenants are one.

        :raises InvalidUserID: *tenant_id* is nil, empty or no id.
        :raises InvalidMessage: there is no tenant and ``require_tenant`` is on.
        :raises LogUnavailable: nobody can say now about other processes.
        """
        tenant, here = self._tenant(tenant_id), self.streams.here()
        keys = self.log.roster.online(here.presence.process).union(here.online_members())
        members = map(member_of, keys)
        return sorted({user for one, user in members if tenant in (None, one)})

    def register(self, client: Client) -> None:
        """Take in a client that the caller has made, for instance in a test.

        The client is offered every message from now on, until :meth:`unregister`,
        or until the reaper finds that nothing was written to it for too long.

        :raises TooManyConnections: a limit is reached.
        :raises TopicsNotEnabled: the client has topics and ``enable_topics`` is off.
        :raises BrokerStopped: the broker is stopped.
        """
        self.streams.register(client)

    def unregister(self, client: Client, reason: str = "unregistered") -> None:
        """Take a client out.  Idempotent."""
        self.streams.forget(client, reason)

    def after_commit(self, session: AnySession) -> AfterCommit:
        """Return what sends like this broker, but when *session* has committed.

        *session* is a SQLAlchemy Session or scoped_session (Flask-SQLAlchemy's
        ``db.session``).  The result has ``send_to_user``, ``send_to_topic``,
        ``broadcast`` and ``publish``, with the same arguments; they raise at once
        what the broker's own would raise for the message, return ``None`` or the
        caller's own id, and never wait.  Messages leave in the order of the calls when
        the outermost transaction has committed; those of a transaction or
        savepoint that is rolled back never do.  A message that cannot be sent
        then is logged as an error and lost: the commit does not fail for it.  See
        :meth:`AfterCommit.publish <sse_broker.commit.AfterCommit.publish>`.

        :raises InvalidConfig: SQLAlchemy is not installed.
        :raises TypeError: *session* is something else.
        """
        return AfterCommit(self, session)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Broker cannot be sent to another process; make one there, over a log that"
            " processes share: Broker(log='sqlite:///path') or redis://"
        )


def _moment(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value >= EARLIEST:  # type: ignore[operator]  # a number; NaN is not
        raise InvalidMessage(
            f"expires_at is a moment in seconds since the Unix epoch, not {value!r}; leave it out"
            " to have the token refused for good",
            field="expires_at",
        )
    return float(value)  # type: ignore[arg-type]  # a number


def _limits(config: BrokerConfig) -> LogLimits:
    return LogLimits(
        resume_window=config.resume_window,
        resume_bytes=config.resume_bytes,
        history_size=config.history_size,
        history_ttl=config.history_ttl,
        history_bytes=config.history_bytes,
        retained_size=config.retained_size,
        retained_bytes=config.retained_bytes,
    )
