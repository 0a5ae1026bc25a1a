"""What the logs that several processes share have in common: one life per process id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sse_broker.core.forks import process_id
from sse_broker.core.ports import (
    Clock,
    Following,
    Interest,
    Listener,
    LogLimits,
    Lost,
    Record,
    Roster,
    SystemClock,
    Wants,
    everything,
)
from sse_broker.logs.epochs import Epochs
from sse_broker.logs.pages import Pages
from sse_broker.logs.retained import tenant_key
from sse_broker.wire.command import Command
from sse_broker.wire.message import AllTenants, Message, Target

__all__ = ["Life", "SharedLog"]


class Life(Protocol):
    """The log of one process id.  Its methods are those of the port."""

    epochs: Epochs
    pages: Pages

    @property
    def roster(self) -> Roster:
        """See :class:`~sse_broker.core.ports.Log`."""

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""

    def append(self, message: Message | Command) -> Record:
        """See :class:`~sse_broker.core.ports.Log`."""

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""

    def locate(self, id: str, wants: Wants, scopes: Callable[[], Sequence[str]]) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""

    def tail(self) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""

    def listen(self, listener: Listener, lost: Lost) -> Following:
        """See :class:`~sse_broker.core.ports.Log`."""

    def since(self, seconds: float | None) -> tuple[int, bool]:
        """See :class:`~sse_broker.core.ports.Log`."""

    def before(self, position: int, limit: int) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""

    def retained(self, interest: Interest) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""

    def clear_retained(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        """See :class:`~sse_broker.core.ports.Log`; the tenant as ``tenant_key`` writes it."""

    def close(self) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""


class SharedLog:
    """A log whose threads, locks and connections are made anew in each process.

    What it keeps is, once a listener is there, what :meth:`bind` said here.
    """

    shared = True

    def __init__(self, url: str, make: Callable[[LogLimits, Clock], Life]) -> None:
        self.url = url
        self._make = make
        self._limits = LogLimits()
        self._clock: Clock = SystemClock()
        self._lives: dict[int, Life] = {}

    def bind(self, limits: LogLimits, clock: Clock) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""
        self._limits, self._clock = limits, clock
        life = self._lives.get(process_id())
        if life is not None:
            life.bind(limits, clock)

    def append(self, message: Message | Command) -> Record:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().append(message)

    def revoke(self, token_id: str, until: float, command: Command) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""
        self._here().revoke(token_id, until, command)

    def read(self, after: int, limit: int) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().pages.read(after, limit)

    def locate(
        self, id: str, wants: Wants = everything, scopes: Callable[[], Sequence[str]] = tuple
    ) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().locate(id, wants, scopes)

    def cursor(self, position: int) -> str:
        """See :class:`~sse_broker.core.ports.Log`."""
        life = self._here()
        if not life.epochs.current:
            life.tail()
        return life.epochs.id(position)

    def tail(self) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().tail()

    @property
    def roster(self) -> Roster:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().roster

    def since(self, seconds: float | None) -> tuple[int, bool]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().since(seconds)

    def before(self, position: int, limit: int) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().before(position, limit)

    def retained(self, interest: Interest) -> Sequence[Record]:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().retained(interest)

    def clear_retained(
        self, tenant: str | AllTenants | None, target: Target, addressee: str, event: str | None
    ) -> int:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().clear_retained(tenant_key(tenant), target, addressee, event)

    def listen(self, listener: Listener, lost: Lost) -> Following:
        """See :class:`~sse_broker.core.ports.Log`."""
        return self._here().listen(listener, lost)

    def close(self) -> None:
        """See :class:`~sse_broker.core.ports.Log`."""
        life = self._lives.get(process_id())
        if life is not None:
            life.close()

    def _here(self) -> Life:
        pid = process_id()
        life = self._lives.get(pid)
        if life is None:  # setdefault is one step; a lock could be stuck after a fork
            life = self._lives.setdefault(pid, self._make(self._limits, self._clock))
        return life
