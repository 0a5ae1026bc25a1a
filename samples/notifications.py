"""Notifications: a service stores one in its database, then pushes it.

Run:  flask --app samples/notifications.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=11111111-1111-4111-8111-111111111111'
      curl http://localhost:5000/notifications -H 'Content-Type: application/json' \
           -d '{"user_id": "11111111-1111-4111-8111-111111111111", "title": "Hello"}'
The stream shows ``event: notification``; the database keeps it whatever happens.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from flask import Blueprint, Flask, Response, jsonify

from samples.common import database, field, rows, single, user_field
from sse_broker import SSE

SCHEMA = "CREATE TABLE IF NOT EXISTS notification (id INTEGER PRIMARY KEY, user_id, title)"
NEWEST = "SELECT id, title FROM notification WHERE user_id = ? ORDER BY id DESC LIMIT 20"

logger = logging.getLogger(__name__)


class NotificationService:
    """Stores first and pushes after the commit, so that nobody hears of what was rolled back."""

    def __init__(self, sse: SSE) -> None:
        self._sse = sse

    def send(self, user_id: str, title: str) -> dict[str, Any]:
        with database(SCHEMA) as db:
            row = db.execute("INSERT INTO notification VALUES (NULL, ?, ?)", (user_id, title))
        note = {"id": row.lastrowid, "title": title}
        self._sse.send_to_user(user_id, "notification", note)
        logger.info("notification %s stored and pushed", row.lastrowid)
        return note

    def of_user(self, user_id: str) -> list[dict[str, Any]]:
        with database(SCHEMA) as db:
            return rows(db.execute(NEWEST, (user_id,)))


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("notifications", __name__)
    service = NotificationService(sse)

    @blueprint.post("/notifications")
    def send() -> Response:
        return jsonify(service.send(user_field("user_id"), field("title", most=200)))

    @blueprint.get("/notifications/<uuid:user_id>")
    def inbox(user_id: uuid.UUID) -> Response:
        return jsonify(service.of_user(str(user_id)))

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
