"""What the core asks of the world: a log, a clock, and who may read what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sse_broker.core.identity import Identity
from sse_broker.wire.message import Message

__all__ = ["Authorizer", "Clock", "Listener", "Log", "LogLimits", "PositionLost", "Record"]


class Record:
    """A message at its place in the log, with its frame.  Shared by all clients; never changed."""

    __slots__ = ("frame", "id", "message", "position")

    def __init__(self, position: int, id: str, message: Message) -> None:
        self.position = position
        self.id = id
        self.message = message
        self.frame = b"id: %b\n%b" % (id.encode(), message.body)

    def __repr__(self) -> str:
        return f"<Record {self.id} {self.message.event!r} to {self.message.target}>"


class PositionLost(Exception):
    """The log cannot continue from a position: it can't prove that nothing is missing.

    ``reason`` is one of ``trimmed`` (older than what is kept), ``epoch`` (from
    another life of the log), ``ahead`` (beyond the tail), ``unknown`` (never
    seen, or forgotten) and ``malformed``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class LogLimits:
    """What a log keeps.  A message stays while the window or the history wants it.

    Ages are in seconds and sizes in bytes; 0 is no limit, except that
    ``history_size`` 0 is no history and ``resume_window`` 0 no window.
    """

    resume_window: float = 60.0
    resume_bytes: int = 16 * 1024 * 1024
    history_size: int = 0
    history_ttl: float = 86_400.0
    history_bytes: int = 64 * 1024 * 1024


Listener = Callable[[Record], None]


class Log(Protocol):
    """The ordered, bounded record of messages that every process tails.

    Any thread may call any method.  Positions are integers that only grow
    within one epoch; they need not be dense.
    """

    url: str
    """How the log was opened, without secrets."""

    shared: bool
    """Whether several processes can see the same messages."""

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        """Tell the log what to keep, before anything else is asked of it."""

    def append(self, message: Message) -> Record:
        """Record *message* and return its record; listeners have it soon, in log order.

        A message whose own id is still in the log is not recorded again: the
        first record of that id is returned.  May wait for I/O, never for a reader.

        :raises LogUnavailable: it was not recorded.
        """

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """Return the next records after a position, at most *limit*, oldest first.

        :raises PositionLost: something after *after* is gone already.
        """

    def locate(self, id: str) -> int:
        """Return the position that a wire id, ours or a caller's own, stands for.

        :raises PositionLost: continuity from there cannot be proved.
        """

    def cursor(self, position: int) -> str:
        """Return the wire id of a position."""

    def tail(self) -> int:
        """Return the position of the newest record, or where the next epoch begins."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with each record from now on, one at a time, in log order.

        Returns the call that ends it.
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
