"""Server push for synchronous Python: Server-Sent Events from ordinary Flask code.

Importing this package needs Flask and nothing else.
"""

from sse_broker.broker import Broker
from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client
from sse_broker.core.counts import Stats
from sse_broker.core.identity import Identity
from sse_broker.errors import (
    AuthenticationFailed,
    BrokerError,
    BrokerStopped,
    InvalidConfig,
    InvalidMessage,
    InvalidTopic,
    InvalidUserID,
    LogUnavailable,
    MessageTooLarge,
    QueueFull,
    StreamingUnsupported,
    TooManyConnections,
    TooManyRequests,
    TopicForbidden,
    TopicsNotEnabled,
)
from sse_broker.logs import open_log
from sse_broker.web.auth import default_authenticator, default_topic_resolver, jwt_authenticator
from sse_broker.web.blueprint import create_blueprint
from sse_broker.web.extension import SSE, current_broker
from sse_broker.web.response import event_stream
from sse_broker.wire.message import ALL_TENANTS, EventType, Message, Target, format_event

__all__ = [
    "ALL_TENANTS",
    "SSE",
    "AuthenticationFailed",
    "Broker",
    "BrokerConfig",
    "BrokerError",
    "BrokerStopped",
    "Client",
    "EventType",
    "Identity",
    "InvalidConfig",
    "InvalidMessage",
    "InvalidTopic",
    "InvalidUserID",
    "LogUnavailable",
    "Message",
    "MessageTooLarge",
    "QueueFull",
    "Stats",
    "StreamingUnsupported",
    "Target",
    "TooManyConnections",
    "TooManyRequests",
    "TopicForbidden",
    "TopicsNotEnabled",
    "create_blueprint",
    "current_broker",
    "default_authenticator",
    "default_topic_resolver",
    "event_stream",
    "format_event",
    "jwt_authenticator",
    "open_log",
]
