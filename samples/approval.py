"""Approval flow: the approver is told personally, whoever follows the process by its topic.

Run:  flask --app samples.approval run --with-threads
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>&topics=approval:process:*'
      curl -X POST http://localhost:5000/approvals -H 'Content-Type: application/json' \
           -d '{"title": "Leave", "approver_id": "<uuid>"}'
      curl -X POST http://localhost:5000/approvals/1 -H 'Content-Type: application/json' \
           -d '{"status": "approved"}'
Each shows ``event: approval:status_changed``.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, make_response

from samples.common import field, single, wrong
from sse_broker import SSE

EVENT = "approval:status_changed"


class ApprovalService:
    """Approvals in memory; a real one would have a table."""

    def __init__(self, sse: SSE) -> None:
        self._sse = sse
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._tasks: dict[int, dict[str, Any]] = {}

    def ask(self, title: str, approver_id: str) -> dict[str, Any]:
        with self._lock:
            number = next(self._numbers)
            task = {"id": number, "title": title, "approver": approver_id, "status": "pending"}
            self._tasks[number] = task
        return self._tell(task)

    def decide(self, number: int, status: str) -> dict[str, Any] | None:
        with self._lock:
            task = self._tasks.get(number)
            if task is None or task["status"] != "pending":
                return None
            task = self._tasks[number] = {**task, "status": status}
        return self._tell(task)

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._tasks.values())[-20:]

    def _tell(self, task: dict[str, Any]) -> dict[str, Any]:
        self._sse.send_to_user(task["approver"], EVENT, task)
        self._sse.send_to_topic(f"approval:process:{task['id']}", EVENT, task)
        return task


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("approval", __name__)
    service = ApprovalService(sse)

    @blueprint.post("/approvals")
    def ask() -> Response:
        try:
            approver = str(uuid.UUID(field("approver_id")))
        except ValueError:
            return wrong("approver_id", "approver_id must be a UUID")
        return jsonify(service.ask(field("title", most=200), approver))

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
    def show() -> Response:
        return jsonify(service.all())

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
