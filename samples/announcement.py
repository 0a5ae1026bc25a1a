"""System announcement: everybody who is connected hears it.

Run:  flask --app samples.announcement run --with-threads
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>'
      curl -X POST http://localhost:5000/announcements -H 'Content-Type: application/json' \
           -d '{"message": "Maintenance at noon"}'
or, from a terminal instead of a request: flask --app samples.announcement announce "..."
(with the ``memory://`` log a command reaches the clients of its own process only).
"""

from __future__ import annotations

import click
from flask import Blueprint, Flask, Response, jsonify

from samples.common import field, single
from sse_broker import SSE


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("announcement", __name__, cli_group=None)

    @blueprint.post("/announcements")
    def announce() -> Response:
        return jsonify(id=sse.broadcast("announcement", {"message": field("message")}))

    @blueprint.cli.command("announce")
    @click.argument("message")
    def from_the_terminal(message: str) -> None:
        click.echo(sse.broadcast("announcement", {"message": message}))

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
