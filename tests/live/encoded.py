"""The test app behind a middleware that changes the bodies of streams, and says so."""

from __future__ import annotations

from typing import Any

from flask import Flask

from tests.live import app


def create_app() -> Flask:
    made = app.create_app()
    inner = made.wsgi_app

    def shouting(environ: Any, start_response: Any) -> Any:
        if not environ["PATH_INFO"].endswith("/stream"):
            return inner(environ, start_response)

        def start(status: str, headers: Any, *rest: Any) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "shout")], *rest)

        return map(bytes.upper, inner(environ, start))

    made.wsgi_app = shouting  # type: ignore[method-assign]
    return made
