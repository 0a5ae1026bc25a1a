"""A user of a tenant as one word, for who keeps words: the roster of who is online.

Equal user ids of two tenants are two members.  A user without a tenant is the id
itself, as earlier releases have it; every other one is JSON of both, so that no id
can be written that reads as another member.
"""

from __future__ import annotations

import json

__all__ = ["member_key", "member_of"]


def member_key(tenant_id: str | None, user_id: str) -> str:
    """Return the one word for a user of a tenant."""
    if tenant_id is None and not user_id.startswith("["):
        return user_id
    return json.dumps([tenant_id, user_id], ensure_ascii=False, separators=(",", ":"))


def member_of(key: str) -> tuple[str | None, str]:
    """Return the tenant and the user that :func:`member_key` was given."""
    if not key.startswith("["):
        return None, key
    try:
        tenant_id, user_id = json.loads(key)
    except ValueError:  # of an earlier release, which kept ids as they were
        return None, key
    return tenant_id, user_id
