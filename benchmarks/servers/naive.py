"""A list of queues and a generator, as tutorials have it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from flask import Flask, Response, request

from benchmarks.servers.triggers import add_triggers


def naive() -> Flask:
    app, lock = Flask("naive"), threading.Lock()
    queues: list[queue.Queue[str]] = []
    by_user: dict[str, queue.Queue[str]] = {}

    @app.get("/sse/stream")
    def stream() -> Response:
        mine: queue.Queue[str] = queue.Queue()
        user = request.args["user_id"]

        def body() -> Iterator[str]:
            with lock:
                queues.append(mine)
                by_user[user] = mine
            try:
                yield ": hello\n\n"
                while True:
                    yield f"data: {mine.get()}\n\n"
            finally:
                with lock:
                    queues.remove(mine)
                    if by_user.get(user) is mine:
                        del by_user[user]

        return Response(body(), mimetype="text/event-stream")

    def to_topic(text: str) -> None:
        with lock:
            now = list(queues)
        for one in now:
            one.put(text)

    def to_user(user: str, text: str) -> None:
        with lock:
            one = by_user[user]
        one.put(text)

    return add_triggers(app, to_topic, to_user)
