"""Where a client that comes back goes on, found by the id that it saw last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sse_broker.core.client import Client
from sse_broker.core.identity import Identity
from sse_broker.core.ports import Log, PositionLost
from sse_broker.errors import AuthorizerFailed, InvalidMessage
from sse_broker.wire.command import Command
from sse_broker.wire.message import Message, Target, check_id
from sse_broker.wire.scope import scopes_of_reader
from sse_broker.wire.topics import matches

__all__ = ["locate"]


def locate(
    log: Log,
    last_event_id: str,
    identity: Identity,
    topics: Sequence[str],
    allows: Callable[[Identity, str], bool],
) -> tuple[int | None, str]:
    """Return the position, and why there is none although an id was given.

    An own id is found where its message is one that this identity may read with
    these topics; *allows* is asked about a topic that only a pattern lets in.
    Waits for the log.

    :raises LogUnavailable: the log cannot be read now.
    """
    if not last_event_id:
        return None, ""
    reader = Client(identity, topics=topics)  # the one rule of who is sent what is a client's

    def wants(message: Message | Command) -> bool:
        if not reader.wants(message):
            return False
        assert isinstance(message, Message)
        if message.target is not Target.TOPIC or not reader.names.isdisjoint(message.topics):
            return True
        try:
            return any(
                allows(identity, one)
                for one in message.topics
                if any(matches(pattern, one) for pattern in reader.patterns)
            )
        except AuthorizerFailed:
            return False

    def scopes() -> list[str]:
        return scopes_of_reader(reader.user_id, reader.tenant_id, reader.names)

    try:
        return log.locate(check_id(last_event_id), wants, scopes), ""
    except PositionLost as lost:
        return None, lost.reason
    except InvalidMessage:
        return None, "malformed"
