"""The library's warnings in the server's own log, where the application has set up no logging.

Python writes a warning that nobody handles as a bare line: no level, no time, no
name.  There, this room's handler gives it to the log of the server that runs
(gunicorn's error log, the development server's), and on other servers it writes a
line with its level to standard error.  As soon as the application has a handler on
the root logger, or on the library's, this one is silent.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["speak"]

SERVERS = ("gunicorn.error", "werkzeug")

_root, _ours = logging.getLogger(), logging.getLogger("sse_broker")


class ServerLog(logging.Handler):
    """Hands warnings to the server's logger.  Any thread."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record* where the server writes, unless the application does so itself."""
        if _root.handlers or any(handler is not self for handler in _ours.handlers):
            return
        for name in SERVERS:
            server = logging.getLogger(name)
            if server.handlers and server.isEnabledFor(record.levelno):
                server.handle(record)
                return
        sys.stderr.write(f"[{record.levelname}] {record.name}: {self.format(record)}\n")


def speak() -> None:
    """Have warnings of the library in the server's log from now on.  Idempotent."""
    if not any(isinstance(handler, ServerLog) for handler in _ours.handlers):
        _ours.addHandler(ServerLog(logging.WARNING))
