"""flask-sse, as its README has it."""

from __future__ import annotations

import os

from flask import Flask

from benchmarks.servers.triggers import add_triggers


def flask_sse_app() -> Flask:
    from flask_sse import sse

    app = Flask("flask_sse")
    app.config["REDIS_URL"] = os.environ["BENCH_LOG"]
    app.register_blueprint(sse, url_prefix="/sse/stream")
    return add_triggers(
        app,
        lambda text: sse.publish(text, type="message"),
        lambda user, text: sse.publish(text, type="message", channel=user),
    )
