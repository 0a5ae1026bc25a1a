"""``POST publish``, ``GET stats`` and ``GET online``: for other programs, behind a credential."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Request, Response, jsonify, request

from sse_broker.broker import Broker
from sse_broker.core.sending import check_message
from sse_broker.errors import BrokerError, InvalidMessage, LogUnavailable, PublishForbidden
from sse_broker.limits import Rates
from sse_broker.web.address import client_address
from sse_broker.web.body import json_object
from sse_broker.web.publisher import PublishAuthenticator, Publisher, publisher_of
from sse_broker.web.refusal import error_body, refuse, status_of
from sse_broker.web.said import Said
from sse_broker.wire.message import ALL_TENANTS, Message

__all__ = ["MOST_MESSAGES", "add_publisher_routes"]

MOST_MESSAGES = 1_000  # in one request
FIELDS = frozenset(
    {"target", "user_id", "topic", "topics", "tenant_id", "all_tenants"}
    | {"event", "data", "id", "retry", "retain", "retain_for"}
)
BATCH_FIELDS = frozenset({"messages", "outcome"})
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def add_publisher_routes(
    blueprint: Blueprint,
    broker: Broker,
    rates: Rates,
    authenticator: PublishAuthenticator | str,
    said: Said,
) -> None:
    """Add the routes to *blueprint*.  Whoever asks is counted before being recognised."""

    def recognised() -> Publisher:
        rates.check("publish_rate", _address)
        return publisher_of(authenticator, request, said)

    @blueprint.post("/publish")
    def publish() -> Response:
        publisher = recognised()
        # A byte of a message is at most six of its JSON (\\u0000); the rest is for the fields.
        body = json_object(request, 6 * broker.config.max_message_bytes + 65_536)
        key = _idempotency_key(request)
        if "messages" not in body:
            return jsonify(id=broker.publish(_message(publisher, body, key, 0)))
        items, each = _batch(body)
        rates.check("publish_rate", _address, cost=len(items) - 1)
        if each:
            return jsonify(results=_publish_each(broker, publisher, items, key))
        return _publish_all(broker, publisher, items, key)

    @blueprint.get("/stats")
    def stats() -> Response:
        if recognised().is_bound:
            raise PublishForbidden("these credentials are for publishing only")
        return jsonify(dataclasses.asdict(broker.get_stats()))

    @blueprint.get("/online")
    def online() -> Response:
        publisher = recognised()
        if publisher.topics is not None or publisher.events is not None:
            raise PublishForbidden("these credentials are for publishing only")
        tenant = publisher.tenant_id
        if tenant is ALL_TENANTS:
            tenant = request.args.get("tenant_id") or ALL_TENANTS
        return jsonify(users=broker.get_online_users(tenant_id=tenant))


def _address() -> str:
    return client_address(request, "publish_rate")


def _batch(body: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Return the messages of a batch, and whether each has an outcome of its own."""
    for field in body:
        if field not in BATCH_FIELDS:
            raise InvalidMessage("there is no such field beside messages", field=field[:64])
    items, outcome = body["messages"], body.get("outcome", "all")
    if not isinstance(items, list) or not 0 < len(items) <= MOST_MESSAGES:
        raise InvalidMessage(
            f"messages must be a list of 1 to {MOST_MESSAGES} messages", field="messages"
        )
    if outcome not in ("all", "each"):
        raise InvalidMessage("outcome must be 'all' or 'each'", field="outcome")
    return items, outcome == "each"


def _publish_all(broker: Broker, publisher: Publisher, items: list[Any], key: str) -> Response:
    """Send all, in order, or none where one cannot be sent as it is meant."""
    messages = []
    for index, item in enumerate(items):
        try:
            message = _message(publisher, item, key, index)
            check_message(broker.config, message)
        except BrokerError as err:
            err.field = f"messages[{index}].{err.field}".rstrip(".")
            raise
        messages.append(message)
    ids: list[str] = []
    try:
        for message in messages:
            ids.append(broker.publish(message))
    except BrokerError as err:  # the log is away: say which ones it has
        response = refuse(err)
        response.set_data(json.dumps({**error_body(err), "ids": ids}))
        return response
    return jsonify(ids=ids)


def _publish_each(
    broker: Broker, publisher: Publisher, items: list[Any], key: str
) -> list[dict[str, Any]]:
    """Send each that can be sent, in order; return an id or an error for each."""
    results: list[dict[str, Any]] = []
    away: BrokerError | None = None
    for index, item in enumerate(items):
        try:
            message = _message(publisher, item, key, index)
            if away is not None:  # in order: nothing overtakes what could not be recorded
                check_message(broker.config, message)
                raise away
            results.append({"id": broker.publish(message)})
        except BrokerError as err:
            if isinstance(err, LogUnavailable):
                away = err
            results.append({**error_body(err), "status": status_of(err)})
    return results


def _message(publisher: Publisher, body: Any, key: str, index: int) -> Message:
    """Return the message that *body* describes.

    :raises InvalidMessage: it describes none; ``.field`` says where.
    :raises PublishForbidden: *publisher* may not say that.
    """
    if not isinstance(body, dict):
        raise InvalidMessage("a message is a JSON object")
    for field in body:
        if field not in FIELDS:
            raise InvalidMessage("there is no such field", field=field[:64])
    for field in ("target", "data"):
        if field not in body:
            raise InvalidMessage(f"{field} is required", field=field)
    fields = {name: value for name, value in body.items() if value is not None or name in _NOT_NULL}
    if "tenant_id" in fields and fields["tenant_id"] is None:
        raise InvalidMessage(
            "null is no tenant; leave it out, or say all_tenants", field="tenant_id"
        )
    everywhere = fields.pop("all_tenants", False)
    if not isinstance(everywhere, bool):
        raise InvalidMessage("all_tenants is true or false", field="all_tenants")
    if everywhere:
        if "tenant_id" in fields:
            raise InvalidMessage("tenant_id or all_tenants, not both", field="all_tenants")
        fields["tenant_id"] = ALL_TENANTS
    if not isinstance(fields["target"], str):
        raise InvalidMessage("target must be one of user, topic, broadcast", field="target")
    publisher.bind(fields)
    if key and not fields.get("id"):
        fields["id"] = _own_id(publisher, key, index)
    message = Message(**fields)
    publisher.check(message)
    return message


_NOT_NULL = ("data", "target", "tenant_id", "all_tenants")


def _idempotency_key(request: Request) -> str:
    """Return what makes a repeated request the same one; empty if it does not say."""
    key = request.headers.get("Idempotency-Key", "")
    if key and not _KEY.fullmatch(key):
        raise InvalidMessage(
            "Idempotency-Key must be 1 to 255 visible ASCII characters", field="Idempotency-Key"
        )
    return key


def _own_id(publisher: Publisher, key: str, index: int) -> str:
    """Return the own id of a message that was sent under a key.

    The log delivers an own id once as long as it holds the message; so a request
    that is repeated in that time sends nothing twice, in whatever process it arrives.
    """
    tenant = "*" if publisher.tenant_id is ALL_TENANTS else publisher.tenant_id
    text = json.dumps([publisher.name, tenant, key, index]).encode()
    return "key-" + hashlib.blake2b(text, digest_size=16).hexdigest()
