"""``GET openapi.json``: the description of what a blueprint serves (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request

from sse_broker.version import __version__
from sse_broker.wire.message import MAX_EVENT_CHARS, MAX_RETRY, MIN_RETRY, RESERVED

__all__ = ["add_openapi", "description"]

_TEXT = {"type": "string"}
_WORDS = {"type": "array", "items": _TEXT}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": _TEXT, "field": _TEXT},
}
_ID = {"type": ["string", "integer"], "description": "a UUID, another string or an integer"}
_MESSAGE = {
    "type": "object",
    "required": ["target", "data"],
    "additionalProperties": False,
    "properties": {
        "target": {"enum": ["user", "topic", "broadcast"]},
        "user_id": _ID,
        "topic": _TEXT,
        "topics": _WORDS,
        "tenant_id": _ID,
        "all_tenants": {"type": "boolean"},
        "event": {
            "type": "string",
            "maxLength": MAX_EVENT_CHARS,
            "not": {"enum": sorted(RESERVED)},
        },
        "data": {"description": "a string, sent as it is, or any JSON"},
        "id": _TEXT,
        "retry": {"type": "integer", "minimum": MIN_RETRY, "maximum": MAX_RETRY},
        "retain": {"type": "boolean"},
        "retain_for": {"type": "number", "exclusiveMinimum": 0},
    },
}
_BATCH = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1_000,
            "items": {"$ref": "#/components/schemas/Message"},
        },
        "outcome": {"enum": ["all", "each"]},
    },
}
_REFUSALS = {
    "400": "a field is wrong, and named",
    "401": "nobody is known by these credentials",
    "403": "known, but this is not allowed",
    "404": "there is no such thing, or it is somebody else's",
    "413": "too large, or without a length",
    "429": "too often; come again after Retry-After",
    "503": "not now; come again after Retry-After",
}
_PARAMETERS = [
    {"name": "topics", "in": "query", "schema": _TEXT, "description": "names and patterns, a,b"},
    {"name": "last_event_id", "in": "query", "schema": _TEXT},
    {"name": "since", "in": "query", "schema": _TEXT, "description": "30s, 100 or earliest"},
    {"name": "on_refuse", "in": "query", "schema": {"enum": ["status"]}},
    {"name": "ticket", "in": "query", "schema": _TEXT},
    {"name": "Last-Event-ID", "in": "header", "schema": _TEXT},
]


def description(paths: set[str], server: str) -> dict[str, Any]:
    """Return the description of those of our routes that are in *paths*, below *server*."""
    known = _paths()
    return {
        "openapi": "3.1.0",
        "info": {"title": "sse_broker", "version": __version__},
        "servers": [{"url": server}],
        "paths": {path: known[path] for path in known if path in paths},
        "components": {
            "schemas": {"Message": _MESSAGE, "Batch": _BATCH, "Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> dict[str, Any]:
    changed = _object(client_id=_TEXT, topics=_WORDS)
    change = _object(client_id=_TEXT, add=_WORDS, remove=_WORDS)
    change["required"] = ["client_id"]
    change["additionalProperties"] = False
    sent: dict[str, Any] = {
        "type": "object",
        "properties": {"id": _TEXT, "ids": _WORDS, "results": {"type": "array"}},
    }
    message = {"oneOf": [{"$ref": f"#/components/schemas/{one}"} for one in ("Message", "Batch")]}
    publish = _operation("send a message or many", sent, body=message)
    publish["parameters"] = [{"name": "Idempotency-Key", "in": "header", "schema": _TEXT}]
    stream = _operation("open a stream", None, content="text/event-stream")
    stream["parameters"] = _PARAMETERS
    return {
        "/stream": {"get": stream},
        "/publish": {"post": publish},
        "/subscriptions": {
            "post": _operation("change the topics of a live stream", changed, body=change)
        },
        "/ticket": {
            "post": _operation(
                "get a ticket for one stream", _object(ticket=_TEXT, expires_in={"type": "integer"})
            )
        },
        "/stats": {"get": _operation("numbers", {"type": "object"})},
        "/online": {"get": _operation("users with an open stream", _object(users=_WORDS))},
        "/healthz": {"get": _operation("whether the process lives", {"type": "object"})},
        "/readyz": {"get": _operation("whether it takes streams", {"type": "object"})},
        "/metrics": {"get": _operation("metrics", None, content="text/plain")},
        "/client.js": {"get": _operation("the script for pages", None, content="text/javascript")},
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _operation(
    summary: str, schema: dict[str, Any] | None, *, body: Any = None, content: str = ""
) -> dict[str, Any]:
    kind = content or "application/json"
    answers: dict[str, Any] = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in _REFUSALS.items()
    }
    answers["200"] = {"description": summary, "content": {kind: {"schema": schema or _TEXT}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": answers,
        "security": [{"bearer": []}, {}],
    }
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body}},
        }
    return operation


def add_openapi(blueprint: Blueprint) -> None:
    """Add the route to *blueprint*: it describes the routes that this app has of it."""

    @blueprint.get("/openapi.json")
    def openapi() -> Response:
        here = f"{request.blueprint}."
        prefix = request.path.removesuffix("/openapi.json")
        paths = {
            rule.rule.removeprefix(prefix)
            for rule in current_app.url_map.iter_rules()
            if rule.endpoint.startswith(here)
        }
        return jsonify(description(paths, request.root_path + prefix or "/"))
