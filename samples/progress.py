"""Task progress: a background job reports to the user who started it.

Run:  flask --app samples.progress run --with-threads
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>'
      curl -X POST http://localhost:5000/tasks -H 'Content-Type: application/json' \
           -d '{"user_id": "<uuid>"}'
The stream shows ``event: progress`` from 0 to 100.  The job is an ordinary
thread; sending needs no application context.
"""

from __future__ import annotations

import secrets
import threading
import uuid

from flask import Blueprint, Flask, Response, jsonify

from samples.common import field, single, wrong
from sse_broker import SSE, Broker

STEPS = 20


def work(broker: Broker, user_id: str, task: str, pause: threading.Event) -> None:
    """Count some files, or whatever the work is, and say how far it got."""
    for step in range(STEPS + 1):
        percent = round(100 * step / STEPS)
        broker.send_to_user(user_id, "progress", {"task": task, "percent": percent})
        pause.wait(0.2)


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("progress", __name__)

    @blueprint.post("/tasks")
    def start() -> Response:
        try:
            user_id = str(uuid.UUID(field("user_id")))
        except ValueError:
            return wrong("user_id", "user_id must be a UUID")
        task = secrets.token_hex(3)
        arguments = (sse.broker, user_id, task, threading.Event())
        threading.Thread(target=work, args=arguments, name=f"task-{task}", daemon=True).start()
        return jsonify(task=task)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
