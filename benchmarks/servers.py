"""The two applications that are measured: ours, and the classic Flask generator."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, jsonify, request

from sse_broker import Broker, create_blueprint

TOPIC = "bench"
PAD = "x" * 80


def add_triggers(app: Flask, send: Callable[[str], Any]) -> Flask:
    """Let the load client have messages sent by code inside the process."""

    @app.post("/send")
    def trigger() -> Response:
        for _ in range(int(request.args["n"])):
            send(f"t={time.monotonic():.6f} {PAD}")
        return jsonify(ok=True)

    @app.get("/ping")
    def ping() -> str:
        return "pong"

    return app


def ours() -> Flask:
    """sse_broker with its default settings."""
    app, broker = Flask("ours"), Broker()
    app.register_blueprint(create_blueprint(broker), url_prefix="/sse")
    return add_triggers(app, lambda text: broker.send_to_topic(TOPIC, "message", text))


def naive() -> Flask:
    """A list of queues and a generator, as tutorials have it."""
    app, lock = Flask("naive"), threading.Lock()
    queues: list[queue.Queue[str]] = []

    @app.get("/sse/stream")
    def stream() -> Response:
        mine: queue.Queue[str] = queue.Queue()

        def body() -> Iterator[str]:
            with lock:
                queues.append(mine)
            try:
                yield ": hello\n\n"
                while True:
                    yield f"data: {mine.get()}\n\n"
            finally:
                with lock:
                    queues.remove(mine)

        return Response(body(), mimetype="text/event-stream")

    def send(text: str) -> None:
        with lock:
            now = list(queues)
        for one in now:
            one.put(text)

    return add_triggers(app, send)


def over_a_log() -> Flask:
    """sse_broker over the log that ``BENCH_LOG`` names."""
    app, broker = Flask("over_a_log"), Broker(log=os.environ["BENCH_LOG"])
    app.register_blueprint(create_blueprint(broker), url_prefix="/sse")

    @app.post("/spaced")
    def spaced() -> Response:
        pause = threading.Event()
        for _ in range(int(request.args["n"])):
            broker.send_to_topic(TOPIC, "message", f"t={time.monotonic():.6f} {PAD}")
            pause.wait(0.004)
        return jsonify(ok=True)

    return add_triggers(app, lambda text: broker.send_to_topic(TOPIC, "message", text))


def flask_sse_app() -> Flask:
    """flask-sse, as its README has it."""
    from flask_sse import sse

    app = Flask("flask_sse")
    app.config["REDIS_URL"] = os.environ["BENCH_LOG"]
    app.register_blueprint(sse, url_prefix="/sse/stream")
    return add_triggers(app, lambda text: sse.publish(text, type="message"))
