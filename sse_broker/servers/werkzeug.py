"""What Werkzeug's development server shows: each request's socket.

It starts a thread for each connection, as many as there are, and closes the
connection after each response.
"""

from __future__ import annotations

from typing import Any

from sse_broker.servers.unknown import Server

__all__ = ["Werkzeug"]


class Werkzeug(Server):
    """A request under ``flask run`` or ``app.run()``."""

    __slots__ = ()

    @property
    def socket(self) -> Any:
        """The client's socket, which the request's own thread writes to."""
        return self._environ["werkzeug.socket"]

    cure = "leave out --without-threads, or threaded=False"
