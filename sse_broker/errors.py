"""Every exception of the library.

::

    BrokerError
    ├── InvalidConfig          a setting is unknown or out of range
    ├── InvalidUserID          nil, empty or not an id at all
    ├── InvalidTopic           empty, too long, or a pattern where a name is due
    ├── InvalidSince           no number of seconds or messages to begin with
    ├── InvalidMessage         a field that cannot be sent
    │   ├── MessageTooLarge    more bytes than ``max_message_bytes``
    │   └── IdConflict         its own id stands for another message to the same addressee
    ├── AuthenticationFailed   who asks is not known
    ├── TopicForbidden         who asks may not read that topic
    ├── AuthorizerFailed       nobody can say now whether it may; come back later
    ├── PublishForbidden       who publishes may not say that, or not there
    ├── NoSuchStream           no process has that stream, or not of who asks
    ├── TopicsNotEnabled       topics are switched off
    ├── QueueFull              the message was not taken: no room
    ├── TooManyConnections     a limit on streams is reached; come back later
    ├── TooManyRequests        a rate is reached; come back later
    ├── NotNow                 the application cannot say now; come back later
    ├── BrokerStopped          the broker is stopped or stopping; come back later
    ├── StreamingUnsupported   this server cannot hold a stream open
    └── LogUnavailable         the log cannot be read or written now

An error carries facts as attributes, never only in its sentence.  HTTP
statuses are no business of this module: the table is in ``web.refusal``.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "AuthorizerFailed",
    "BrokerError",
    "BrokerStopped",
    "IdConflict",
    "InvalidConfig",
    "InvalidMessage",
    "InvalidSince",
    "InvalidTopic",
    "InvalidUserID",
    "LogUnavailable",
    "MessageTooLarge",
    "NoSuchStream",
    "NotNow",
    "PublishForbidden",
    "QueueFull",
    "StreamingUnsupported",
    "TooManyConnections",
    "TooManyRequests",
    "TopicForbidden",
    "TopicsNotEnabled",
]


class BrokerError(Exception):
    """The base of all errors of this library.

    ``field`` names the argument, setting or request field that was wrong
    (empty when none was); ``retry_after`` is the number of seconds after which
    another try makes sense (``None`` when no wait helps).
    """

    text = "broker error"

    def __init__(
        self, detail: str = "", *, field: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{self.text}: {detail}" if detail else self.text)
        self.field = field
        self.retry_after = retry_after


class InvalidConfig(BrokerError):
    """A setting has an unknown name or a value outside its rule."""

    text = "invalid configuration"


class InvalidUserID(BrokerError):
    """A user id is nil, empty, or no UUID, string or integer."""

    text = "invalid user ID"


class InvalidTopic(BrokerError):
    """A topic is empty, too long, has control characters, or is a pattern out of place."""

    text = "invalid topic"


class InvalidSince(BrokerError):
    """Since when a stream is to begin is not said as seconds, messages or ``earliest``."""

    text = "invalid since"


class InvalidMessage(BrokerError):
    """A message has a field that cannot be put on the wire as it was meant."""

    text = "invalid message"


class MessageTooLarge(InvalidMessage):
    """A message is longer than ``max_message_bytes``."""

    text = "message too large"


class IdConflict(InvalidMessage):
    """An own id stands for another message to the same addressee already; nothing was sent.

    Sending the same message again under its id is no error and delivers once.
    """

    text = "id conflict"


class AuthenticationFailed(BrokerError):
    """The request does not say who it comes from, or not convincingly."""

    text = "authentication failed"


class TopicForbidden(BrokerError):
    """The identity may not read this topic."""

    text = "topic forbidden"


class PublishForbidden(BrokerError):
    """The publisher's credentials are for another tenant, other topics or other events."""

    text = "publish forbidden"


class NoSuchStream(BrokerError):
    """No process has an open stream of that id, or it is somebody else's."""

    text = "no such stream"


class AuthorizerFailed(BrokerError):
    """The application's authorizer raised, so nobody can say what the identity may read."""

    text = "the topics cannot be checked now"


class TopicsNotEnabled(BrokerError):
    """Topics are used although ``enable_topics`` is off."""

    text = "topics not enabled"


class QueueFull(BrokerError):
    """The message was not taken because there is no room for it."""

    text = "broadcast channel full"


class TooManyConnections(BrokerError):
    """A limit on open streams is reached.  The newcomer is refused, never an old stream.

    ``field`` names the setting whose limit it is.
    """

    text = "too many connections"


class TooManyRequests(BrokerError):
    """Streams or publishes come faster than a rate allows; ``field`` names its setting."""

    text = "too many requests"


class NotNow(BrokerError):
    """Raised by an authenticator, topic resolver or authorizer that cannot answer now.

    The client is told to come back, after ``retry_after`` seconds where that is
    given; it is not told *detail*.
    """

    text = "not now"


class BrokerStopped(BrokerError):
    """The broker is stopped or stopping and takes no streams."""

    text = "broker stopped"


class StreamingUnsupported(BrokerError):
    """The server or worker cannot hold a stream open."""

    text = "SSE not supported"


class LogUnavailable(BrokerError):
    """The log cannot be opened, read or written now.

    After a publish ``maybe_recorded`` says whether the outcome is unknown: the
    log may have taken the message before its answer was lost.  ``False`` is
    certainty that it did not.
    """

    text = "log unavailable"

    def __init__(
        self,
        detail: str = "",
        *,
        field: str = "",
        retry_after: float | None = None,
        maybe_recorded: bool = False,
    ) -> None:
        super().__init__(detail, field=field, retry_after=retry_after)
        self.maybe_recorded = maybe_recorded
