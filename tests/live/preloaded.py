"""An app whose broker is started and used at import, before gunicorn forks."""

from tests.live.app import create_app

app = create_app()
broker = app.extensions["sse"]
broker.start()
for _ in range(100):
    broker.broadcast("early", "x")
