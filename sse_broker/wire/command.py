"""Commands: what one process asks of all processes that share a log.

They travel through the log between the messages, so a command takes effect
after what was sent before it, and never reach a client themselves.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import ClassVar

from sse_broker.errors import InvalidMessage
from sse_broker.wire.ids import normal_user_id

__all__ = ["Act", "Command", "is_line"]

MAX_CHARS = 256
MAX_DETAIL = 64 * 1024  # characters


def is_line(text: object) -> bool:
    """Whether *text* can be said in a command: 1 to 256 printable characters."""
    return isinstance(text, str) and text.isprintable() and 0 < len(text) <= MAX_CHARS


class Act(str, enum.Enum):
    """What a command does to the streams it is about."""

    DISCONNECT_USER = "disconnect_user"
    DISCONNECT_CLIENT = "disconnect_client"
    REVOKE = "revoke"
    SUBSCRIBE = "subscribe"  # change the topics of one client, as the detail says
    SUBSCRIBED = "subscribed"  # the answer to that, for who asked
    RECHECK = "recheck"  # ask again what the clients of a user may read
    ASK = "ask"  # a question to all processes: what it is about is in the reason and the detail
    ANSWER = "answer"  # the answer of one process to that
    NOTHING = "nothing"  # stands in the place of an entry that cannot be read

    __str__ = str.__str__


@dataclasses.dataclass(frozen=True)
class Command:
    """Do something to the streams of a user, of one client, or of a token.

    *detail* is JSON for what needs more than a value.

    :raises InvalidUserID: the value of ``disconnect_user`` is no user id.
    :raises InvalidMessage: another value, or the reason, is empty, has control
        characters or is longer than 256 characters.
    """

    act: Act
    value: str
    reason: str = "disconnected"
    detail: str = ""

    id: ClassVar[str] = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        try:
            put(self, "act", Act(self.act))
        except ValueError:
            raise InvalidMessage(f"there is no command {self.act!r}", field="act") from None
        if self.act in (Act.DISCONNECT_USER, Act.RECHECK):
            put(self, "value", normal_user_id(self.value))
        for field in ("value", "reason"):
            if not is_line(getattr(self, field)):
                raise InvalidMessage(
                    f"{field} must be a line of 1 to {MAX_CHARS} characters", field=field
                )
        if not isinstance(self.detail, str) or len(self.detail) > MAX_DETAIL:
            raise InvalidMessage(f"detail must be at most {MAX_DETAIL} characters", field="detail")
