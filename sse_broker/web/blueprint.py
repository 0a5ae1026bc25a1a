"""The HTTP surface: one blueprint over one broker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from sse_broker.broker import Broker
from sse_broker.core.forks import process_id
from sse_broker.core.streams import Streams
from sse_broker.errors import (
    AuthenticationFailed,
    AuthorizerFailed,
    BrokerError,
    BrokerStopped,
    InvalidConfig,
    InvalidMessage,
    LogUnavailable,
    MessageTooLarge,
    StreamingUnsupported,
    TooManyConnections,
    TooManyRequests,
)
from sse_broker.limits import Rates
from sse_broker.metrics import carry_over, exposition
from sse_broker.servers import Server, checks, server_of
from sse_broker.servers.capacity import room_for_streams
from sse_broker.servers.serverlog import speak
from sse_broker.transport import watch
from sse_broker.web import auth
from sse_broker.web.address import client_address
from sse_broker.web.asked import last_event_id
from sse_broker.web.cors import AllowList
from sse_broker.web.default_log import WHY_MEMORY
from sse_broker.web.refusal import HEADERS, busy, note, refuse
from sse_broker.web.refused import refused_here
from sse_broker.web.script import client_script
from sse_broker.web.stream import Stream, StreamResponse, take_out_forgotten
from sse_broker.wire.message import ALL_TENANTS, Message

__all__ = ["add_health", "create_blueprint"]

PUBLISH_FIELDS = frozenset(
    {"target", "user_id", "topic", "topics", "tenant_id", "all_tenants"}
    | {"event", "data", "id", "retry", "retain", "retain_for"}
)


def create_blueprint(
    broker: Broker,
    authenticator: auth.Authenticator = auth.default_authenticator,
    topic_resolver: auth.TopicResolver = auth.default_topic_resolver,
    *,
    publish_authenticator: auth.PublishAuthenticator | str | None = None,
    cors_origins: Iterable[str] = (),
    name: str = "sse",
) -> Blueprint:
    """Return a blueprint that serves *broker*; register it with a ``url_prefix``.

    ``GET stream`` is for whom *authenticator* recognises, with the topics that
    *topic_resolver* finds and the broker's authorizer allows.  ``POST publish``,
    ``GET stats`` and ``GET online`` exist only with a *publish_authenticator*: a
    bearer token, or a function of the request.  ``GET client.js`` is the script
    for pages, the same for everybody.  ``GET healthz``, ``readyz`` and
    ``metrics`` tell nothing of users or topics.  *cors_origins* are the exact
    origins of other sites whose pages may use all this.

    :raises InvalidConfig: *publish_authenticator* is empty, or an origin is none,
        or there is a rate and the extra ``limits`` is not installed.
    """
    if publish_authenticator == "":
        raise InvalidConfig("an empty publish token would let everybody publish")
    allowed = AllowList(cors_origins)
    streams = broker.streams
    rates = Rates(streams)
    blueprint = Blueprint(name, __name__)

    _look_around(blueprint, broker)

    @blueprint.before_request
    def check_origin() -> None:
        if request.method != "OPTIONS":
            allowed.check(request)

    @blueprint.after_request
    def add_cors(response: Response) -> Response:
        return allowed.apply(request, response)

    @blueprint.errorhandler(BrokerError)
    def answer(error: BrokerError) -> Response:
        return refuse(error)

    @blueprint.errorhandler(HTTPException)
    def answer_http(error: HTTPException) -> Any:
        if error.code and error.code >= 400:
            note(f"{error.code} {error.name}", error.code, str(error.description))
        return error if error.response else (jsonify(error=error.description), error.code)

    @blueprint.get("/stream")
    def stream() -> Response:
        return _stream(streams, rates, authenticator, topic_resolver)

    @blueprint.get("/client.js")
    def client_js() -> Response:
        return client_script(request)

    streams.each_tick(lambda: carry_over(streams))
    streams.each_tick(lambda: refused_here().say_due())
    streams.each_tick(take_out_forgotten)
    streams.look_after("watcher", watch.is_well, watch.mend)
    add_health(blueprint, broker)
    if publish_authenticator is not None:
        _add_publisher_routes(blueprint, broker, rates, publish_authenticator)
    return blueprint


def _stream(
    streams: Streams,
    rates: Rates,
    authenticator: auth.Authenticator,
    topic_resolver: auth.TopicResolver,
) -> Response:
    """Answer with a stream, or with the refusal that suits the client.

    What costs least is asked first: a flood is turned away before anybody is
    authenticated, and each thread of it is free again at once.
    """
    server = server_of(request.environ)
    if server.trouble:
        raise StreamingUnsupported(server.trouble)
    config = streams.config
    room = room_for_streams(server, config.reserve_threads)
    per_address = config.max_connections_per_address
    address = client_address(request, "max_connections_per_address") if per_address else ""
    try:
        if request.method != "HEAD":
            streams.check_room(room=room, address=address)
            rates.check("connect_rate", lambda: client_address(request, "connect_rate"))
        return _open(streams, rates, authenticator, topic_resolver, server, room, address)
    except (TooManyConnections, TooManyRequests, BrokerStopped, AuthorizerFailed) as err:
        return busy(err, request, streams.retry())


def _open(
    streams: Streams,
    rates: Rates,
    authenticator: auth.Authenticator,
    topic_resolver: auth.TopicResolver,
    server: Server,
    room: int,
    address: str,
) -> Response:
    identity = auth.authenticate(authenticator, request)
    if streams.config.require_tenant and identity.tenant_id is None:
        raise AuthenticationFailed("a tenant is required", field="tenant_id")
    topics = streams.check_topics(identity, topic_resolver(request))
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    try:
        streams.check_token(identity)
    except LogUnavailable as err:
        return busy(err, request, streams.retry())
    streams.check_room(identity, room=room, address=address)
    who = (str(identity.tenant_id), str(identity.user_id))
    rates.check("connect_rate_per_user", lambda: who)
    begin = last_event_id(request)
    body = Stream(
        streams,
        identity,
        topics,
        begin,
        server,
        several=bool(request.environ.get("wsgi.multiprocess")),
        room=room,
        address=address,
    )
    return StreamResponse(body, headers=HEADERS)


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


def add_health(host: Flask | Blueprint, broker: Broker) -> None:
    """Add ``healthz``, ``readyz`` and ``metrics`` to *host*, an app or a blueprint."""

    @host.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @host.get("/readyz")
    def readyz() -> Response:
        parts, why = broker.health(), {}
        for finding in checks.examine(broker.log.shared, request.environ):
            why[finding.name] = finding.text
            if finding.is_unready:
                parts[finding.name] = False
        if WHY_MEMORY in current_app.extensions:
            why["log"] = current_app.extensions[WHY_MEMORY]
        well = all(parts.values())
        told = {"why": why} if why else {}
        response = jsonify(status="ok" if well else "unavailable", checks=parts, **told)
        response.status_code = 200 if well else 503
        return response

    @host.get("/metrics")
    def metrics() -> Response:
        body, content_type = exposition(broker.streams)
        return Response(body, content_type=content_type)


def _add_publisher_routes(
    blueprint: Blueprint,
    broker: Broker,
    rates: Rates,
    authenticator: auth.PublishAuthenticator | str,
) -> None:
    def guarded(view: Callable[[], Response]) -> Callable[[], Response]:
        def checked() -> Response:
            if not auth.is_publisher(authenticator, request):
                raise AuthenticationFailed
            return view()

        checked.__name__ = view.__name__
        return checked

    @blueprint.post("/publish")
    @guarded
    def publish() -> Response:
        rates.check("publish_rate", lambda: client_address(request, "publish_rate"))
        return jsonify(id=broker.publish(_message(broker)))

    @blueprint.get("/stats")
    @guarded
    def stats() -> Response:
        return jsonify(dataclasses.asdict(broker.get_stats()))

    @blueprint.get("/online")
    @guarded
    def online() -> Response:
        return jsonify(users=broker.get_online_users())


def _message(broker: Broker) -> Message:
    """Return the message that the request's body describes.

    :raises InvalidMessage: the body is not one JSON object of known fields.
    """
    if not request.is_json:
        # Also what keeps a foreign page's form from publishing (CSRF).
        raise InvalidMessage("the body must be JSON, with Content-Type: application/json")
    # A byte of a message is at most six of its JSON (\\u0000); the rest is room for the fields.
    most = 6 * broker.config.max_message_bytes + 65_536
    if request.content_length is None or request.content_length > most:
        raise MessageTooLarge(f"the body must have a length of at most {most} bytes")
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise InvalidMessage("the body must be a JSON object")
    for field in body:
        if field not in PUBLISH_FIELDS:
            raise InvalidMessage("there is no such field", field=str(field)[:64])
    for field in ("target", "data"):
        if field not in body:
            raise InvalidMessage(f"{field} is required", field=field)
    fields = {name: value for name, value in body.items() if value is not None or name == "data"}
    if fields.pop("all_tenants", False) is True:
        if "tenant_id" in fields:
            raise InvalidMessage("tenant_id or all_tenants, not both", field="all_tenants")
        fields["tenant_id"] = ALL_TENANTS
    return Message(**fields)
