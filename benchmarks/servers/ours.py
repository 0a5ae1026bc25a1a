"""sse_broker, with its default settings."""

from __future__ import annotations

import logging
import os
import threading

from flask import Flask, Response, jsonify, request

from benchmarks.servers.triggers import add_triggers, text
from sse_broker import Broker, create_blueprint, default_authenticator

TOPIC = "bench"
PUBLISH_TOKEN = "benchmark-benchmark-benchmark-123"
logging.getLogger("sse_broker.auth").setLevel(logging.ERROR)  # the default authenticator is meant


def _app(name: str, broker: Broker) -> Flask:
    app = Flask(name)
    app.register_blueprint(
        create_blueprint(broker, default_authenticator, publish_authenticator=PUBLISH_TOKEN),
        url_prefix="/sse",
    )
    return add_triggers(
        app,
        lambda data: broker.send_to_topic(TOPIC, "message", data),
        lambda user, data: broker.send_to_user(user, "message", data),
    )


def ours() -> Flask:
    """One process and its memory:// log."""
    return _app("ours", Broker())


def over_a_log() -> Flask:
    """The log that ``BENCH_LOG`` names."""
    broker = Broker(log=os.environ["BENCH_LOG"])
    app = _app("over_a_log", broker)

    @app.post("/spaced")
    def spaced() -> Response:
        pause = threading.Event()
        for _ in range(int(request.args["n"])):
            broker.send_to_topic(TOPIC, "message", text())
            pause.wait(0.004)
        return jsonify(ok=True)

    return app
