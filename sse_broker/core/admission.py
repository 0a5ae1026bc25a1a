"""Whether a new stream is let in, and when to come again if it is not.

One rule for the question in the view and for the answer that counts, at
registration, under the lock of the broker's process.  It is always the newcomer
who is refused: to evict an old stream for a new one makes both come back for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client
from sse_broker.core.counts import Tally
from sse_broker.core.identity import Identity
from sse_broker.core.registry import Registry
from sse_broker.core.topic_limits import check_subscription
from sse_broker.errors import InvalidUserID, TooManyConnections, TopicsNotEnabled

__all__ = ["WHOSE", "Admission"]

WHOSE = {
    "reserve_threads": "the rest of this server is kept for other requests",
    "max_connections": "",
    "max_connections_per_address": "from this address",
    "max_anonymous_per_address": "of unknown visitors from this address",
    "max_connections_per_tenant": "of this tenant",
    "max_connections_per_user": "of this user",
}
"""What is said of each setting that can leave no room."""


class Admission:
    """The limits of one process's streams.  *is_stopped* says whether its broker is stopped."""

    def __init__(
        self,
        config: BrokerConfig,
        registry: Registry,
        tally: Tally,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._config = config
        self._registry = registry
        self._tally = tally
        self._is_stopped = is_stopped

    def check(self, client: Client) -> None:
        """Refuse a client that could never be registered here.

        :raises InvalidTopic: the client subscribes to more than one may.
        :raises TopicsNotEnabled: the client has topics and ``enable_topics`` is off.
        :raises InvalidUserID: the client has no tenant and ``require_tenant`` is on.
        """
        if client.topics and not self._config.enable_topics:
            raise TopicsNotEnabled(field="topics")
        check_subscription(self._config, client.topics)
        if self._config.require_tenant and client.tenant_id is None:
            raise InvalidUserID("a tenant is required", field="tenant_id")

    def full_locked(self, room: int, address: str, identity: Identity | None) -> str:
        """Return the setting that leaves no room for one more stream; empty if none does.

        *room* is how many streams the server can hold in this process, 0 where it
        does not say.  An empty *address* and no *identity* are not looked at.
        """
        config, registry = self._config, self._registry
        counted = {
            "reserve_threads": (room, len(registry)),
            "max_connections": (config.max_connections, len(registry)),
        }
        if address:
            here = registry.of_address(address)
            counted["max_connections_per_address"] = (config.max_connections_per_address, here)
        if identity is not None:
            tenant = None if identity.tenant_id is None else str(identity.tenant_id)
            user = registry.of_user(tenant, str(identity.user_id))
            if tenant is not None:
                here = registry.of_tenant(str(tenant))
                counted["max_connections_per_tenant"] = (config.max_connections_per_tenant, here)
            counted["max_connections_per_user"] = (config.max_connections_per_user, user)
            if identity.is_anonymous:
                most, here = config.max_anonymous_per_address, registry.anonymous_at(address)
                counted["max_anonymous_per_address"] = (most, here)
        return next((name for name, (limit, count) in counted.items() if 0 < limit <= count), "")

    def too_many(self, setting: str) -> TooManyConnections:
        """Count a refusal because of *setting* and return what says so.  Without the lock."""
        self.refused(setting)
        return TooManyConnections(
            WHOSE[setting], field=setting, retry_after=self.retry_later() / 1000
        )

    def refused(self, setting: str, streams: int = 1) -> None:
        """Count a refusal for now, by the setting whose limit was met if it was one."""
        self._tally.refused(setting, streams)

    def retry(self) -> int:
        """Return a reconnection time in milliseconds, spread so that nobody comes back in step."""
        if self._is_stopped():
            return round(1000 * random.uniform(1.0, max(1.0, self._config.reconnect_window)))
        spread = round(self._config.retry * random.uniform(0.8, 1.2))
        return min(60_000, max(1_000, spread))

    def retry_later(self) -> int:
        """Return a reconnection time for who was refused: one to four times the setting ``retry``.

        Spread so far that a flood that was refused at one moment comes back thinned out.
        While the broker stops it is :meth:`retry`: there is room again elsewhere.
        """
        if self._is_stopped():
            return self.retry()
        return min(60_000, round(self._config.retry * random.uniform(1.0, 4.0)))
