"""Who may publish over HTTP, and what: credentials bound to a tenant, topics and events."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Request
from werkzeug.exceptions import HTTPException

from sse_broker.errors import (
    AuthenticationFailed,
    BrokerError,
    InvalidConfig,
    NotNow,
    PublishForbidden,
)
from sse_broker.web.credentials import bearer, token_of
from sse_broker.web.failure import failed, named
from sse_broker.web.said import Said
from sse_broker.web.tokens import Issuer, jwt_verifier
from sse_broker.wire.ids import UserID, normal_tenant_id
from sse_broker.wire.message import ALL_TENANTS, AllTenants, Message, Target
from sse_broker.wire.topics import check_pattern, covers

__all__ = [
    "PublishAuthenticator",
    "Publisher",
    "check_publish_authenticator",
    "jwt_publisher",
    "publisher_of",
]


@dataclass(frozen=True)
class Publisher:
    """What one publisher may say; by default everything, to everybody.

    *tenant_id*: it speaks in that tenant only, and a message that names none is
    for that tenant; ``ALL_TENANTS`` is no bound.  *topics*: names and patterns;
    it may send to nothing else, neither to users nor to everybody.  *events*: the
    names it may use.  *name* keeps its idempotency keys apart from others'.

    :raises InvalidUserID: *tenant_id* is no id.  A tenant that is missing is an
        error, not everybody.
    :raises InvalidTopic: one of *topics* is neither a name nor a pattern.
    """

    tenant_id: UserID | AllTenants = ALL_TENANTS
    topics: Sequence[str] | None = None
    events: Sequence[str] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.tenant_id is not ALL_TENANTS:
            tenant = normal_tenant_id(self.tenant_id)
            if tenant is None:
                raise InvalidConfig("a publisher's tenant is None", field="tenant_id")
            put(self, "tenant_id", tenant)
        if self.topics is not None:
            put(self, "topics", tuple(check_pattern(topic) for topic in self.topics))
        if self.events is not None:
            put(self, "events", frozenset(self.events))

    @property
    def is_bound(self) -> bool:
        """Whether it may not say everything to everybody."""
        return not (self.tenant_id is ALL_TENANTS and self.topics is None and self.events is None)

    def bind(self, fields: dict[str, Any]) -> None:
        """Put this publisher's tenant into a message that names none."""
        if self.tenant_id is not ALL_TENANTS and "tenant_id" not in fields:
            fields["tenant_id"] = self.tenant_id

    def check(self, message: Message) -> None:
        """Refuse what this publisher may not say.

        :raises PublishForbidden: the message is for another tenant, not for one of the
            topics, or has another event.
        """
        if self.tenant_id is not ALL_TENANTS and message.tenant_id != self.tenant_id:
            raise PublishForbidden("these credentials are for another tenant", field="tenant_id")
        if self.topics is not None:
            if message.target is not Target.TOPIC:
                raise PublishForbidden("these credentials are for topics", field="target")
            if not all(self._may_send_to(topic) for topic in message.topics):
                raise PublishForbidden("these credentials are for other topics", field="topic")
        if self.events is not None and message.event not in self.events:
            raise PublishForbidden("these credentials are for other events", field="event")

    def _may_send_to(self, topic: str) -> bool:
        return any(covers(grant, topic) for grant in self.topics or ())


PublishAuthenticator = Callable[[Request], "bool | Publisher"]

_ANYTHING = Publisher()


def jwt_publisher(
    key: Any = None,
    *,
    jwks_url: str = "",
    algorithms: Sequence[str] = (),
    audience: str | Sequence[str] | None = None,
    issuer: str | None = None,
    claim: str = "publish",
) -> Callable[[Request], Publisher]:
    """Return a publish authenticator for JSON Web Tokens in ``Authorization: Bearer``.

    The *claim* says what the token may publish: ``{"tenant_id": ..., "topics": [...],
    "events": [...]}``, each left out where it is no bound, or ``true`` for
    everything.  A token without it may not publish.  The other arguments are those
    of :func:`jwt_authenticator`.

    :raises InvalidConfig: as for :func:`jwt_authenticator`.
    """
    one = Issuer(key=key, jwks_url=jwks_url, algorithms=algorithms, audience=audience)
    verify = jwt_verifier({issuer: one})

    def authenticator(request: Request) -> Publisher:
        claims = verify(token_of(request))
        return _granted(claims.get(claim), str(claims.get("sub", "")))

    return authenticator


def _granted(grant: Any, name: str) -> Publisher:
    if grant is True:
        return Publisher(name=name)
    if not isinstance(grant, Mapping) or grant.keys() - {"tenant_id", "topics", "events"}:
        raise AuthenticationFailed("the token is not for publishing")
    for field in ("topics", "events"):
        names = grant.get(field, [])
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise AuthenticationFailed(f"{field} of the token must be a list of strings")
    try:
        return Publisher(**grant, name=name)
    except BrokerError as err:
        raise AuthenticationFailed(str(err)) from err


def check_publish_authenticator(authenticator: PublishAuthenticator | str | None) -> None:
    """Refuse a token that would let everybody publish.

    :raises InvalidConfig: it is empty.
    """
    if isinstance(authenticator, str) and not authenticator.strip():
        raise InvalidConfig("an empty publish token would let everybody publish")


def publisher_of(
    authenticator: PublishAuthenticator | str, request: Request, said: Said
) -> Publisher:
    """Return what *request* may publish.

    :raises AuthenticationFailed: nothing.
    :raises NotNow: nobody can say now.
    """
    if isinstance(authenticator, str):
        given = bearer(request)
        if not hmac.compare_digest(given.encode(), authenticator.encode()):
            raise AuthenticationFailed
        return _ANYTHING
    try:
        found = authenticator(request)
    except (BrokerError, HTTPException):
        raise
    except Exception as err:
        if failed(said, "publish authenticator", authenticator, err):
            raise NotNow from err
        raise AuthenticationFailed from err
    if isinstance(found, Publisher):
        return found
    if found is not True:
        if found is not False:
            said.error(
                f"returned {named(authenticator)}",
                "the publish authenticator %s returned a %s; it must return True, False or a"
                " Publisher",
                named(authenticator),
                type(found).__name__,
            )
        raise AuthenticationFailed
    return _ANYTHING
