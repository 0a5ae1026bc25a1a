"""Log stream: what the application logs appears in the browser as it is written.

Run:  flask --app samples/logstream.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>&topics=logs:app'
      curl http://localhost:5000/log -H 'Content-Type: application/json' \
           -d '{"level": "info", "text": "hello"}'
The stream shows ``event: log``.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Flask, Response, jsonify

from samples.common import field, single, wrong
from sse_broker import SSE, Broker

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
TOPIC = "logs:app"

logger = logging.getLogger(__name__)


class BrokerHandler(logging.Handler):
    """Sends each record to a topic.

    Never attach it to ``sse_broker``'s own loggers: a send would log, and a log send.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        super().__init__()
        self._broker, self._topic = broker, topic

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = {"level": record.levelname.lower(), "logger": record.name}
            line["text"] = self.format(record)
            self._broker.send_to_topic(self._topic, "log", line)
        except Exception:  # what logging asks of a handler
            self.handleError(record)


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("logstream", __name__)
    samples = logging.getLogger("samples")  # the parent of every sample's own logger
    samples.setLevel(logging.INFO)
    samples.handlers = [BrokerHandler(sse.broker, TOPIC)]

    @blueprint.post("/log")
    def write() -> Response:
        level = LEVELS.get(field("level"))
        if level is None:
            return wrong("level", "level must be info, warning or error")
        logger.log(level, "%s", field("text"))
        return jsonify(ok=True)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)
