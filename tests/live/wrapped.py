"""The live tests' app under middleware that hides gunicorn's start_response, as tracing does."""

from __future__ import annotations

from typing import Any

from tests.live.app import create_app

app = create_app()
inner = app.wsgi_app


def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
    return inner(environ, lambda *args: start_response(*args))


app.wsgi_app = wrapped  # type: ignore[method-assign]
