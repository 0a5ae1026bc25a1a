"""The reference hub: a Flask app that is nothing but a broker, configured by the environment.

``gunicorn --worker-class gthread --threads 64 'sse_broker.app:create_app()'``
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, request
from werkzeug.exceptions import Forbidden
from werkzeug.middleware.proxy_fix import ProxyFix

from sse_broker.errors import BrokerError, InvalidConfig
from sse_broker.web.auth import default_authenticator, is_yes
from sse_broker.web.extension import SSE, configured_authenticator
from sse_broker.web.health import add_health
from sse_broker.web.refusal import refuse

__all__ = ["create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Return the hub, its blueprint at ``/sse`` and its health at the root as well.

    *config* is read instead of the environment when given: the keys of
    :class:`~sse_broker.SSE`, and ``SSE_DEV_AUTH=1`` for the query
    authenticator; the hub then answers to local names only.  ``SSE_PROXIES`` is how
    many proxies in front of it add to ``X-Forwarded-For``, where clients are counted
    by their addresses.

    :raises InvalidConfig: a setting is wrong, or there is no way to tell who asks.
    """
    source = os.environ if config is None else config
    app = Flask("sse_broker.hub", static_folder=None)
    ours = ("SSE_", "EVENTSTREAM_")  # of the second kind none is read: it is said that they are not
    app.config.update({key: value for key, value in source.items() if key.startswith(ours)})
    authenticator = configured_authenticator(app.config)
    if authenticator is None:
        if not is_yes(source.get("SSE_DEV_AUTH")):
            raise InvalidConfig(
                "set SSE_JWT_KEY or SSE_JWT_JWKS_URL, or SSE_DEV_AUTH=1 to believe ?user_id="
                " while developing"
            )
        authenticator = default_authenticator
        app.before_request(_for_local_names_only)
    sse = SSE(app, authenticator=authenticator)
    app.register_error_handler(BrokerError, refuse)
    add_health(app, sse.broker)
    proxies = str(source.get("SSE_PROXIES", "0")).strip()
    if not proxies.isdecimal():
        raise InvalidConfig(f"SSE_PROXIES = {proxies!r}; it must be a number", field="SSE_PROXIES")
    if int(proxies):
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=int(proxies))  # type: ignore[method-assign]
    return app


def _for_local_names_only() -> None:
    """Refuse other names than this machine's own: a page elsewhere can point its name at us.

    Probes ask by whatever name, and are told nothing of anybody.

    :raises werkzeug.exceptions.Forbidden: ``Host`` is another name (DNS rebinding).
    """
    if (request.endpoint or "").rpartition(".")[2] in ("healthz", "readyz"):
        return
    name = urlsplit(f"//{request.host}").hostname or ""
    if name not in ("localhost", "127.0.0.1", "::1") and not name.endswith(".localhost"):
        raise Forbidden("with SSE_DEV_AUTH=1 this hub answers to localhost only")
