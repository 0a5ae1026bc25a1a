"""Whether an identity may read: its token, its own topics, and the application's authorizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from sse_broker.config import BrokerConfig
from sse_broker.core.asking import Asking
from sse_broker.core.identity import Identity, may_read
from sse_broker.core.ports import Authorizer, Clock, Log
from sse_broker.core.topic_limits import check_subscription
from sse_broker.errors import (
    AuthenticationFailed,
    AuthorizerFailed,
    TopicForbidden,
    TopicsNotEnabled,
)
from sse_broker.wire.topics import check_pattern

__all__ = ["Access"]

SAY_EVERY = 60.0  # seconds

_log = logging.getLogger("sse_broker.broker")


class Access:
    """The one who is asked what an identity may read.  Any thread.

    *context* is what the application's own functions are called in.  *count* counts a
    failure of the authorizer and returns how many there were in this process.
    """

    def __init__(
        self,
        config: BrokerConfig,
        log: Log,
        clock: Clock,
        authorizer: Authorizer | None,
        context: Callable[[], AbstractContextManager[object]],
        count: Callable[[], int],
    ) -> None:
        self._config = config
        self._source = log
        self._clock = clock
        self._context = context
        self._count = count
        self._said = -SAY_EVERY
        self.asking = Asking()
        self.authorizer = may_read if authorizer is None else self._both(authorizer)

    def check_topics(self, identity: Identity, topics: Iterable[str]) -> tuple[str, ...]:
        """Return *topics*, checked and authorised, for a stream of *identity*.

        :raises TopicsNotEnabled: there are some and ``enable_topics`` is off.
        :raises InvalidTopic: one is neither a name nor a pattern, or they are too many.
        :raises TopicForbidden: *identity* may not read one of them.
        :raises AuthorizerFailed: the authorizer raised.
        """
        wanted = tuple(dict.fromkeys(check_pattern(topic) for topic in topics))
        if wanted and not self._config.enable_topics:
            raise TopicsNotEnabled(field="topics")
        check_subscription(self._config, wanted)
        for topic in wanted:
            if not self.may_read(identity, topic):
                raise TopicForbidden(repr(topic), field="topics")
        return wanted

    def check_token(self, identity: Identity) -> None:
        """Refuse an identity whose token is revoked.  Looks at the log if it has a token.

        :raises AuthenticationFailed: the token is revoked.
        :raises LogUnavailable: nobody can say now.
        """
        if identity.token_id and self._source.roster.is_revoked(identity.token_id):
            raise AuthenticationFailed("the token is revoked")

    def may_read(self, identity: Identity, topic: str) -> bool:
        """Ask in the request that wants a stream.

        :raises AuthorizerFailed: the authorizer raised.
        """
        return self._judge(self.authorizer, identity, topic)

    def may_still_read(self, identity: Identity, topic: str) -> bool:
        """Ask about a stream that is open, outside of any request, with a deadline.

        :raises AuthorizerFailed: the authorizer raised, or did not answer.
        """
        return self._judge(self.ask, identity, topic)

    def ask(self, identity: Identity, topic: str) -> bool:
        """As :meth:`may_still_read`, with what the authorizer raises as it is."""
        if not self._asks_application:
            return may_read(identity, topic)
        return self.asking.ask(lambda: self.authorizer(identity, topic))

    @property
    def of_readers(self) -> Authorizer:
        """What readers ask, record by record."""
        return self.ask if self._asks_application else self.authorizer

    def failed(self) -> None:
        """Count a failure of the application's authorizer, in an ``except`` clause of it."""
        count, now = self._count(), self._clock.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            _log.exception(
                "an authorizer raised, or did not answer; the topic that it was asked about"
                " is closed for this client and message, or the stream is told to come back;"
                " %d in all so far",
                count,
            )

    @property
    def _asks_application(self) -> bool:
        return self.authorizer is not may_read

    def _both(self, authorizer: Authorizer) -> Authorizer:
        """Return what asks for both: the topics of the identity itself, and *authorizer*."""

        def both(identity: Identity, topic: str) -> bool:
            if not may_read(identity, topic):
                return False
            with self._context():
                return bool(authorizer(identity, topic))

        return both

    def _judge(self, ask: Authorizer, identity: Identity, topic: str) -> bool:
        try:
            return bool(ask(identity, topic))
        except Exception as err:  # the application's: it may be well in a moment
            self.failed()
            raise AuthorizerFailed(field="topics", retry_after=1.0) from err
