"""The HTTP surface: one blueprint over one broker."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from flask import Blueprint, Flask, Response, current_app, has_app_context, jsonify, request
from werkzeug.exceptions import HTTPException

from sse_broker.broker import Broker
from sse_broker.core.forks import process_id
from sse_broker.errors import BrokerError
from sse_broker.limits import Rates
from sse_broker.metrics import carry_over, carry_over_idle
from sse_broker.servers import checks
from sse_broker.servers.serverlog import speak
from sse_broker.transport import watch
from sse_broker.web import auth
from sse_broker.web.connect import come_back, stream_response
from sse_broker.web.cors import AllowList
from sse_broker.web.dashboard import add_dashboard
from sse_broker.web.dashboard.routes import DashboardAuthorizer
from sse_broker.web.door import Door
from sse_broker.web.health import add_health
from sse_broker.web.openapi import add_openapi
from sse_broker.web.publish import add_publisher_routes
from sse_broker.web.publisher import PublishAuthenticator, check_publish_authenticator
from sse_broker.web.refusal import note, refuse
from sse_broker.web.refused import refused_here
from sse_broker.web.said import Said
from sse_broker.web.script import client_script
from sse_broker.web.stream import take_out_forgotten
from sse_broker.web.subscriptions import add_subscriptions
from sse_broker.web.tickets import Tickets, add_tickets

__all__ = ["create_blueprint"]


def create_blueprint(
    broker: Broker,
    authenticator: auth.Authenticator | None = None,
    topic_resolver: auth.TopicResolver = auth.default_topic_resolver,
    *,
    publish_authenticator: PublishAuthenticator | str | None = None,
    dashboard_authorizer: DashboardAuthorizer | str | None = None,
    cors_origins: Iterable[str] = (),
    cors_headers: Iterable[str] = (),
    tickets: bool = False,
    name: str = "sse",
) -> Blueprint:
    """Return a blueprint that serves *broker*; register it with a ``url_prefix``.

    ``GET stream`` is for whom *authenticator* recognises, with the topics that
    *topic_resolver* finds and the broker's authorizer allows.  Without an
    *authenticator* ``?user_id=`` is believed, in debug mode, in tests, and where
    ``SSE_DEV_AUTH=1`` says so; else streams are refused.  ``POST publish``,
    ``GET stats`` and ``GET online`` exist only with a *publish_authenticator*: a
    bearer token, or a function of the request that returns whether it may, or a
    :class:`~sse_broker.web.publisher.Publisher` that says what it may.
    ``GET dashboard`` is the operators' page, for whom *dashboard_authorizer*, a
    function of the request or a token, lets in; without one it is there in debug mode only.
    ``GET client.js`` is the script for pages, the same for everybody.
    ``GET healthz``, ``readyz`` and ``metrics`` tell nothing of users or topics.
    *cors_origins* are the exact origins of other sites whose pages may use all
    this, *cors_headers* the request headers that these may set.  With *tickets*,
    ``POST ticket`` gives whom *authenticator* recognises a ticket for one stream
    (:mod:`sse_broker.web.tickets`).

    :raises InvalidConfig: *publish_authenticator* is empty, or an origin is none,
        or there is a rate and the extra ``limits`` is not installed.
    """
    check_publish_authenticator(publish_authenticator)
    streams = broker.streams
    said = Said("sse_broker.web", streams.clock.monotonic)
    allowed = AllowList(cors_origins, cors_headers, said)
    rates = Rates(streams)
    if authenticator is None:
        authenticator = auth.development_authenticator(said, served_only=True)
    door = Door(streams, rates, authenticator, topic_resolver, said)
    blueprint = Blueprint(name, __name__)
    if tickets:
        desk = Tickets(streams)
        add_tickets(blueprint, door, desk)
        door = dataclasses.replace(door, authenticator=desk.or_else(authenticator))
    _look_around(blueprint, broker)

    _guard(blueprint, door, allowed)

    @blueprint.get("/stream")
    def stream() -> Response:
        return stream_response(door, request)

    @blueprint.get("/client.js")
    def client_js() -> Response:
        return client_script(request)

    streams.each_tick(lambda: carry_over(streams), "metrics")
    streams.each_tick(lambda: refused_here().say_due(), "refusals")
    streams.each_tick(take_out_forgotten)
    streams.look_after("watcher", watch.is_well, watch.mend)
    blueprint.teardown_app_request(lambda _: carry_over_idle(streams))
    add_health(blueprint, broker)
    add_subscriptions(blueprint, door)
    add_dashboard(blueprint, broker, dashboard_authorizer)
    add_openapi(blueprint)
    blueprint.record(lambda state: _call_within(broker, cast(Flask, state.app)))
    if publish_authenticator is not None:
        add_publisher_routes(blueprint, broker, rates, publish_authenticator, said)
    return blueprint


def _guard(blueprint: Blueprint, door: Door, allowed: AllowList) -> None:
    """Judge each request before its view, and finish each answer, whoever made it."""

    @blueprint.before_request
    def check_origin() -> None:
        if request.endpoint != f"{request.blueprint}.client_js":  # any page may have the script
            allowed.check(request, stream=_is_stream())

    @blueprint.after_request
    def finish(response: Response) -> Response:
        if _is_stream():
            response = come_back(door, request, response)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("X-Frame-Options", "DENY")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return allowed.apply(request, response)

    @blueprint.errorhandler(BrokerError)
    def answer(error: BrokerError) -> Response:
        return refuse(error)

    @blueprint.errorhandler(HTTPException)
    def answer_http(error: HTTPException) -> Any:
        if error.code and error.code >= 400:
            note(f"{error.code} {error.name}", error.code, str(error.description))
        return error if error.response else (jsonify(error=error.description), error.code)


def _look_around(blueprint: Blueprint, broker: Broker) -> None:
    """Say in the server's log what is wrong with it: at once, and at a process's first request."""
    looked: set[int] = set()
    broker.streams.is_hosted = True
    speak()
    blueprint.record_once(lambda _: checks.say(broker.log.shared))

    @blueprint.before_app_request
    def look_once_more() -> None:
        if process_id() not in looked:
            looked.add(process_id())
            broker.streams.is_served = True
            checks.say(broker.log.shared, request.environ)


def _call_within(broker: Broker, app: Flask) -> None:
    """Have authorizers and receivers of signals called in an app context, popped after each call.

    A request of the same app has one already, with what the app keeps in ``g``.
    """
    known = weakref.ref(app)

    def context() -> AbstractContextManager[object]:
        there = known()
        if there is None or (has_app_context() and current_app == there):
            return nullcontext()
        return there.app_context()

    broker.streams.app_context = context


def _is_stream() -> bool:
    return request.endpoint == f"{request.blueprint}.stream"
