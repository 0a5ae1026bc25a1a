"""What every request of a visitor passes: rates, who it is, which topics it may have.

What costs least is asked first: a flood is turned away before anybody is
authenticated, and each thread of it is free again at once.  ``HEAD`` passes what
``GET`` passes, because it tells as much.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Request

from sse_broker.core.identity import Identity
from sse_broker.core.since import Since, parse_since
from sse_broker.core.streams import Streams
from sse_broker.errors import AuthenticationFailed
from sse_broker.limits import Rates
from sse_broker.web.address import client_address
from sse_broker.web.auth import Authenticator, TopicResolver, authenticate, resolve
from sse_broker.web.said import Said

__all__ = ["Door"]


@dataclass(frozen=True)
class Door:
    """How one blueprint knows its visitors."""

    streams: Streams
    rates: Rates
    authenticator: Authenticator
    topic_resolver: TopicResolver
    said: Said

    def count(self, request: Request) -> None:
        """Count a request by its address, before anything that costs.

        :raises TooManyRequests: the rate is reached.
        """
        self.rates.check("connect_rate", lambda: client_address(request, "connect_rate"))

    def identify(self, request: Request) -> Identity:
        """Return whom *request* comes from, if that one may have a stream at all.

        :raises AuthenticationFailed: nobody, or one whose token is revoked.
        :raises NotNow, LogUnavailable: nobody can say now.
        """
        streams = self.streams
        identity = authenticate(self.authenticator, request, self.said, streams.clock.time())
        if streams.config.require_tenant and identity.tenant_id is None:
            raise AuthenticationFailed("a tenant is required", field="tenant_id")
        streams.check_token(identity)
        return identity

    def count_user(self, identity: Identity) -> None:
        """Count a request of a known user.

        :raises TooManyRequests: the rate is reached.
        """
        if identity.is_anonymous:
            return  # counted by its address, before
        who = (identity.tenant_id, identity.user_id)
        self.rates.check("connect_rate_per_user", lambda: who)

    def subscription(
        self, request: Request, identity: Identity
    ) -> tuple[tuple[str, ...], Since | None]:
        """Return the topics that *request* asks for, if *identity* may read them all.

        Beside them, since when the stream is to begin: what the topic resolver says
        goes before ``?since=``.

        :raises InvalidSince: that says nothing of the kind.
        :raises InvalidTopic, TopicForbidden, TopicsNotEnabled: one may not be had.
        :raises NotNow, AuthorizerFailed: the application cannot say now.
        """
        asked = resolve(self.topic_resolver, request, self.said)
        since = parse_since(asked.since or request.args.get("since", ""))
        return self.streams.check_topics(identity, asked.topics), since
