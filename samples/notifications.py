"""Notifications: a service stores one in its database, then pushes it.

Run:  flask --app samples.notifications run --with-threads
See:  curl -N 'http://localhost:5000/sse/stream?user_id=11111111-1111-4111-8111-111111111111'
      curl -X POST http://localhost:5000/notifications -H 'Content-Type: application/json' \
           -d '{"user_id": "11111111-1111-4111-8111-111111111111", "title": "Hello"}'
The stream shows ``event: notification``; the database keeps it whatever happens.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, jsonify

from samples.common import field, single, wrong
from sse_broker import SSE

SCHEMA = """CREATE TABLE IF NOT EXISTS notification (
    id INTEGER PRIMARY KEY, user_id TEXT, title TEXT)"""


class NotificationService:
    """Stores first and pushes after the commit, so that nobody hears of what was rolled back."""

    def __init__(self, path: Path, sse: SSE) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._sse = path, sse

    def send(self, user_id: str, title: str) -> dict[str, Any]:
        with sqlite3.connect(self._path) as db:  # commits at its end
            db.execute(SCHEMA)
            row = db.execute("INSERT INTO notification VALUES (NULL, ?, ?)", (user_id, title))
            note = {"id": row.lastrowid, "title": title}
        db.close()
        self._sse.send_to_user(user_id, "notification", note)
        return note

    def of_user(self, user_id: str) -> list[dict[str, Any]]:
        with sqlite3.connect(self._path) as db:
            db.execute(SCHEMA)
            rows = db.execute(
                "SELECT id, title FROM notification WHERE user_id = ? ORDER BY id DESC LIMIT 20",
                (user_id,),
            ).fetchall()
        db.close()
        return [{"id": number, "title": title} for number, title in rows]


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("notifications", __name__)
    folder = Path(os.environ.get("DEMO_DATA", ".demo"))
    service = NotificationService(folder / "notifications.db", sse)

    @blueprint.post("/notifications")
    def send() -> Response:
        try:
            user_id = str(uuid.UUID(field("user_id")))
        except ValueError:
            return wrong("user_id", "user_id must be a UUID")
        return jsonify(service.send(user_id, field("title", most=200)))

    @blueprint.get("/notifications/<uuid:user_id>")
    def inbox(user_id: uuid.UUID) -> Response:
        return jsonify(service.of_user(str(user_id)))

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
