"""To whom an own id belongs: the tenant and the addressee of its message.

Two senders that choose the same id for different people mean two messages, so
an own id is known under its scope only.  A scope is one string: the kind of
target, how the tenant was said, the tenant, and who is addressed, parted by NUL
(several topics by U+0001), which no tenant, user or topic may have.
"""

from __future__ import annotations

from collections.abc import Iterable

from sse_broker.wire.message import ALL_TENANTS, Message, Target

__all__ = ["scope_of", "scopes_of_reader"]

_LETTERS = {Target.USER: "u", Target.TOPIC: "t", Target.BROADCAST: "b"}


def scope_of(message: Message) -> str:
    """Return the scope of a message."""
    names = "\1".join(sorted(message.topics))
    addressee = message.user_id if message.target is Target.USER else names
    return _scope(message.target, message.tenant_id, str(addressee or ""))


def scopes_of_reader(user_id: str, tenant_id: str | None, names: Iterable[str]) -> list[str]:
    """Return the scopes of what a client reads whose topics are *names*; patterns add to them."""
    found = [
        *(_scope(Target.USER, tenant, user_id) for tenant in {tenant_id, None, ALL_TENANTS}),
        *(_scope(Target.BROADCAST, tenant, "") for tenant in (tenant_id, ALL_TENANTS)),
    ]
    for name in names:
        found += (_scope(Target.TOPIC, tenant, name) for tenant in (tenant_id, ALL_TENANTS))
    return found


def _scope(target: Target, tenant: object, addressee: str) -> str:
    how = "*" if tenant is ALL_TENANTS else "-" if tenant is None else "="
    name = tenant if how == "=" else ""
    return f"{_LETTERS[target]}{how}\0{name}\0{addressee}"
