"""Who subscribes by pattern: a tree for each tenant, walked by a name's segments.

A walk is remembered by name, because most names are sent to again, and the walk is
made again when the tree has got or lost a pattern.  What is remembered is bounded
for the whole process, whoever made it grow.
"""

from __future__ import annotations

from collections.abc import Hashable

from sse_broker.core.audience import Bucket
from sse_broker.core.client import Client

__all__ = ["Patterns"]

MOST_REMEMBERED = 4096  # walks, in one process


class _Node:
    """A step in a tree: a lookup walks the name, not the patterns."""

    __slots__ = ("below", "bucket")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.bucket: Bucket | None = None


class _Tree:
    """The patterns of one tenant; ``version`` is another one whenever there is one more or less."""

    __slots__ = ("root", "version")

    def __init__(self) -> None:
        self.root = _Node()
        self.version = 0

    def add(self, parts: list[str], client: Client) -> None:
        node = self.root
        for part in parts:
            found = node.below.get(part)
            if found is None:
                found = node.below[part] = _Node()
            node = found
        if node.bucket is None:
            node.bucket = Bucket()
            self.version += 1
        node.bucket.add(client)

    def remove(self, parts: list[str], client: Client) -> None:
        path, node = [], self.root
        for part in parts:
            path.append((node, part))
            found = node.below.get(part)
            if found is None:
                return
            node = found
        if node.bucket is None:
            return
        node.bucket.remove(client)
        if node.bucket:
            return
        node.bucket = None
        self.version += 1
        while path and node.bucket is None and not node.below:
            node, part = path.pop()
            del node.below[part]

    def find(self, parts: list[str]) -> tuple[Bucket, ...]:
        found: list[Bucket] = []
        level = [self.root]
        for part in parts:
            below: list[_Node] = []
            for node in level:
                children = node.below
                rest = children.get("**")
                if rest is not None and rest.bucket is not None:
                    found.append(rest.bucket)
                for name in ("*", part):
                    child = children.get(name)
                    if child is not None:
                        below.append(child)
            level = below
            if not level:
                break
        found += [node.bucket for node in level if node.bucket is not None]
        return tuple(found)


class Patterns:
    """The subscriptions by pattern of one process.  Locked by who calls it."""

    def __init__(self) -> None:
        self._trees: dict[Hashable, _Tree] = {}
        self._walks: dict[tuple[Hashable, str], tuple[_Tree, int, tuple[Bucket, ...]]] = {}

    def __len__(self) -> int:
        return len(self._trees)

    def add(self, tenant: Hashable, pattern: str, client: Client) -> None:
        """Take a client in under *pattern*."""
        tree = self._trees.get(tenant)
        if tree is None:
            tree = self._trees[tenant] = _Tree()
        tree.add(pattern.split(":"), client)

    def remove(self, tenant: Hashable, pattern: str, client: Client) -> None:
        """Let a client go from *pattern*, if it is there."""
        tree = self._trees.get(tenant)
        if tree is None:
            return
        tree.remove(pattern.split(":"), client)
        if not tree.root.below:
            del self._trees[tenant]
            self._walks.clear()

    def find(self, tenant: Hashable, topic: str) -> tuple[Bucket, ...]:
        """Return the buckets of the patterns that take *topic*."""
        tree = self._trees.get(tenant)
        if tree is None:
            return ()
        walk = self._walks.get((tenant, topic))
        if walk is not None and walk[0] is tree and walk[1] == tree.version:
            return walk[2]
        found = tree.find(topic.split(":"))
        if len(self._walks) >= MOST_REMEMBERED:
            self._walks.clear()
        self._walks[tenant, topic] = tree, tree.version, found
        return found
