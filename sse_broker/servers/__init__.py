"""What each WSGI server shows: one module for each, all answering the same questions.

No other part of the package knows what a server looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sse_broker.servers.gunicorn import SOCKET, Gunicorn, find_worker
from sse_broker.servers.unknown import Capacity, Passage, Server
from sse_broker.servers.uwsgi import UWSGI, VERSION
from sse_broker.servers.waitress import CHECK, Waitress
from sse_broker.servers.werkzeug import Werkzeug

__all__ = ["Capacity", "Passage", "Server", "server_of"]


def server_of(environ: Mapping[str, Any]) -> Server:
    """Return what the server of a request shows.  Any thread; waits for nothing."""
    software = str(environ.get("SERVER_SOFTWARE"))
    if environ.get(SOCKET) is not None or software.startswith("gunicorn/"):
        return Gunicorn(environ)
    if environ.get("werkzeug.socket") is not None:
        return Werkzeug(environ)
    if environ.get(CHECK) is not None:
        return Waitress(environ)
    if VERSION in environ:
        return UWSGI(environ)
    if find_worker() is not None:  # a test client inside of a worker
        return Gunicorn(environ)
    return Server(environ)
