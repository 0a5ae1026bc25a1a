"""What uWSGI shows: its version, and nothing of the socket.

It sets no ``SERVER_SOFTWARE``, which PEP 3333 does not require.  Without ``--threads``
(or ``--enable-threads``, for threads of the application's own) Python's threads do not
run between requests, so nothing of this library would.
"""

from __future__ import annotations

import sys

from sse_broker.servers.unknown import Capacity, Server

__all__ = ["UWSGI", "VERSION"]

VERSION = "uwsgi.version"


class UWSGI(Server):
    """A request under uWSGI."""

    __slots__ = ()

    cure = "run uWSGI with --threads N"

    @property
    def capacity(self) -> Capacity:
        """The threads of this process, as uWSGI's own module says."""
        settings = getattr(sys.modules.get("uwsgi"), "opt", {})
        try:
            return Capacity(int(settings.get("threads", 0)))
        except (TypeError, ValueError):  # it was not given a number
            return Capacity()
