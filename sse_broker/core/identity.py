"""Who is at the other end of a stream."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sse_broker.errors import AuthenticationFailed, InvalidUserID
from sse_broker.wire.command import is_line
from sse_broker.wire.ids import UserID, normal_tenant_id, normal_user_id
from sse_broker.wire.topics import check_pattern, covers

__all__ = ["Identity", "may_read"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What authentication yields.

    ``topics`` are the names and patterns this identity may read; ``None`` is
    any topic of its tenant.  ``expires_at`` is in seconds since the Unix epoch:
    the stream is closed then.  Of a stream of nobody, ``is_anonymous`` is true and the
    user id empty (:meth:`anonymous`).  ``claims`` are carried to ``Client.metadata``.

    :raises InvalidUserID: the user or tenant id is none.
    :raises InvalidTopic: one of *topics* is neither a name nor a pattern.
    :raises AuthenticationFailed: *expires_at* is no number, or *token_id* cannot be revoked.
    """

    user_id: UserID
    tenant_id: UserID | None = None
    topics: Sequence[str] | None = None
    expires_at: float | None = None
    token_id: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    is_anonymous: bool = False

    @classmethod
    def anonymous(
        cls,
        topics: Sequence[str] = (),
        tenant_id: UserID | None = None,
        expires_at: float | None = None,
    ) -> Identity:
        """Return the identity of a visitor whom nobody knows.

        Such a stream reads *topics* and nothing else: no message to a user, no
        broadcast.  It is limited by its address (the setting
        ``max_anonymous_per_address``) and is no user who is online.
        """
        return cls("", tenant_id, topics=topics, expires_at=expires_at, is_anonymous=True)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not self.is_anonymous:
            put(self, "user_id", normal_user_id(self.user_id))
        elif self.user_id != "" or self.topics is None:
            raise InvalidUserID("an anonymous identity has topics and no user id", field="user_id")
        put(self, "tenant_id", normal_tenant_id(self.tenant_id))
        if self.topics is not None:
            put(self, "topics", tuple(check_pattern(topic) for topic in self.topics))
        if self.expires_at is not None:
            put(self, "expires_at", _end(self.expires_at))
        if self.token_id and not is_line(self.token_id):
            raise AuthenticationFailed(
                "token_id (the jti of a token) has to be 1 to 256 printable characters, or the"
                " token could not be revoked",
                field="token_id",
            )

    @property
    def digest(self) -> str:
        """16 hex digits, the same for the same user of the same tenant: only to compare by."""
        who = repr((self.tenant_id, self.user_id)).encode()
        return hashlib.blake2b(who, digest_size=8).hexdigest()


def _end(value: float) -> float | None:
    """Return when an identity ends; infinity is never, and no other value means that."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or math.isnan(value):
        raise AuthenticationFailed("expires_at is not a number of seconds", field="expires_at")
    return None if value == math.inf else float(value)


def may_read(identity: Identity, topic: str) -> bool:
    """Whether the topics granted to *identity* cover *topic*, a name or a pattern."""
    grants = identity.topics
    return grants is None or any(covers(grant, topic) for grant in grants)
