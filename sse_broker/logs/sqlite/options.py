"""What the URL of a SQLite log says."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from sse_broker.errors import InvalidConfig
from sse_broker.logs.sqlite.files import group_id

__all__ = ["Options", "parse"]

SYNCHRONOUS = ("normal", "full")
TIMEOUT = "2"  # seconds


@dataclass(frozen=True)
class Options:
    """A file, and how it is used."""

    path: str
    synchronous: str = "NORMAL"
    timeout: float = float(TIMEOUT)
    prefix: str = ""
    group: int | None = None


def parse(url: str) -> Options:
    """Return what *url* says.

    :raises InvalidConfig: it names no file, or an option is wrong.
    """
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if parts.netloc or not path or path == ":memory:" or not path.isprintable():
        raise InvalidConfig(
            "a sqlite:// URL has to name a file; sqlite:///app.db or sqlite:////var/lib/app/sse.db"
            " does, and memory:// is the log without one",
            field="log",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", SYNCHRONOUS[0]).lower()
    prefix, group = options.pop("prefix", ""), options.pop("group", None)
    try:
        timeout = float(options.pop("timeout", TIMEOUT))
    except ValueError:
        timeout = 0.0
    if synchronous not in SYNCHRONOUS or not 0 < timeout <= 60 or options:
        raise InvalidConfig(
            "the options of a sqlite:// URL are synchronous (normal or full), timeout (seconds,"
            " more than 0 and at most 60), prefix and group"
            + (f"; there is no {', '.join(map(repr, options))}" if options else ""),
            field="log",
        )
    if prefix and not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
        raise InvalidConfig("prefix must be 1 to 64 of A-Z a-z 0-9 _ . : -", field="log")
    return Options(
        os.path.abspath(path),
        synchronous.upper(),
        timeout,
        prefix,
        None if group is None else group_id(group),
    )
