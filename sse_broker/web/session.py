"""Who is logged in with Flask's session or with Flask-Login, as an identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from flask import Request, current_app, session

from sse_broker.core.identity import Identity
from sse_broker.errors import AuthenticationFailed

__all__ = ["session_authenticator"]


def session_authenticator(
    user_key: str = "user_id",
    *,
    tenant_key: str = "tenant_id",
    topics: Callable[[Any], Sequence[str] | None] | None = None,
) -> Callable[[Request], Identity]:
    """Return an authenticator for who is logged in in this app.

    With Flask-Login that is ``current_user``: its ``get_id()``, and its attribute
    *tenant_key* if it has one.  Otherwise it is ``session[user_key]`` and
    ``session[tenant_key]``.  *topics* is a function of that user, or of the
    session, that returns the names and patterns it may read; without it the
    authorizer decides, or any topic of the tenant may be read.

    Who logs out keeps a stream that is open: call ``broker.disconnect_user`` there.
    """

    def authenticator(request: Request) -> Identity:
        del request  # both know the current one
        if hasattr(current_app, "login_manager"):
            user = import_module("flask_login").current_user
            if not user.is_authenticated:
                raise AuthenticationFailed("nobody is logged in")
            user_id, tenant_id = user.get_id(), getattr(user, tenant_key, None)
            whose: Any = user
        else:
            whose = session
            user_id, tenant_id = session.get(user_key), session.get(tenant_key)
            if user_id is None:
                raise AuthenticationFailed("nobody is logged in")
        return Identity(user_id, tenant_id, topics=topics(whose) if topics else None)

    return authenticator
