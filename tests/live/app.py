"""What the live tests run: an ordinary Flask app, with numbers about its own process."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request

from sse_broker import SSE, default_authenticator


def leave(sse: SSE) -> Any:
    """Have every stream end."""
    for user in sse.broker.get_online_users():
        sse.broker.disconnect_user(user)
    return jsonify(ok=True)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update({k: v for k, v in os.environ.items() if k.startswith("SSE_")})
    named = None if app.config.get("SSE_JWT_KEY") else default_authenticator
    sse = SSE(app, authenticator=named)
    raising: list[bool] = []

    @app.get("/healthz")
    def healthz() -> Any:
        return "ok"

    @app.get("/numbers")
    def numbers() -> Any:
        return jsonify(
            pid=os.getpid(),
            waiting=sum(len(one.queue.queue) for one in sse.broker.streams.here()._clients()),
            clients=sse.broker.get_stats().total_clients,
            threads=len(list(Path("/proc/self/task").iterdir())),
            rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            resident=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
            fds=len(list(Path("/proc/self/fd").iterdir())),
        )

    @app.post("/burst")
    def burst() -> Any:
        size = "x" * request.args.get("size", 10, int)
        topic = request.args.get("topic", "crowd")
        for n in range(request.args.get("n", 1, int)):
            sse.send_to_topic(topic, "burst", f"{n};{size}")
        return jsonify(ok=True)

    @app.post("/native")
    def native() -> Any:
        """Send from a thread that gevent knows nothing of, while the hub sleeps."""
        import _thread

        start: Any = _thread.start_new_thread
        if "gevent.monkey" in sys.modules:
            start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
        started = time.monotonic()
        start(lambda: sse.send_to_topic("crowd", "native", str(started)), ())
        return jsonify(ok=True)

    @app.post("/fork")
    def fork() -> Any:
        """Have a forked child send, and live on for a while with all that it has inherited."""

        seconds = request.args.get("seconds", 0, int)

        def child() -> None:
            sse.send_to_topic("crowd", "forked", os.getpid())
            time.sleep(seconds)

        process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
        process.start()
        return jsonify(pid=process.pid)

    app.add_url_rule("/leave", view_func=lambda: leave(sse), methods=["POST"])

    @app.post("/raise")
    def start_raising() -> Any:
        raising.append(True)
        return jsonify(ok=True)

    @app.after_request
    def perhaps_raise(response: Any) -> Any:
        if raising and request.path == "/sse/stream":
            raise RuntimeError("after_request failed on purpose")
        return response

    return app


def main(host: str, port: int) -> None:
    if host == "werkzeug":
        create_app().run(port=port, threaded=True)
    else:
        import waitress

        # Without looking ahead waitress does not know that a client has left.
        options = {"threads": 32, "channel_request_lookahead": 1}
        waitress.serve(create_app(), port=port, host="127.0.0.1", **options)


if __name__ == "__main__":
    threading.current_thread().name = "server"
    main(sys.argv[1], int(sys.argv[2]))
