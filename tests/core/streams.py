"""A reader driven by hand, and what its client has seen."""

from __future__ import annotations

from sse_broker import Broker, Identity
from sse_broker.testing import Event
from sse_broker.wire.parse import Parser

LIBRARY = {"welcome", "heartbeat", "reset", "dropped", "close", "error"}


class Hub(Broker):
    """A broker whose streams are driven by hand, so that stopping need not wait for them."""

    def __exit__(self, *args: object) -> None:
        self.stop(timeout=0)


class Tab:
    """A browser tab: keeps its last event id, and all events it ever got."""

    def __init__(
        self, broker: Broker, user: object = 1, topics=(), tenant=None, since=None
    ) -> None:
        self.broker = broker
        self.identity = Identity(user, tenant)
        self.topics, self.since = topics, since
        self.events: list[Event] = []
        self.last_event_id = ""
        self.reader = None

    def connect(self) -> Tab:
        self.parser = Parser()
        self.reader = self.broker.streams.open(
            self.identity, self.topics, self.last_event_id, since=self.since
        )
        return self

    def step(self, timeout: float = 0) -> bool:
        """Take one chunk; say whether there was one."""
        chunk = self.reader.next(timeout)
        if chunk:
            self.events += self.parser.feed(chunk)
            self.last_event_id = self.parser.last_event_id or self.last_event_id
        return bool(chunk)

    def read_on(self, steps: int = 10_000) -> Tab:
        """Take what there is now."""
        idle = 0
        while idle < 3 and steps:
            idle = 0 if self.step() else idle + 1
            steps -= 1
        return self

    def leave(self) -> Tab:
        self.broker.unregister(self.reader.client)
        self.reader = None
        return self

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events if event.event not in LIBRARY]

    def count(self, name: str) -> int:
        return sum(event.event == name for event in self.events)
