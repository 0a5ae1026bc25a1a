"""The signals that an application can connect to.  See :mod:`sse_broker.core.signals`."""

from sse_broker.core.signals import (
    client_connected,
    client_disconnected,
    listeners_changed,
    message_dropped,
    user_offline,
    user_online,
)

__all__ = [
    "client_connected",
    "client_disconnected",
    "listeners_changed",
    "message_dropped",
    "user_offline",
    "user_online",
]
