"""What waitress shows: through its check for clients that left, the channel and its socket.

waitress's main thread reads, writes and closes; a request's thread gives it bytes.
It knows that a client has left only if it looks ahead (``channel_request_lookahead``).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from sse_broker.servers.unknown import Capacity, Server

__all__ = ["CHECK", "Waitress"]

CHECK = "waitress.client_disconnected"


class Waitress(Server):
    """A request under waitress."""

    __slots__ = ("_channel", "has_left")

    is_socket_foreign = True

    def __init__(self, environ: Mapping[str, Any]) -> None:
        super().__init__(environ)
        self.has_left: Callable[[], bool] = environ[CHECK]
        self._channel = getattr(self.has_left, "__self__", None)

    @property
    def socket(self) -> Any:
        """The client's socket, or ``None`` if the channel is not as expected."""
        return getattr(self._channel, "socket", None)

    @property
    def capacity(self) -> Capacity:
        """What waitress was configured with."""
        settings = getattr(getattr(self._channel, "server", None), "adj", None)
        if settings is None:
            return Capacity()
        return Capacity(int(settings.threads), int(settings.connection_limit))

    def hang_up(self) -> None:
        """Tell the task that has called, however indirectly, to close when it is through."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_globals.get("__name__") == "waitress.task":
                task: Any = frame.f_locals.get("self")
                if hasattr(task, "close_on_finish"):
                    task.close_on_finish = True
                    return
            frame = frame.f_back
