"""A notification bell in an app as people have them: factory, Flask-Login, SQLAlchemy, Celery.

Run:  pip install 'sse-broker[gunicorn]' Flask-Login Flask-SQLAlchemy celery
      flask --app samples.bell init-db
      gunicorn -c python:sse_broker.gunicorn_conf 'samples.bell:create_app()'
See:  log in at http://localhost:8000 as ada (password: ada) in one window and as ben (ben) in
      another; what one of them writes rings the other one's bell.
The tutorial of the documentation builds this app step by step.
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from samples.bell.extensions import celery_of, db, login_manager, sse
from samples.bell.models import add_people
from samples.bell.views import bell

__all__ = ["create_app"]


def create_app(config: dict[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="for development only",
        SQLALCHEMY_DATABASE_URI="sqlite:///bell.db",
        CELERY={
            "task_always_eager": True
        },  # with a broker of Celery's: {"broker_url": "redis://..."}
    )
    app.config.update(config or {})
    db.init_app(app)
    login_manager.init_app(app)
    sse.init_app(app)
    celery_of(app)
    app.register_blueprint(bell)

    @app.cli.command("init-db")
    def init_db() -> None:
        """Make the tables, and two people to try it with."""
        db.create_all()
        add_people("ada", "ben")

    return app
