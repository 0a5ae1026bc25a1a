"""Sets of clients whose snapshot is the same object until they change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from sse_broker.core.client import Client, State

__all__ = ["Audience", "Bucket", "Buckets", "Union"]

Key = TypeVar("Key")


class Audience(tuple[Client, ...]):
    """The clients of a bucket at one moment."""

    bucket: Bucket
    followed_by: Any = None  # the row that has been told who they are


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


class Union(Bucket):
    """The clients of several buckets, each once."""

    __slots__ = ("_parts", "_seen", "_version")

    def __init__(self, parts: Sequence[Bucket | Client]) -> None:
        super().__init__()
        self._snapshot = None
        self._parts = parts
        self._seen: Sequence[object] = ()
        self._version = 0

    @property
    def is_needed(self) -> bool:
        """Whether each of its parts has clients still."""
        return all(
            part.state is not State.CLOSED if isinstance(part, Client) else len(part) > 0
            for part in self._parts
        )

    def at(self, version: int) -> tuple[Client, ...]:
        """Return the clients at a version of the registry.

        It is the same object until one of the parts has changed.
        """
        if self._snapshot is not None and self._version == version:
            return self._snapshot
        found = [(part,) if isinstance(part, Client) else part.snapshot() for part in self._parts]
        seen = [one[0] if len(one) == 1 else one for one in found]
        if self._snapshot is None or not _same(seen, self._seen):
            each = dict.fromkeys(client for one in found for client in one)
            audience = Audience(each)
            audience.bucket = self
            self._snapshot, self._seen = audience, seen
        self._version = version
        return self._snapshot


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(map(_is, some, others))


def _is(one: object, other: object) -> bool:
    return one is other


class Buckets(Generic[Key]):
    """Buckets by key; an empty one is forgotten, and one client alone needs none."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[Key, Bucket | Client] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_key)

    def add(self, key: Key, client: Client) -> None:
        """Take a client in under *key*."""
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
        """Let a client go from *key*, if it is there."""
        found = self._by_key.get(key)
        if isinstance(found, Bucket):
            found.remove(client)
            if not found:
                del self._by_key[key]
        elif found is client:
            del self._by_key[key]

    def find(self, key: Key) -> Bucket | Client | None:
        """Return what is kept under *key*."""
        return self._by_key.get(key)

    def get(self, key: Key) -> tuple[Client, ...]:
        """Return the clients of *key*."""
        found = self._by_key.get(key)
        if found is None:
            return ()
        return found.snapshot() if isinstance(found, Bucket) else (found,)

    def count(self, key: Key) -> int:
        """Return how many clients *key* has."""
        found = self._by_key.get(key)
        if found is None:
            return 0
        return len(found) if isinstance(found, Bucket) else 1
