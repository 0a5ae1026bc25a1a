"""``POST subscriptions``: change the topics of one's own live stream."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from sse_broker.errors import InvalidMessage
from sse_broker.web.body import json_object
from sse_broker.web.door import Door

__all__ = ["add_subscriptions"]

MOST_BYTES = 64 * 1024
FIELDS = frozenset({"client_id", "add", "remove"})


def add_subscriptions(blueprint: Blueprint, door: Door) -> None:
    """Add the route to *blueprint*; who may use it is who may have the stream."""

    @blueprint.post("/subscriptions")
    def subscriptions() -> Response:
        door.count(request)
        identity = door.identify(request)
        body = json_object(request, MOST_BYTES)
        for field in body:
            if field not in FIELDS:
                raise InvalidMessage("there is no such field", field=field[:64])
        client_id = body.get("client_id")
        if not isinstance(client_id, str) or not 0 < len(client_id) <= 64:
            raise InvalidMessage("client_id is that of the welcome event", field="client_id")
        add, remove = _names(body, "add"), _names(body, "remove")
        topics = door.streams.change_topics(identity, client_id, add, remove)
        return jsonify(client_id=client_id, topics=topics)


def _names(body: dict[str, Any], field: str) -> list[str]:
    names = body.get(field, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidMessage(f"{field} is a list of names and patterns", field=field)
    return names
