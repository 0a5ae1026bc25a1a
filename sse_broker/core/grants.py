"""Whether a client that a message matched may have it, where a pattern let it in."""

from __future__ import annotations

from collections.abc import Callable

from sse_broker.core.client import Client
from sse_broker.wire.message import Message, Target
from sse_broker.wire.topics import matches

__all__ = ["MEMO", "Memo", "allows"]


class Memo:
    """Answers of authorizers, for all streams of a process; bounded, because topics may hold ids.

    Any thread; at the bound all is forgotten and asked again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: dict[tuple[object, str], bool] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, asker: object, topic: str) -> bool | None:
        """Return the answer that *asker* had for a topic, if it is remembered."""
        return self._answers.get((asker, topic))

    def put(self, asker: object, topic: str, answer: bool) -> None:
        """Remember an answer."""
        if len(self._answers) >= self._most:
            self._answers.clear()
        self._answers[asker, topic] = answer


MEMO = Memo(32_768)
"""That of this process."""


def allows(client: Client, message: Message, may_read: Callable[[str], bool]) -> bool:
    """Ask for each topic that only a pattern let in: a pattern is not a grant.

    *message* is one that the client wants.  Topics that it subscribes to by name were
    asked about when it came; any topic of several will do.
    """
    if message.target is not Target.TOPIC or message.topic in client.names:
        return True
    if len(message.topics) == 1:
        return may_read(message.topic)
    if not client.names.isdisjoint(message.topics):
        return True
    return any(
        may_read(topic)
        for topic in message.topics
        if any(matches(pattern, topic) for pattern in client.patterns)
    )
