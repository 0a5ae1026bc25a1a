"""What an exception of the application's own code means for the client, and for the log.

An authenticator that raises says no, unless what it raised is passing trouble: a
database that is away, a pool that is empty, a key server that does not answer.
Then nobody knows whether the client is welcome, and it is told to come back.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

from sse_broker.errors import NotNow
from sse_broker.web.said import Said, one_line

__all__ = ["described", "failed", "is_passing", "masked"]

# Names, because none of these libraries may be imported for this: SQLAlchemy and DB-API
# drivers (PEP 249), redis-py, pymongo, httpx, requests, PyJWT.
_PASSING = frozenset(
    {
        "OperationalError",
        "InterfaceError",
        "DisconnectionError",
        "TimeoutError",
        "PoolTimeout",
        "PoolError",
        "PoolClosed",
        "TooManyRequests",
        "TooManyConnections",
        "ConnectionError",
        "ConnectionFailure",
        "ConnectionException",
        "ConnectionDoesNotExistError",
        "CannotConnectNowError",
        "BusyLoadingError",
        "AutoReconnect",
        "ServerSelectionTimeoutError",
        "TransportError",
        "ServiceUnavailable",
        "PyJWKClientConnectionError",
    }
)
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_SECRET = re.compile(
    r"(?i)((?:token|ticket|password|passwd|secret|api_?key|jwt|authorization|cookie|session)"
    r"[\"']?\s*[=:]\s*(?:bearer\s+)?)[^\s&;,)]+"
)
_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*")  # RFC 7519: base64url of '{"'


def is_passing(error: BaseException) -> bool:
    """Whether *error* says that something the application needs is away for now."""
    if isinstance(error, NotNow):
        return True
    if isinstance(error, OSError) and not isinstance(error, _FINAL):
        return True
    return any(kind.__name__ in _PASSING for kind in type(error).__mro__)


def masked(text: str) -> str:
    """Return *text* without what looks like a credential."""
    text = _JWT.sub("***", _IN_URL.sub("***@", text))
    return _SECRET.sub(r"\1***", text)


def described(error: BaseException) -> str:
    """Return the traceback of *error* for a log: no credential, no forged line."""
    lines: list[str] = []
    for part in traceback.TracebackException.from_exception(error).format(chain=True):
        # one entry may be several lines of ours, or a message that holds line ends
        ours = part.startswith(("  File ", "Traceback ", "\n", "  ["))
        for line in part.rstrip("\n").split("\n") if ours else [part.rstrip("\n")]:
            lines.append(one_line(masked(line)))
    return "\n".join(lines)


def failed(said: Said, what: str, code: Callable[..., object], error: Exception) -> bool:
    """Say in the log that the application's *code* raised; return whether it may pass.

    *what* is its part, as ``authenticator``.  A minute passes before the same
    exception of the same function is written again.
    """
    name, kind = named(code), type(error).__name__
    if is_passing(error):
        said.warning(
            f"{what} {name} {kind}",
            "the %s %s cannot answer now, clients are told to come back: %s",
            what,
            name,
            masked(f"{kind}: {error}"),
        )
        return True
    said.failure(f"{what} {name} {kind}", f"the {what} {name} failed", described(error))
    return False


def named(code: object) -> str:
    """Return what *code* is called in the application."""
    return str(getattr(code, "__qualname__", None) or type(code).__qualname__)
