"""Who asks: authenticators and topic resolvers.

An authenticator takes the request and returns an :class:`Identity`, or a pair
``(user_id, tenant_id)``.  What it raises refuses the stream: with 401 for
good, or, where it is passing trouble (:mod:`sse_broker.web.failure`), for now.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence

from flask import Request, current_app
from werkzeug.exceptions import HTTPException

from sse_broker.core.identity import Identity
from sse_broker.core.since import Subscription
from sse_broker.errors import AuthenticationFailed, BrokerError, InvalidUserID, NotNow
from sse_broker.web.failure import failed, named
from sse_broker.web.said import Said
from sse_broker.wire.ids import UserID

__all__ = [
    "Authenticator",
    "TopicResolver",
    "authenticate",
    "default_authenticator",
    "default_topic_resolver",
    "development_authenticator",
    "is_yes",
    "resolve",
]

Authenticator = Callable[[Request], "Identity | tuple[UserID, UserID | None]"]
TopicResolver = Callable[[Request], "Sequence[str] | Subscription"]

_log = logging.getLogger("sse_broker.auth")
_said_default = False


def authenticate(
    authenticator: Authenticator, request: Request, said: Said, now: float
) -> Identity:
    """Return whom *request* comes from; *now* is in seconds since the Unix epoch.

    :raises AuthenticationFailed: the authenticator raised, returned nothing
        usable, or an identity that has expired.
    :raises NotNow: it cannot answer now.
    :raises InvalidUserID: the user or tenant id is none.
    """
    try:
        found = authenticator(request)
    except (BrokerError, HTTPException):
        raise
    except Exception as err:
        if failed(said, "authenticator", authenticator, err):
            raise NotNow from err
        raise AuthenticationFailed from err
    if isinstance(found, tuple) and len(found) == 2:
        found = Identity(*found)
    if not isinstance(found, Identity):
        said.error(
            f"returned {named(authenticator)}",
            "the authenticator %s returned %s; it must return an Identity or"
            " (user_id, tenant_id), and raise AuthenticationFailed to refuse",
            named(authenticator),
            _shown(found),
        )
        raise AuthenticationFailed
    if found.expires_at is not None and found.expires_at <= now:
        raise AuthenticationFailed("the credentials have expired")
    return found


def resolve(resolver: TopicResolver, request: Request, said: Said) -> Subscription:
    """Return the topics that *request* asks for, and since when if the resolver says it.

    :raises NotNow: the resolver failed; the log says how.
    """
    try:
        found = resolver(request)
        if isinstance(found, str):
            raise TypeError(f"it returned the string {found!r}, not a list of strings")
        if isinstance(found, Subscription):
            return Subscription(list(found.topics), found.since)
        return Subscription(list(found))
    except (BrokerError, HTTPException):
        raise
    except Exception as err:
        failed(said, "topic resolver", resolver, err)
        raise NotNow from err


def default_authenticator(request: Request) -> Identity:
    """Believe ``?user_id=...&tenant_id=...``, UUIDs or integers.  For development only.

    :raises InvalidUserID: *user_id* is missing or nil, or one is neither a UUID nor an integer.
    """
    global _said_default
    if not _said_default:
        _said_default = True
        _log.warning("default_authenticator believes the query string; it is for development only")
    tenant = request.args.get("tenant_id", "")
    user = _id(request.args.get("user_id", ""), "user_id")
    return Identity(user, _id(tenant, "tenant_id") if tenant else None)


def development_authenticator(said: Said, *, served_only: bool) -> Authenticator:
    """Return what authenticates where an app has configured nothing.

    It is :func:`default_authenticator` in debug mode, in tests (``TESTING``) and
    with ``SSE_DEV_AUTH=1``, in the app's configuration or the environment; else
    it refuses.  With *served_only* requests that no server took are let in too.
    """

    def authenticator(request: Request) -> Identity:
        config = current_app.config
        told = is_yes(config.get("SSE_DEV_AUTH")) or is_yes(os.environ.get("SSE_DEV_AUTH"))
        inside = served_only and not request.environ.get("SERVER_SOFTWARE")
        if told or inside or current_app.debug or current_app.testing:
            return default_authenticator(request)
        said.error(
            "no authenticator",
            "nobody said how to tell who asks, so streams are refused: pass authenticator=..."
            " (session_authenticator(), jwt_authenticator(...) or a function), set SSE_JWT_KEY,"
            " or SSE_DEV_AUTH=1 to believe ?user_id= while developing",
        )
        raise AuthenticationFailed("this server does not know yet how to tell who asks")

    return authenticator


def default_topic_resolver(request: Request) -> list[str]:
    """Return the topics of ``?topics=a,b``; none if there is no such parameter."""
    names = (name.strip() for name in request.args.get("topics", "").split(","))
    return [name for name in names if name]


def is_yes(value: object) -> bool:
    """Whether a configured value means yes."""
    return str(value).strip().lower() in ("1", "true", "yes", "on")


def _shown(value: object) -> str:
    """Return what a function returned, for the log: its type, and its value where that is short."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def _id(text: str, field: str) -> UserID:
    if text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    try:
        return uuid.UUID(text)
    except ValueError:
        what = "it is missing" if not text else "it is neither a UUID nor an integer"
        raise InvalidUserID(what, field=field) from None
