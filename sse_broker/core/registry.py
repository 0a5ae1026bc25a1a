"""Who is connected, by client, user, tenant and topic.

Every index is keyed by tenant first, so nothing crosses a tenant by a name
that happens to be equal; keys are never joined strings.

Not locked by itself: the broker's process calls it under its own lock.
What :meth:`Registry.match` returns are tuples that later changes leave alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from sse_broker.core.client import Client
from sse_broker.wire.message import ALL_TENANTS, Message, Target

__all__ = ["Audience", "Bucket", "Registry"]

Key = TypeVar("Key")


class Audience(tuple[Client, ...]):
    """The clients of a bucket at one moment."""

    bucket: Bucket


class Bucket:
    """An ordered set of clients whose snapshot is made again only after a change."""

    __slots__ = ("_clients", "_snapshot", "row")

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._snapshot: tuple[Client, ...] | None = ()
        self.row: Any = None
        """What the host of streams keeps for these clients."""

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, client: Client) -> bool:
        return client.id in self._clients

    def find(self, client_id: str) -> Client | None:
        """Return a client by its id."""
        return self._clients.get(client_id)

    def add(self, client: Client) -> None:
        """Take a client in."""
        self._clients[client.id] = client
        self._snapshot = None

    def remove(self, client: Client) -> None:
        """Let a client go, if it is there."""
        self._clients.pop(client.id, None)
        self._snapshot = None

    def snapshot(self) -> tuple[Client, ...]:
        """Return the clients."""
        if self._snapshot is None:
            self._snapshot = audience = Audience(self._clients.values())
            audience.bucket = self
        return self._snapshot


class _Buckets(Generic[Key]):
    """Buckets by key; an empty one is forgotten, and one client alone needs none."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[Key, Bucket | Client] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_key)

    def add(self, key: Key, client: Client) -> None:
        found = self._by_key.get(key)
        if found is None:
            self._by_key[key] = client
            return
        if isinstance(found, Client):
            bucket = self._by_key[key] = Bucket()
            bucket.add(found)
            found = bucket
        found.add(client)

    def remove(self, key: Key, client: Client) -> None:
        found = self._by_key.get(key)
        if isinstance(found, Bucket):
            found.remove(client)
            if not found:
                del self._by_key[key]
        elif found is client:
            del self._by_key[key]

    def get(self, key: Key) -> tuple[Client, ...]:
        found = self._by_key.get(key)
        if found is None:
            return ()
        return found.snapshot() if isinstance(found, Bucket) else (found,)

    def count(self, key: Key) -> int:
        found = self._by_key.get(key)
        if found is None:
            return 0
        return len(found) if isinstance(found, Bucket) else 1


class _Node:
    """A step in a tenant's tree of patterns: a lookup walks the name, not the patterns."""

    __slots__ = ("below", "bucket")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.bucket = Bucket()

    def add(self, parts: list[str], client: Client) -> None:
        node = self
        for part in parts:
            node = node.below.setdefault(part, _Node())
        node.bucket.add(client)

    def remove(self, parts: list[str], client: Client) -> None:
        if not parts:
            self.bucket.remove(client)
            return
        child = self.below.get(parts[0])
        if child is not None:
            child.remove(parts[1:], client)
            if not child.bucket and not child.below:
                del self.below[parts[0]]

    def find(self, parts: list[str], index: int = 0) -> Iterator[Bucket]:
        if index == len(parts):
            yield self.bucket
            return
        rest = self.below.get("**")
        if rest is not None:
            yield rest.bucket
        for part in ("*", parts[index]):
            child = self.below.get(part)
            if child is not None:
                yield from child.find(parts, index + 1)


class Registry:
    """The clients of one process and whom a message is for among them."""

    def __init__(self) -> None:
        self._all = Bucket()
        self._addresses: dict[str, int] = {}
        self._users: _Buckets[str] = _Buckets()
        self._tenants: _Buckets[str | None] = _Buckets()
        self._topics: _Buckets[tuple[str | None, str]] = _Buckets()
        self._patterns: dict[str | None, _Node] = {}

    def __len__(self) -> int:
        return len(self._all)

    def clients(self) -> tuple[Client, ...]:
        """Return every client."""
        return self._all.snapshot()

    def find(self, client_id: str) -> Client | None:
        """Return a client by its id."""
        return self._all.find(client_id)

    def users(self) -> list[str]:
        """Return every user with at least one client."""
        return list(self._users)

    def user_count(self) -> int:
        """Return how many users have a client."""
        return len(self._users)

    def clients_of(self, user_id: str) -> tuple[Client, ...]:
        """Return the clients of a user."""
        return self._users.get(user_id)

    def of_user(self, user_id: str) -> int:
        """Return how many clients a user has."""
        return self._users.count(user_id)

    def of_tenant(self, tenant_id: str | None) -> int:
        """Return how many clients a tenant has."""
        return self._tenants.count(tenant_id)

    def of_address(self, address: str) -> int:
        """Return how many clients an address has."""
        return self._addresses.get(address, 0)

    def topic_count(self) -> int:
        """Return how many topics, of all tenants, somebody subscribes to by name."""
        return len(self._topics)

    def add(self, client: Client) -> None:
        """Take a client in.  Idempotent."""
        if client in self._all:
            return
        tenant = client.tenant_id
        self._all.add(client)
        self._users.add(client.user_id, client)
        self._tenants.add(tenant, client)
        if client.address:
            self._addresses[client.address] = self.of_address(client.address) + 1
        for name in client.names:
            self._topics.add((tenant, name), client)
        for pattern in client.patterns:
            self._patterns.setdefault(tenant, _Node()).add(pattern.split(":"), client)

    def remove(self, client: Client) -> bool:
        """Forget a client; say whether it was there."""
        if client not in self._all:
            return False
        tenant = client.tenant_id
        self._all.remove(client)
        self._users.remove(client.user_id, client)
        self._tenants.remove(tenant, client)
        if client.address:
            self._addresses[client.address] -= 1
            if not self._addresses[client.address]:
                del self._addresses[client.address]
        for name in client.names:
            self._topics.remove((tenant, name), client)
        tree = self._patterns.get(tenant)
        if tree is not None:
            for pattern in client.patterns:
                tree.remove(pattern.split(":"), client)
            if not tree.below:
                del self._patterns[tenant]
        return True

    def match(self, message: Message) -> tuple[Client, ...]:
        """Return the clients that *message* is for, each once."""
        tenant = message.tenant_id
        if message.target is Target.USER:
            found = self._users.get(str(message.user_id))
            if tenant is None or tenant is ALL_TENANTS:
                return found
            return tuple(client for client in found if client.tenant_id == tenant)
        if message.target is Target.BROADCAST:
            return (
                self._all.snapshot() if tenant is ALL_TENANTS else self._tenants.get(_key(tenant))
            )
        tenants = tuple(self._tenants) if tenant is ALL_TENANTS else (_key(tenant),)
        if len(tenants) == len(message.topics) == 1:
            return self._match_topic(tenants[0], message.topic)
        reached: dict[Client, None] = {}
        for one in tenants:
            for topic in message.topics:
                reached.update(dict.fromkeys(self._match_topic(one, topic)))
        return tuple(reached)

    def _match_topic(self, tenant: str | None, topic: str) -> tuple[Client, ...]:
        named = self._topics.get((tenant, topic))
        tree = self._patterns.get(tenant)
        if tree is None:
            return named
        found = dict.fromkeys(named)
        for bucket in tree.find(topic.split(":")):
            found.update(dict.fromkeys(bucket.snapshot()))
        return tuple(found)


def _key(tenant: object) -> str | None:
    return None if tenant is None else str(tenant)
