"""What the samples share: a database, answers to bad input, one of them as an application."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, abort, jsonify, make_response, request

from sse_broker import SSE, BrokerError, default_authenticator
from sse_broker.errors import InvalidMessage, InvalidTopic, InvalidUserID

if TYPE_CHECKING:
    from sqlalchemy import Engine


def single(make_blueprint: Callable[[SSE], Blueprint]) -> Flask:
    """Return an application with nothing but one sample, the stream at ``/sse/stream``."""
    app = Flask("samples", static_folder=None)
    app.register_blueprint(make_blueprint(SSE(app, authenticator=default_authenticator)))
    refuse_bad_messages(app)
    return app


def refuse_bad_messages(app: Flask) -> None:
    """Answer 400 where the broker refuses what it was asked to send."""

    def refuse(error: BrokerError) -> Response:
        return wrong(error.field, str(error))

    for kind in (InvalidMessage, InvalidTopic, InvalidUserID):
        app.register_error_handler(kind, refuse)


def field(name: str, most: int = 500, *, force: bool = False) -> str:
    """Return a text of the JSON body, or answer 400 and say which field is wrong.

    *force* reads JSON whatever the content type says, as ``curl -d`` sends it.
    """
    body = request.get_json(silent=True, force=force)
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= most:
        abort(wrong(name, f"{name} must be a string of 1 to {most} characters in a JSON object"))
    return value


def user_field(name: str) -> str:
    """Return the UUID in a field of the JSON body, or answer 400."""
    try:
        return str(uuid.UUID(field(name)))
    except ValueError:
        abort(wrong(name, f"{name} must be a UUID"))


def wrong(name: str, error: str) -> Response:
    """Return a 400 that names the field."""
    return make_response(jsonify(error=error, field=name), 400)


def data_folder() -> Path:
    """Return the folder that the samples write to; make it if need be."""
    folder = Path(os.environ.get("DEMO_DATA", ".demo"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def database(schema: str) -> Iterator[sqlite3.Connection]:
    """Open the samples' database; commit at the end, roll back after an error, close."""
    db = sqlite3.connect(data_folder() / "samples.db")
    db.row_factory = sqlite3.Row
    try:
        with db:
            db.execute(schema)
            yield db
    finally:
        db.close()


def open_engine() -> Engine:
    """Return the samples' database for those that use SQLAlchemy."""
    from sqlalchemy import create_engine

    return create_engine(f"sqlite:///{data_folder() / 'samples.db'}")


def rows(found: sqlite3.Cursor) -> list[dict[str, Any]]:
    """Return rows as JSON can hold them."""
    return [dict(row) for row in found]
