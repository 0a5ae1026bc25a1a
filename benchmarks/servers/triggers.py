"""What the load client asks of a server that holds the code which sends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify, request

from benchmarks.servers.burner import Burner

PAD = "x" * 80
_numbers = itertools.count()


def text() -> str:
    """Return a message of about 100 bytes that says when it was sent, and which it is."""
    return f"t={time.monotonic():014.6f} n={next(_numbers):010} {PAD}"


def user_id(number: int) -> str:
    """Return the user of one client of the load program."""
    return f"00000000-0000-4000-8000-{number:012d}"


def add_triggers(
    app: Flask, to_topic: Callable[[str], Any], to_user: Callable[[str, str], Any]
) -> Flask:
    """Have messages sent by code inside the process; the answer says how long that took."""
    burner = Burner()

    @app.post("/send")
    def trigger() -> Response:
        count = int(request.args["n"])
        users = int(request.args.get("users", 0))
        started = time.monotonic()
        for number in range(count):
            if users:
                to_user(user_id(number % users), text())
            else:
                to_topic(text())
        return jsonify(took=time.monotonic() - started)

    @app.post("/burn")
    def burn() -> Response:
        return jsonify(burner.turn(request.args.get("on")))

    @app.get("/ping")
    def ping() -> str:
        return "pong"

    return app
