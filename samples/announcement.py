"""System announcement: everybody who is connected hears it.

Run:  flask --app samples/announcement.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>'
      curl http://localhost:5000/announcements -H 'Content-Type: application/json' \
           -d '{"message": "Maintenance at noon"}'
The stream shows ``event: announcement``, every other open one too.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Flask, Response, jsonify

from samples.common import field, single
from sse_broker import SSE

logger = logging.getLogger(__name__)


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("announcement", __name__)

    @blueprint.post("/announcements")
    def announce() -> Response:
        number = sse.broadcast("announcement", {"message": field("message")})
        logger.info("announced to %s streams", sse.broker.get_stats().cluster_clients)
        return jsonify(id=number)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
