"""The logs, one module or package each, and the door to them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from urllib.parse import urlsplit

from sse_broker.core.ports import Log
from sse_broker.errors import InvalidConfig
from sse_broker.logs.memory import MemoryLog

__all__ = ["MemoryLog", "open_log"]

ENTRY_POINTS = "sse_broker.logs"

_REDIS = "sse_broker.logs.redis:RedisLog"
BUILT_IN = {
    "memory": "sse_broker.logs.memory:from_url",
    "sqlite": "sse_broker.logs.sqlite:SqliteLog",
    **{
        f"{name}{kind}": _REDIS
        for name in ("redis", "rediss", "valkey", "valkeys")
        for kind in ("", "+sentinel", "+cluster")
    },
    "unix": _REDIS,
}


def open_log(url: str) -> Log:
    """Return the log that *url* names.  Connects to nothing yet.

    ``memory://`` is the log of one process, ``sqlite:///path`` of all processes
    of one machine, ``redis://`` (also ``rediss://``, ``unix://``, and with
    ``+sentinel`` or ``+cluster``) of several machines.  Other schemes are looked
    up among the entry points of the group ``sse_broker.logs``: the name is the
    scheme, the object takes the URL and returns a :class:`~sse_broker.core.ports.Log`.

    :raises InvalidConfig: no log has this scheme, its driver is missing, or the
        URL is wrong; ``.field`` is ``log``.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as err:  # what it says may have a part of the password
        raise InvalidConfig("the URL of the log cannot be read", field="log") from err
    if scheme in BUILT_IN:
        module, _, name = BUILT_IN[scheme].partition(":")
        make: Callable[[str], Log] = getattr(import_module(module), name)
        return make(url)
    found = list(metadata.entry_points(group=ENTRY_POINTS, name=scheme)) if scheme else []
    if not found:
        what = f"{scheme}://" if scheme else "a URL without a scheme"
        raise InvalidConfig(
            f"no log for {what}; there are memory://, sqlite://, redis:// and what packages add",
            field="log",
        )
    opened: Log = found[0].load()(url)
    return opened
