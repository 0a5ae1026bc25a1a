"""``GET stream``: a stream, or the refusal that suits the client."""

from __future__ import annotations

from flask import Request, Response

from sse_broker.errors import (
    AuthorizerFailed,
    BrokerError,
    BrokerStopped,
    LogUnavailable,
    NotNow,
    StreamingUnsupported,
    TooManyConnections,
    TooManyRequests,
)
from sse_broker.servers import server_of
from sse_broker.servers.capacity import room_for_streams
from sse_broker.web.address import client_address
from sse_broker.web.asked import last_event_id
from sse_broker.web.door import Door
from sse_broker.web.refusal import HEADERS, busy, is_event_source, is_refusal
from sse_broker.web.stream import Stream, StreamResponse

__all__ = ["come_back", "stream_response"]

FOR_NOW = (
    TooManyConnections,
    TooManyRequests,
    BrokerStopped,
    AuthorizerFailed,
    LogUnavailable,
    NotNow,
)


def stream_response(door: Door, request: Request) -> Response:
    """Answer *request* with a stream, or tell it to come back.

    :raises BrokerError: it is refused for good.
    """
    streams = door.streams
    server = server_of(request.environ)
    if server.trouble:
        raise StreamingUnsupported(server.trouble)
    config = streams.config
    room = room_for_streams(server, config.reserve_threads)
    needs_room = request.method != "HEAD"
    try:
        per_address = config.max_connections_per_address
        address = client_address(request, "max_connections_per_address") if per_address else ""
        if needs_room:
            streams.check_room(room=room, address=address)
        door.count(request)
        identity = door.identify(request)
        if identity.is_anonymous and config.max_anonymous_per_address:
            address = client_address(request, "max_anonymous_per_address")
        topics, since = door.subscription(request, identity)
        if needs_room:
            streams.check_room(identity, room=room, address=address)
        door.count_user(identity)
    except FOR_NOW as err:
        return busy(err, request, streams.retry())
    if request.method == "HEAD":
        return Response(headers=HEADERS)
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
        since=since,
    )
    return StreamResponse(body, headers=HEADERS)


def come_back(door: Door, request: Request, response: Response) -> Response:
    """Return *response*, or what makes an EventSource come back where it says "not now".

    For what other extensions answer in our place: a rate limit of the whole app,
    a database that is away before our view is called.
    """
    passing = response.status_code == 429 or response.status_code >= 500
    if not passing or is_refusal(response) or not is_event_source(request):
        return response
    after = response.headers.get("Retry-After", "")
    error = BrokerError("the server is busy", retry_after=int(after) if after.isdecimal() else None)
    response.close()
    return busy(error, request, door.streams.retry())
