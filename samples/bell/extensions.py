"""The extensions, made once and given to each app by the factory."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from flask import Flask
from flask_login import LoginManager
from flask_sqlalchemy import SQLAlchemy

from sse_broker import SSE, session_authenticator

db = SQLAlchemy()
login_manager = LoginManager()
login_manager.login_view = "bell.login"
sse = SSE(authenticator=session_authenticator())


def celery_of(app: Flask) -> Celery:
    """Return the app's Celery, whose tasks run with the app's context."""

    class ContextTask(Task):
        def __call__(self, *args: Any, **options: Any) -> Any:
            with app.app_context():
                return self.run(*args, **options)

    made = Celery(app.name, task_cls=ContextTask)
    made.config_from_object(app.config["CELERY"])
    made.set_default()
    app.extensions["celery"] = made
    return made
