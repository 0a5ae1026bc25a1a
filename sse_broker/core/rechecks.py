"""Ask again what streams may read: because somebody says so, or because it is due.

The application's authorizer is asked on a thread of its own, never on one that
writes to streams.  A topic that it denies is withdrawn; where it cannot answer,
the stream keeps what it has, and the failure is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sse_broker.core.client import Client
from sse_broker.core.commands import is_about
from sse_broker.core.identity import Identity
from sse_broker.core.lanes import Lane
from sse_broker.core.ports import Clock
from sse_broker.core.subscriptions import Subscriptions
from sse_broker.errors import AuthorizerFailed
from sse_broker.wire.command import Command

__all__ = ["Rechecks"]


class Rechecks:
    """Questions to the authorizer about streams that are open in this process."""

    def __init__(
        self,
        clients: Callable[[], Sequence[Client]],
        subscriptions: Subscriptions,
        may_read: Callable[[Identity, str], bool],
        clock: Clock,
        interval: float,
    ) -> None:
        self._clients = clients
        self._subscriptions = subscriptions
        self._may_read = may_read
        self._clock = clock
        self._interval = interval
        self._lane: Lane | None = None
        self._is_at_it = False
        subscriptions.recheck = self.obey

    def stop(self) -> None:
        """End the thread."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.stop()

    def obey(self, command: Command) -> None:
        """Ask again about the streams of a user.  Never waits."""
        self._submit(lambda client: is_about(command, client))

    def everybody(self) -> None:
        """Ask again about all streams, where commands may have been lost.  Never waits."""
        self._submit(lambda _: True)

    def tick(self) -> None:
        """Ask about the streams that are due.  Never waits; one round at a time."""
        if not self._interval or self._is_at_it:
            return
        due = self._clock.monotonic() - self._interval
        if any(client.topics and client.checked_at <= due for client in self._clients()):
            self._is_at_it = True
            self._submit(lambda client: client.checked_at <= due, self._is_over)

    def _is_over(self) -> None:
        self._is_at_it = False

    def _submit(
        self, about: Callable[[Client], bool], afterwards: Callable[[], None] = lambda: None
    ) -> None:
        def look() -> None:
            try:
                for client in self._clients():
                    if client.topics and about(client):
                        self._ask(client)
            finally:
                afterwards()

        if self._lane is None:
            self._lane = Lane("rechecks", 1)
        self._lane.submit(look)

    def _ask(self, client: Client) -> None:
        client.checked_at = self._clock.monotonic()
        reader = None if client.reader is None else client.reader()
        if reader is not None:
            reader.topics_changed()  # what a pattern lets in is asked again too
        lost = [topic for topic in client.topics if not self._keeps(client, topic)]
        if lost:
            self._subscriptions.withdraw(client, lost)

    def _keeps(self, client: Client, topic: str) -> bool:
        try:
            return self._may_read(client.identity, topic)
        except AuthorizerFailed:
            return True
