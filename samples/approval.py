"""Approval flow: the approver is told personally, whoever follows the process by its topic.

Run:  flask --app samples/approval.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>&topics=approval:process:*'
      curl http://localhost:5000/approvals -H 'Content-Type: application/json' \
           -d '{"title": "Leave", "approver_id": "<uuid>"}'
      curl http://localhost:5000/approvals/1 -H 'Content-Type: application/json' \
           -d '{"status": "approved"}'
Each shows ``event: approval:status_changed``, twice to an approver who follows as well.
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, make_response

from samples.common import database, field, rows, single, user_field, wrong
from sse_broker import SSE

EVENT = "approval:status_changed"
SCHEMA = "CREATE TABLE IF NOT EXISTS approval (id INTEGER PRIMARY KEY, title, approver_id, status)"
ASK = "INSERT INTO approval VALUES (NULL, ?, ?, 'pending')"
DECIDE = "UPDATE approval SET status = ? WHERE id = ? AND status = 'pending'"

logger = logging.getLogger(__name__)


class ApprovalService:
    """Changes an approval in the database, then tells those it concerns."""

    def __init__(self, sse: SSE) -> None:
        self._sse = sse

    def ask(self, title: str, approver_id: str) -> dict[str, Any]:
        with database(SCHEMA) as db:
            number = db.execute(ASK, (title, approver_id)).lastrowid
        return self._tell({"id": number, "title": title, "approver_id": approver_id}, "pending")

    def decide(self, number: int, status: str) -> dict[str, Any] | None:
        with database(SCHEMA) as db:
            if not db.execute(DECIDE, (status, number)).rowcount:
                return None
            task = rows(db.execute("SELECT * FROM approval WHERE id = ?", (number,)))[0]
        return self._tell(task, status)

    def newest(self) -> list[dict[str, Any]]:
        with database(SCHEMA) as db:
            return rows(db.execute("SELECT * FROM approval ORDER BY id DESC LIMIT 20"))

    def _tell(self, task: dict[str, Any], status: str) -> dict[str, Any]:
        task = {**task, "status": status}
        self._sse.send_to_user(task["approver_id"], EVENT, {**task, "as": "approver"})
        topic = f"approval:process:{task['id']}"
        self._sse.send_to_topic(topic, EVENT, {**task, "as": "follower"})
        logger.info("approval %s is %s", task["id"], status)
        return task


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("approval", __name__)
    service = ApprovalService(sse)

    @blueprint.post("/approvals")
    def ask() -> Response:
        return jsonify(service.ask(field("title", most=200), user_field("approver_id")))

    @blueprint.post("/approvals/<int:number>")
    def decide(number: int) -> Response:
        status = field("status")
        if status not in ("approved", "rejected"):
            return wrong("status", "status must be approved or rejected")
        task = service.decide(number, status)
        if task is None:
            return make_response(jsonify(error="no pending approval has this number"), 409)
        return jsonify(task)

    @blueprint.get("/approvals")
    def newest() -> Response:
        return jsonify(service.newest())

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
