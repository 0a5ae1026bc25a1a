"""Task progress: a background job reports to the user who started it.

Run:  flask --app samples/progress.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>'
      curl http://localhost:5000/tasks -H 'Content-Type: application/json' \
           -d '{"user_id": "<uuid>"}'
The stream shows ``event: progress`` from 0 to 100.  The job is an ordinary
thread; sending needs no application context.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading

from flask import Blueprint, Flask, Response, jsonify

from samples.common import single, user_field
from sse_broker import SSE, Broker

STEPS = 20
ROUNDS = 250_000  # how much work a step is; about 0.15 s

logger = logging.getLogger(__name__)


def work(broker: Broker, user_id: str, task: str) -> None:
    """Do something that takes a while, and say after each step how far it got."""
    for step in range(STEPS + 1):
        percent = round(100 * step / STEPS)
        broker.send_to_user(user_id, "progress", {"task": task, "percent": percent})
        if step < STEPS:
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", ROUNDS)
    logger.info("task %s is done", task)


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("progress", __name__)

    @blueprint.post("/tasks")
    def start() -> Response:
        user_id, task = user_field("user_id"), secrets.token_hex(3)
        arguments = (sse.broker, user_id, task)
        threading.Thread(target=work, args=arguments, name=f"task-{task}", daemon=True).start()
        logger.info("task %s has started", task)
        return jsonify(task=task)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
