"""What the samples share: how one of them becomes an application, and answers to bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, abort, jsonify, make_response, request

from sse_broker import SSE, BrokerError
from sse_broker.web.refusal import refuse


def single(make_blueprint: Callable[[SSE], Blueprint]) -> Flask:
    """Return an application with nothing but one sample, the stream at ``/sse/stream``."""
    app = Flask("samples", static_folder=None)
    sse = SSE(app)
    app.register_blueprint(make_blueprint(sse))
    app.register_error_handler(BrokerError, refuse)
    return app


def field(name: str, kind: type = str, most: int = 500) -> Any:
    """Return a field of the JSON body, or answer 400 and say which one is wrong."""
    body = request.get_json(silent=True)
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, kind) or value == "" or (isinstance(value, str) and len(value) > most):
        abort(wrong(name, f"{name} must be a {kind.__name__}, not empty, at most {most} long"))
    return value


def wrong(name: str, error: str) -> Response:
    """Return a 400 that names the field."""
    return make_response(jsonify(error=error, field=name), 400)
