"""Server push for synchronous Python: Server-Sent Events from ordinary Flask code.

Importing this package needs Flask and nothing else.  Here are the names that
applications use most; every exception is in :mod:`sse_broker.errors`.
"""

from typing import Any

from sse_broker import errors
from sse_broker.broker import Broker
from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client
from sse_broker.core.counts import Stats
from sse_broker.core.identity import Identity
from sse_broker.core.since import Subscription
from sse_broker.errors import AuthenticationFailed, BrokerError, LogUnavailable, QueueFull
from sse_broker.logs import open_log
from sse_broker.version import __version__ as __version__
from sse_broker.web.auth import default_authenticator, default_topic_resolver
from sse_broker.web.blueprint import create_blueprint
from sse_broker.web.extension import SSE, current_broker
from sse_broker.web.response import event_stream
from sse_broker.web.session import session_authenticator
from sse_broker.web.tokens import jwt_authenticator
from sse_broker.wire.message import ALL_TENANTS, EventType, Message, Target, format_event

__all__ = [
    "ALL_TENANTS",
    "SSE",
    "AuthenticationFailed",
    "Broker",
    "BrokerConfig",
    "BrokerError",
    "Client",
    "EventType",
    "Identity",
    "LogUnavailable",
    "Message",
    "QueueFull",
    "Stats",
    "Subscription",
    "Target",
    "create_blueprint",
    "current_broker",
    "default_authenticator",
    "default_topic_resolver",
    "event_stream",
    "format_event",
    "jwt_authenticator",
    "open_log",
    "session_authenticator",
]


def __getattr__(name: str) -> Any:
    """Return an exception that is not among the names above, as earlier releases had it here."""
    if name in errors.__all__:
        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
