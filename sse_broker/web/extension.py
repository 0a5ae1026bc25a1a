"""The Flask extension: a broker and its blueprint, from the app's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, current_app, has_app_context
from werkzeug.local import LocalProxy

from sse_broker.broker import Broker
from sse_broker.commit import AfterCommit, AnySession
from sse_broker.config import BrokerConfig
from sse_broker.core.ports import Authorizer
from sse_broker.core.sending import Sender
from sse_broker.errors import BrokerError, InvalidConfig
from sse_broker.servers.serverlog import speak
from sse_broker.web import auth
from sse_broker.web.blueprint import create_blueprint
from sse_broker.web.dashboard.routes import DashboardAuthorizer
from sse_broker.web.default_log import default_log, say_strangers
from sse_broker.web.page import add_page_helpers
from sse_broker.web.publisher import PublishAuthenticator
from sse_broker.web.said import Said
from sse_broker.web.tokens import jwt_authenticator
from sse_broker.wire.message import Message

__all__ = ["SSE", "current_broker"]

DEBUG_TRACE = 1_000  # messages that are remembered, to be explained


class SSE(Sender[str]):
    """Server push for one Flask app, or for each of several from a factory.

    Configuration keys: ``SSE_URL_PREFIX`` (``/sse``), ``SSE_LOG_URL``
    (:func:`~sse_broker.web.default_log.default_log`: SQLite in the app's instance
    folder), ``SSE_PUBLISH_TOKEN``, ``SSE_DASHBOARD_TOKEN``, ``SSE_JWT_KEY``,
    ``SSE_JWT_JWKS_URL``, ``SSE_JWT_ALGORITHMS``, ``SSE_JWT_AUDIENCE``,
    ``SSE_JWT_ISSUER``, ``SSE_JWT_COOKIE``, ``SSE_JWT_QUERY``, ``SSE_DEV_AUTH``,
    ``SSE_CORS_ORIGINS``, ``SSE_CORS_HEADERS``, ``SSE_TICKETS``, and
    ``SSE_<SETTING>`` for every setting of :class:`BrokerConfig`.  Lists may be strings
    with commas.  What is passed
    here goes before what is configured.

    Templates have ``sse_script()``, the tag of ``client.js`` that tells it where the
    stream is and where it begins, and ``sse_last_event_id()``, where the request of the
    page began; where the log cannot be read that is an id that nobody knows, with which
    a stream begins with ``reset``.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        broker: Broker | None = None,
        authenticator: auth.Authenticator | None = None,
        topic_resolver: auth.TopicResolver = auth.default_topic_resolver,
        authorizer: Authorizer | None = None,
        publish_authenticator: PublishAuthenticator | str | None = None,
        dashboard_authorizer: DashboardAuthorizer | str | None = None,
    ) -> None:
        self._given = broker
        self._authenticator = authenticator
        self._topic_resolver = topic_resolver
        self._authorizer = authorizer
        self._publish_authenticator = publish_authenticator
        self._dashboard_authorizer = dashboard_authorizer
        self._last: Broker | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the app's broker and register its blueprint.

        :raises InvalidConfig: a setting is wrong, or the app has the extension already.
        """
        if "sse" in app.extensions:
            raise InvalidConfig("this app has the extension already")
        config = app.config
        speak()
        say_strangers(config)
        if app.debug:
            config.setdefault("SSE_TRACE_SIZE", DEBUG_TRACE)
        broker = self._given or Broker(
            BrokerConfig.from_mapping(config),
            log=config.get("SSE_LOG_URL") or default_log(app),
            authorizer=self._authorizer,
        )
        blueprint = create_blueprint(
            broker,
            self._authenticator or configured_authenticator(config) or self._development(broker),
            self._topic_resolver,
            publish_authenticator=self._publish_authenticator
            or config.get("SSE_PUBLISH_TOKEN")
            or None,
            dashboard_authorizer=self._dashboard_authorizer
            or config.get("SSE_DASHBOARD_TOKEN")
            or None,
            cors_origins=config.get("SSE_CORS_ORIGINS") or (),
            cors_headers=config.get("SSE_CORS_HEADERS") or (),
            tickets=auth.is_yes(config.get("SSE_TICKETS")),
        )
        app.register_blueprint(blueprint, url_prefix=config.get("SSE_URL_PREFIX", "/sse"))
        add_page_helpers(app, broker, blueprint.name)
        app.extensions["sse"] = self._last = broker

    @staticmethod
    def _development(broker: Broker) -> auth.Authenticator:
        said = Said("sse_broker.web", broker.streams.clock.monotonic)
        return auth.development_authenticator(said, served_only=False)

    @property
    def broker(self) -> Broker:
        """The broker of the current app; outside any, of the app that was initialised last.

        :raises BrokerError: :meth:`init_app` was not called.
        """
        if has_app_context() and "sse" in current_app.extensions:
            found: Broker = current_app.extensions["sse"]
            return found
        if self._last is None:
            raise BrokerError("call init_app(app) first")
        return self._last

    def publish(self, message: Message) -> str:
        """See :meth:`Broker.publish <sse_broker.Broker.publish>`."""
        return self.broker.publish(message)

    def last_event_id(self) -> str:
        """See :meth:`Broker.last_event_id <sse_broker.Broker.last_event_id>`."""
        return self.broker.last_event_id()

    def clear_retained(self, **whose: Any) -> int:
        """See :meth:`Broker.clear_retained <sse_broker.broker.Broker.clear_retained>`."""
        return self.broker.clear_retained(**whose)

    def after_commit(self, session: AnySession) -> AfterCommit:
        """See :meth:`Broker.after_commit <sse_broker.Broker.after_commit>`."""
        return self.broker.after_commit(session)


def configured_authenticator(config: Mapping[str, Any]) -> auth.Authenticator | None:
    """Return the JWT authenticator that *config* describes, or ``None`` if it describes none."""
    key, jwks_url = config.get("SSE_JWT_KEY"), config.get("SSE_JWT_JWKS_URL") or ""
    if not key and not jwks_url:
        return None
    algorithms = config.get("SSE_JWT_ALGORITHMS") or None
    if isinstance(algorithms, str):
        algorithms = [name.strip() for name in algorithms.split(",") if name.strip()]
    return jwt_authenticator(
        key,
        jwks_url=jwks_url,
        algorithms=algorithms,
        audience=config.get("SSE_JWT_AUDIENCE"),
        issuer=config.get("SSE_JWT_ISSUER"),
        cookie=config.get("SSE_JWT_COOKIE") or "",
        query=config.get("SSE_JWT_QUERY") or "",
    )


def _current() -> Broker:
    found = current_app.extensions.get("sse")
    if not isinstance(found, Broker):
        raise BrokerError("the current app has no SSE extension; call SSE(app)")
    return found


current_broker: Broker = LocalProxy(_current)  # type: ignore[assignment]  # a proxy is not its target
