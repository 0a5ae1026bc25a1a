"""Who is connected, by client, user, tenant and topic.

Every index is keyed by tenant first, so nothing crosses a tenant by a name
that happens to be equal; keys are never joined strings.

Not locked by itself: the broker's process calls it under its own lock.
What :meth:`Registry.match` returns are tuples that later changes leave alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from sse_broker.core.audience import Audience, Bucket, Buckets, Union
from sse_broker.core.client import Client
from sse_broker.core.patterns import Patterns
from sse_broker.wire.message import ALL_TENANTS, Message, Target

__all__ = ["Audience", "Bucket", "Registry"]

MOST_UNIONS = 1024  # audiences by name and pattern that are kept; each has an object of its own
TIDY_EVERY = 256  # clients that leave, between two looks for unions that nobody needs


class Registry:
    """The clients of one process and whom a message is for among them."""

    def __init__(self) -> None:
        self._all = Bucket()
        self._addresses: dict[str, int] = {}
        self._users: Buckets[tuple[str | None, str]] = Buckets()
        self._tenants_of: dict[str, dict[str, None]] = {}  # of users who have one
        self._tenants: Buckets[str | None] = Buckets()
        self._anonymous: Buckets[str | None] = Buckets()  # by tenant; the rest is in _tenants
        self._anonymous_at: dict[str, int] = {}  # by address
        self._topics: Buckets[tuple[str | None, str]] = Buckets()
        self._patterns = Patterns()
        self._unions: dict[tuple[Bucket | Client, ...], Union] = {}
        self._version = 0  # another one after each change
        self._left = 0  # since the unions were looked through

    def __len__(self) -> int:
        return len(self._all)

    def clients(self) -> tuple[Client, ...]:
        """Return every client."""
        return self._all.snapshot()

    def find(self, client_id: str) -> Client | None:
        """Return a client by its id."""
        return self._all.find(client_id)

    def members(self) -> list[tuple[str | None, str]]:
        """Return every user with at least one client, each with its tenant."""
        return list(self._users)

    def user_count(self) -> int:
        """Return how many users have a client; equal ids of two tenants are two."""
        return len(self._users)

    def clients_of(self, user_id: str, tenant: object = None) -> tuple[Client, ...]:
        """Return the clients of a user: of one tenant, or, without one, of whatever tenant."""
        if tenant is not None and tenant is not ALL_TENANTS:
            return self._users.get((str(tenant), user_id))
        others = self._tenants_of.get(user_id)
        if not others:
            return self._users.get((None, user_id))
        found = [self._users.find((one, user_id)) for one in (None, *others)]
        return self._together(tuple(one for one in found if one is not None))

    def of_user(self, tenant_id: str | None, user_id: str) -> int:
        """Return how many clients a user of a tenant has."""
        return self._users.count((tenant_id, user_id))

    def topic_names(self, most: int) -> list[str]:
        """Return some of the topics that somebody subscribes to by name."""
        return [topic for _, topic in itertools.islice(self._topics, most)]

    @property
    def has_tenants(self) -> bool:
        """Whether there is a client that has a tenant."""
        return bool(self._tenants_of)

    def of_tenant(self, tenant_id: str | None) -> int:
        """Return how many clients a tenant has."""
        return self._tenants.count(tenant_id)

    def of_address(self, address: str) -> int:
        """Return how many clients an address has."""
        return self._addresses.get(address, 0)

    def anonymous_at(self, address: str) -> int:
        """Return how many anonymous clients an address has."""
        return self._anonymous_at.get(address, 0)

    def topic_count(self) -> int:
        """Return how many topics, of all tenants, somebody subscribes to by name."""
        return len(self._topics)

    def add(self, client: Client) -> None:
        """Take a client in.  Idempotent."""
        if client in self._all:
            return
        tenant = client.tenant_id
        self._version += 1
        self._all.add(client)
        if client.identity.is_anonymous:
            self._anonymous.add(tenant, client)
            self._anonymous_at[client.address] = self.anonymous_at(client.address) + 1
        else:
            self._users.add((tenant, client.user_id), client)
            self._tenants.add(tenant, client)
            if tenant is not None:
                self._tenants_of.setdefault(client.user_id, {})[tenant] = None
        if client.address:
            self._addresses[client.address] = self.of_address(client.address) + 1
        for name in client.names:
            self._topics.add((tenant, name), client)
        for pattern in client.patterns:
            self._patterns.add(tenant, pattern, client)

    def remove(self, client: Client) -> bool:
        """Forget a client; say whether it was there."""
        if client not in self._all:
            return False
        tenant = client.tenant_id
        self._all.remove(client)
        if client.identity.is_anonymous:
            self._anonymous.remove(tenant, client)
            self._anonymous_at[client.address] -= 1
            if not self._anonymous_at[client.address]:
                del self._anonymous_at[client.address]
        else:
            self._users.remove((tenant, client.user_id), client)
            self._tenants.remove(tenant, client)
            if tenant is not None and not self.of_user(tenant, client.user_id):
                del self._tenants_of[client.user_id][tenant]
                if not self._tenants_of[client.user_id]:
                    del self._tenants_of[client.user_id]
        if client.address:
            self._addresses[client.address] -= 1
            if not self._addresses[client.address]:
                del self._addresses[client.address]
        for name in client.names:
            self._topics.remove((tenant, name), client)
        for pattern in client.patterns:
            self._patterns.remove(tenant, pattern, client)
        self._version += 1
        self._left += 1
        if self._left >= TIDY_EVERY:
            self._tidy()
        return True

    def subscribe(self, client: Client, topics: tuple[str, ...]) -> None:
        """Give a client that is here other topics."""
        self.remove(client)
        client.subscribe(topics)
        self.add(client)

    def match(self, message: Message) -> tuple[Client, ...]:
        """Return the clients that *message* is for, each once.

        Where they are more than one it is the same object until they change.
        """
        tenant = message.tenant_id
        if message.target is Target.USER:
            user = message.user_id
            if tenant is None and user not in self._tenants_of:  # the common case
                return self._users.get((None, str(user)))
            return self.clients_of(str(user), tenant)
        if message.target is Target.BROADCAST:
            if tenant is not ALL_TENANTS:
                return self._tenants.get(_key(tenant))
            if not len(self._anonymous):
                return self._all.snapshot()
            found = (self._tenants.find(one) for one in self._tenants)
            return self._together(tuple(one for one in found if one is not None))
        topics = message.topics
        if tenant is not ALL_TENANTS and len(topics) == 1:
            key = _key(tenant)
            by_pattern = self._patterns.find(key, topics[0])
            if not by_pattern:
                return self._topics.get((key, topics[0]))
            return self._together(self._named(key, topics[0]) + by_pattern)
        parts: list[Bucket | Client] = []
        everywhere = dict.fromkeys((*self._tenants, *self._anonymous))
        for one in everywhere if tenant is ALL_TENANTS else (_key(tenant),):
            for topic in topics:
                parts += self._named(one, topic)
                parts += self._patterns.find(one, topic)
        return self._together(tuple(dict.fromkeys(parts)))

    def _named(self, tenant: str | None, topic: str) -> tuple[Bucket | Client, ...]:
        found = self._topics.find((tenant, topic))
        return () if found is None else (found,)

    def _together(self, parts: tuple[Bucket | Client, ...]) -> tuple[Client, ...]:
        """Return the clients of all parts, each once."""
        if len(parts) <= 1:  # so that all names which only one pattern takes are one audience
            return _clients_of(parts)
        union = self._unions.get(parts)
        if union is None:
            if len(self._unions) >= MOST_UNIONS:
                del self._unions[next(iter(self._unions))]
            union = self._unions[parts] = Union(parts)
        return union.at(self._version)

    def _tidy(self) -> None:
        self._left = 0
        for parts in [parts for parts, union in self._unions.items() if not union.is_needed]:
            del self._unions[parts]


def _clients_of(parts: Iterable[Bucket | Client]) -> tuple[Client, ...]:
    for part in parts:
        return (part,) if isinstance(part, Client) else part.snapshot()
    return ()


def _key(tenant: object) -> str | None:
    return None if tenant is None else str(tenant)
