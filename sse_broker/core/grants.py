"""Whether a client that a message matched may have it, where a pattern let it in."""

from __future__ import annotations

from collections.abc import Callable

from sse_broker.core.client import Client
from sse_broker.wire.message import Message, Target
from sse_broker.wire.topics import matches

__all__ = ["allows"]


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
