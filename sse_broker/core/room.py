"""Whether there is room for one more stream.

One rule for the question in the view and for the answer that counts, at
registration, under the lock of the broker's process.  It is always the newcomer
who is refused: to evict an old stream for a new one makes both come back for ever.
"""

from __future__ import annotations

from sse_broker.config import BrokerConfig
from sse_broker.core.identity import Identity
from sse_broker.core.registry import Registry

__all__ = ["WHOSE", "full"]

WHOSE = {
    "reserve_threads": "the rest of this server is kept for other requests",
    "max_connections": "",
    "max_connections_per_address": "from this address",
    "max_connections_per_tenant": "of this tenant",
    "max_connections_per_user": "of this user",
}
"""What is said of each setting that can leave no room."""


def full(
    config: BrokerConfig, registry: Registry, room: int, address: str, identity: Identity | None
) -> str:
    """Return the setting that leaves no room for one more stream; empty if none does.

    *room* is how many streams the server can hold in this process, 0 where it
    does not say.  An empty *address* and no *identity* are not looked at.
    """
    counted = {
        "reserve_threads": (room, len(registry)),
        "max_connections": (config.max_connections, len(registry)),
    }
    if address:
        here = registry.of_address(address)
        counted["max_connections_per_address"] = (config.max_connections_per_address, here)
    if identity is not None:
        tenant, user = identity.tenant_id, registry.of_user(str(identity.user_id))
        if tenant is not None:
            here = registry.of_tenant(str(tenant))
            counted["max_connections_per_tenant"] = (config.max_connections_per_tenant, here)
        counted["max_connections_per_user"] = (config.max_connections_per_user, user)
    return next((name for name, (limit, count) in counted.items() if 0 < limit <= count), "")
