"""Who asks: authenticators and topic resolvers.

An authenticator takes the request and returns an :class:`Identity`, or the
seed's ``(user_id, tenant_id)``; raising refuses the stream with 401.
"""

from __future__ import annotations

import hmac
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from flask import Request
from werkzeug.exceptions import HTTPException

from sse_broker.core.identity import Identity
from sse_broker.errors import AuthenticationFailed, BrokerError, InvalidConfig, InvalidUserID
from sse_broker.wire.ids import UserID

__all__ = [
    "Authenticator",
    "PublishAuthenticator",
    "TopicResolver",
    "authenticate",
    "default_authenticator",
    "default_topic_resolver",
    "is_publisher",
    "jwt_authenticator",
]

Authenticator = Callable[[Request], "Identity | tuple[UserID, UserID | None]"]
TopicResolver = Callable[[Request], Sequence[str]]
PublishAuthenticator = Callable[[Request], bool]

_log = logging.getLogger("sse_broker.auth")
_said_default = False


def authenticate(authenticator: Authenticator, request: Request) -> Identity:
    """Return whom *request* comes from.

    :raises AuthenticationFailed: the authenticator raised, or returned nothing usable.
    :raises InvalidUserID: the user or tenant id is none.
    """
    try:
        found = authenticator(request)
    except (BrokerError, HTTPException):
        raise
    except Exception as err:
        _log.warning("%s refused a stream: %s", _name(authenticator), type(err).__name__)
        raise AuthenticationFailed from err
    if isinstance(found, Identity):
        return found
    if isinstance(found, tuple) and len(found) == 2:
        return Identity(*found)
    raise AuthenticationFailed


def default_authenticator(request: Request) -> Identity:
    """Believe ``?user_id=<uuid>&tenant_id=<uuid>``, as the seed does.  For development only.

    :raises InvalidUserID: *user_id* is missing or nil, or one is not a UUID.
    """
    global _said_default
    if not _said_default:
        _said_default = True
        _log.warning("default_authenticator believes the query string; it is for development only")
    tenant = request.args.get("tenant_id", "")
    user = _uuid(request.args.get("user_id", ""), "user_id")
    return Identity(user, _uuid(tenant, "tenant_id") if tenant else None)


def default_topic_resolver(request: Request) -> list[str]:
    """Return the topics of ``?topics=a,b``; none if there is no such parameter."""
    names = (name.strip() for name in request.args.get("topics", "").split(","))
    return [name for name in names if name]


def jwt_authenticator(
    key: Any,
    *,
    algorithms: Sequence[str] = ("HS256",),
    audience: str | None = None,
    issuer: str | None = None,
    user_claim: str = "sub",
    tenant_claim: str = "tenant_id",
    topics_claim: str = "topics",
    cookie: str = "",
    query: str = "token",
    leeway: float = 0,
) -> Authenticator:
    """Return an authenticator for JSON Web Tokens (RFC 7519).  Needs the extra ``jwt``.

    The token is looked for in ``Authorization: Bearer``, then in *cookie*, then
    in the query parameter *query*; an empty name leaves that place out.  A token
    in a URL ends up in access logs: keep those short-lived.  ``exp`` is
    required, and the stream is closed when it passes.  *algorithms* are the only
    ones accepted; audience and issuer are checked when given.  A *topics_claim*
    in the token is a list of names and patterns; without it any topic of the
    tenant may be read.

    :raises InvalidConfig: PyJWT is not installed, or *key* or *algorithms* is empty.
    """
    try:
        jwt = import_module("jwt")
    except ImportError as err:
        raise InvalidConfig("JWT needs PyJWT: pip install 'sse-broker[jwt]'") from err
    accepted = list(algorithms)
    if not key or not accepted or any(name.lower() == "none" for name in accepted):
        raise InvalidConfig("JWT needs a key and at least one algorithm; 'none' is none")
    options = {"require": ["exp", user_claim], "verify_sub": False}

    def authenticator(request: Request) -> Identity:
        token = _token(request, cookie, query)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=accepted,
                audience=audience,
                issuer=issuer,
                leeway=leeway,
                options={**options, "verify_aud": audience is not None},
            )
        except jwt.PyJWTError as err:
            raise AuthenticationFailed(type(err).__name__) from err
        return _identity(claims, user_claim, tenant_claim, topics_claim, leeway)

    return authenticator


def _identity(
    claims: Mapping[str, Any], user: str, tenant: str, topics: str, leeway: float
) -> Identity:
    granted = claims.get(topics)
    is_list = isinstance(granted, list) and all(isinstance(topic, str) for topic in granted)
    if granted is not None and not is_list:
        raise AuthenticationFailed(f"the claim {topics!r} must be a list of strings")
    try:
        return Identity(
            claims[user],
            claims.get(tenant),
            topics=granted,
            expires_at=float(claims["exp"]) + leeway,
            token_id=str(claims.get("jti", "")),
            claims=claims,
        )
    except BrokerError as err:
        raise AuthenticationFailed(str(err)) from err


def is_publisher(authenticator: PublishAuthenticator | str, request: Request) -> bool:
    """Whether *request* may publish: a bearer token, or whatever a function says."""
    if callable(authenticator):
        return bool(authenticator(request))
    given = _bearer(request)
    return hmac.compare_digest(given.encode(), authenticator.encode()) if given else False


def _token(request: Request, cookie: str, query: str) -> str:
    token = _bearer(request)
    if not token and cookie:
        token = request.cookies.get(cookie, "")
    if not token and query:
        token = request.args.get(query, "")
    if not token:
        raise AuthenticationFailed("missing token")
    return token


def _bearer(request: Request) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""  # RFC 6750, section 2.1


def _uuid(text: str, field: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        what = "it is missing" if not text else "it is not a UUID"
        raise InvalidUserID(what, field=field) from None


def _name(what: object) -> str:
    return str(getattr(what, "__name__", type(what).__name__))
