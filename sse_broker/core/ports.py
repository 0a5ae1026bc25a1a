"""What the core asks of the world: a log, a clock, and who may read what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sse_broker.core.identity import Identity
from sse_broker.wire.command import Command
from sse_broker.wire.message import AllTenants, Message, Target

__all__ = [
    "Authorizer",
    "Census",
    "Clock",
    "Following",
    "Interest",
    "Listener",
    "Log",
    "LogLimits",
    "Lost",
    "PositionLost",
    "Record",
    "Roster",
    "RosterSync",
    "StreamHost",
    "Wants",
    "everything",
]


class Record:
    """A message at its place in the log, with its frame.  Shared by all clients; never changed.

    A command has a place too, and no frame: it is for the processes.
    """

    __slots__ = ("frame", "id", "message", "position")

    def __init__(self, position: int, id: str, message: Message | Command) -> None:
        self.position = position
        self.id = id
        self.message = message
        if type(message) is Message:
            self.frame = b"id: %b\n%b" % (id.encode(), message.body)
        else:
            self.frame = b""

    def __repr__(self) -> str:
        return f"<Record {self.id} {self.message!r}>"


class PositionLost(Exception):
    """The log cannot continue from a position: it can't prove that nothing is missing.

    ``reason`` is one of ``trimmed`` (older than what is kept), ``epoch`` (from
    another life of the log), ``ahead`` (beyond the tail), ``unknown`` (never
    seen, or forgotten), ``unreadable`` (an entry that nobody can read) and
    ``malformed``.  ``goes_on`` is the position after which there is more to read;
    ``None`` is the tail.
    """

    def __init__(self, reason: str, *, goes_on: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.goes_on = goes_on


@dataclass(frozen=True)
class LogLimits:
    """What a log keeps.  A message stays while the window or the history wants it.

    Ages are in seconds and sizes in bytes; 0 is no limit, except that
    ``history_size`` 0 is no history and ``resume_window`` 0 no window.  The last
    two are about retained messages only, which stay beyond window and history.
    """

    resume_window: float = 60.0
    resume_bytes: int = 16 * 1024 * 1024
    history_size: int = 0
    history_ttl: float = 86_400.0
    history_bytes: int = 64 * 1024 * 1024
    retained_size: int = 10_000
    retained_bytes: int = 16 * 1024 * 1024

    def keeps(self, age: float, count: int, size: int) -> bool:
        """Whether the oldest of *count* messages with *size* bytes in all stays at its *age*."""
        if self.resume_window and age <= self.resume_window and size <= self.resume_bytes:
            return True
        return (
            count <= self.history_size
            and (not self.history_ttl or age <= self.history_ttl)
            and (not self.history_bytes or size <= self.history_bytes)
        )


@dataclass(frozen=True)
class Census:
    """How many there are over all live processes that share a log."""

    processes: int = 0
    clients: int = 0
    users: int = 0


@dataclass(frozen=True)
class RosterSync:
    """What a roster answers to a process's report.

    ``came`` are users that no process had before, ``left`` those that none has
    now.  ``known`` is whether the roster knew the process; if it did not, the
    process has to report all its users.
    """

    came: Sequence[str] = ()
    left: Sequence[str] = ()
    known: bool = True
    census: Census = Census()


class Roster(Protocol):
    """Who is online over all processes that share a log, and which tokens are revoked.

    Any thread may call any method.  Each may wait for I/O, for a bounded time,
    and raises LogUnavailable where it cannot answer.
    """

    def sync(
        self, process: str, clients: int, users: Mapping[str, bool | None], ttl: float
    ) -> RosterSync:
        """Report a process's streams, in one step with what others report.

        *users* are changes: ``True`` is online, ``False`` left a moment ago and
        may come back, ``None`` gone.  A process that does not report for *ttl*
        seconds is dead, and its users are gone.
        """

    def is_online(self, user_id: str, but: str = "") -> bool:
        """Whether a user is online in any live process other than *but*."""

    def online(self, but: str = "") -> set[str]:
        """Return the users that are online in any live process other than *but*."""

    def census(self) -> Census:
        """Return the sums over all live processes."""

    def revoke(self, token_id: str, until: float) -> None:
        """Remember a revoked token until then, in seconds since the Unix epoch."""

    def is_revoked(self, token_id: str) -> bool:
        """Whether a token is revoked."""

    def keep(self, name: str, value: str, until: float) -> str:
        """Keep *value* under a name until then, if nothing is; return what is kept there.

        One step: of two that keep different values at once both get the same one.
        """

    def kept(self, name: str) -> str | None:
        """Return what is kept under a name, if anything is."""


Wants = Callable[[Message | Command], bool]
"""Whether a reader may have a message.  Memory only."""


def everything(message: Message | Command) -> bool:
    """Whether a message is no command: what who may read all may read."""
    return isinstance(message, Message)


Listener = Callable[[Record], None]
Lost = Callable[[int], None]
"""Told that records were missed, and the position from which on the next ones follow."""


class Following(Protocol):
    """A listener's hold on a log."""

    @property
    def start(self) -> int:
        """The position after which the listener gets everything."""

    @property
    def is_healthy(self) -> bool:
        """Whether the listener gets what is recorded."""

    def restart(self) -> None:
        """Start again what has died of it, losing nothing; called about once a second."""

    def stop(self) -> None:
        """Call the listener no more.  Idempotent."""


class Interest(Protocol):
    """What a client reads, as far as a log has to know to look for it."""

    @property
    def tenant_id(self) -> str | None:
        """Its tenant."""

    @property
    def user_id(self) -> str:
        """Its user."""

    @property
    def names(self) -> frozenset[str]:
        """The topics that it reads by name."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of those that it reads by pattern."""


class Log(Protocol):
    """The ordered, bounded record of messages that every process tails.

    Any thread may call any method.  Positions are integers that only grow
    in one process, also over a change of epoch; they need not be dense.
    """

    url: str
    """How the log was opened, without secrets."""

    shared: bool
    """Whether several processes can see the same messages."""

    @property
    def roster(self) -> Roster:
        """Who is online, as far as this log reaches."""

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        """Tell the log what to keep, before anything else is asked of it."""

    def append(self, message: Message | Command) -> Record:
        """Record *message* and return its record; listeners have it soon, in log order.

        An own id belongs to the tenant and the addressee of its message.  A
        message whose own id is still kept for these is not recorded again: the
        first record of that id is returned.  May wait for I/O, for a bounded
        time, and never for a reader.

        :raises IdConflict: that first record is of another message.
        :raises LogUnavailable: it was not recorded, or nobody knows whether it was.
        :raises QueueFull: there is no room for it.
        """

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        """Have a token remembered as revoked, and *command* recorded that says so.

        Who asks the roster after a look at the log meets one of the two.  Waits
        as :meth:`append`: the bound is for both.

        :raises LogUnavailable: the token may still be accepted.
        """

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """Return the next records after a position, at most *limit*, oldest first.

        None at all says that the position is the tail, or that what follows it
        has not come to this process yet: its listeners get that.

        :raises PositionLost: something after *after* is gone already.
        :raises LogUnavailable: the log cannot be read now.
        """

    def locate(
        self, id: str, wants: Wants = everything, scopes: Callable[[], Sequence[str]] = tuple
    ) -> int:
        """Return the position that a wire id, ours or a caller's own, stands for.

        An own id is found where its message is one that the reader *wants*;
        whether others have it is not told.  *scopes* are those of the reader
        (:func:`sse_broker.wire.scope.scopes_of_reader`), for an own id that so
        many have that not all are looked at.

        :raises PositionLost: continuity from there cannot be proved.
        :raises LogUnavailable: the log cannot be read now.
        """

    def since(self, seconds: float | None) -> tuple[int, bool]:
        """Return the position after which the messages of the last *seconds* follow.

        ``None`` is all that is kept.  Beside it, whether nothing that belongs to them
        is gone already.

        :raises LogUnavailable: the log cannot be read now.
        """

    def before(self, position: int, limit: int) -> Sequence[Record]:
        """Return the last records up to and with a position, at most *limit*, oldest first.

        Fewer where there are no more.

        :raises LogUnavailable: the log cannot be read now.
        """

    def cursor(self, position: int) -> str:
        """Return the wire id of a position."""

    def tail(self) -> int:
        """Return the position of the newest record, or where the next epoch begins.

        :raises LogUnavailable: the log cannot be read now.
        """

    def retained(self, interest: Interest) -> Sequence[Record]:
        """Return the retained messages for a client, each once, oldest first.

        :raises LogUnavailable: the log cannot be read now.
        """

    def clear_retained(
        self, tenant: str | AllTenants | None, target: Target, addressee: str, event: str | None
    ) -> int:
        """Let go of what is retained for a user or a topic, of one event or of all.

        Returns how many messages that were.

        :raises LogUnavailable: nothing was cleared, or nobody knows.
        """

    def listen(self, listener: Listener, lost: Lost) -> Following:
        """Call *listener* with each record from now on, one at a time, in log order.

        Where records were missed that cannot be had any more, *lost* is called
        in between, so that whoever got the ones before can be told.

        :raises LogUnavailable: the log cannot be read now.
        """

    def close(self) -> None:
        """Let go of what the log holds open.  Idempotent."""


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Return seconds that never go back, for ages and waits."""

    def time(self) -> float:
        """Return seconds since the Unix epoch, for what others wrote down."""


class SystemClock:
    """The clock of the machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


Authorizer = Callable[[Identity, str], bool]
"""Whether an identity may read a topic.  Called on the stream's thread, with no lock held."""


class StreamHost(Protocol):
    """What serves the streams of this process; the core knows nothing else of them.

    What is told to :meth:`write` and :meth:`heed` is told where an act runs that was
    given to :meth:`call` or :meth:`hand_out`, and nowhere else.  A client is *core.client.Client*.
    """

    @property
    def is_alive(self) -> bool:
        """Whether what is asked of the host is done."""

    def restart(self) -> None:
        """Start again what has died, and log what went wrong; called about once a second.

        By a thread that holds no lock.
        """

    def release(self) -> None:
        """End what served one broker alone: it has stopped.  Waits for a bounded time."""

    def call(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, after what was asked for before.  Never waits."""

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """Run *act* so too, or here and now if that is quick: it writes to so many clients."""

    def again(self, act: Callable[[], None]) -> None:
        """Run *act* should it have been lost that it was asked for.  Any thread; never waits."""

    def write(self, clients: Sequence[Any], records: Sequence[Record]) -> None:
        """Write neighbouring records to each of some clients, or queue them.  Never waits."""

    def heed(self, clients: Sequence[Any]) -> None:
        """Have what some clients were told done before anything else is written to them."""

    def trouble(self, text: str) -> None:
        """Have the exception that is being handled logged with *text*, once no lock is held."""

    def settle(self, clients: Sequence[Any]) -> None:
        """Have clients know what was written to them.  Any thread; waits a second at most."""

    def look(self, clients: Sequence[Any]) -> None:
        """Have clients know what was written to them, as far as that needs no wait.  Any thread."""
