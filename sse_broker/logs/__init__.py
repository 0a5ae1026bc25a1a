"""The logs, one file each, and the door to them."""

from __future__ import annotations

from urllib.parse import urlsplit

from sse_broker.core.ports import Log
from sse_broker.errors import InvalidConfig
from sse_broker.logs.memory import MemoryLog

__all__ = ["MemoryLog", "open_log"]


def open_log(url: str) -> Log:
    """Return the log that *url* names.  Connects to nothing yet.

    ``memory://`` is the log of one process.

    :raises InvalidConfig: no log has this scheme; ``.field`` is ``log``.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryLog()
    raise InvalidConfig(
        f"no log for {scheme + '://' if scheme else url!r}; there is memory://", field="log"
    )
