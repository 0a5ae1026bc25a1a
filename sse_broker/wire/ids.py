"""User and tenant ids, as every part of the library keeps them: as one string form.

A UUID, a string and an integer that mean the same id become the same string, so
they compare equal however they were written.
"""

from __future__ import annotations

import functools
import re
import uuid

from sse_broker.errors import InvalidUserID

__all__ = ["MAX_ID_CHARS", "UserID", "normal_tenant_id", "normal_user_id"]

UserID = uuid.UUID | str | int
MAX_ID_CHARS = 256

_NIL = uuid.UUID(int=0)
_NIL_TEXT = str(_NIL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The spellings that uuid.UUID() reads; anything else stays the string it is.
_UUID = re.compile(
    r"(?:urn:uuid:)?\{?[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}\}?",
    re.IGNORECASE,
)


def normal_user_id(value: object, field: str = "user_id") -> str:
    """Return the one string form of a user id.

    :raises InvalidUserID: nil, empty, longer than 256 characters, with control
        characters, or not a UUID, string or integer.
    """
    if isinstance(value, str):
        # Its plain text: a str that is an Enum too equals it, but is written otherwise.
        return _normal(str.__str__(value), field)
    if isinstance(value, uuid.UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return _normal(str(value), field)
    raise InvalidUserID(f"{type(value).__name__} is no UUID, string or integer", field=field)


@functools.lru_cache(maxsize=16_384)  # reading a UUID costs a third of a publish
def _normal(value: str, field: str) -> str:
    is_uuid = len(value) >= 32 and _UUID.fullmatch(value)
    text = str(uuid.UUID(value)) if is_uuid else value
    if not text.strip() or text == _NIL_TEXT:
        raise InvalidUserID("it is nil or empty", field=field)
    if len(text) > MAX_ID_CHARS or _CONTROL.search(text):
        raise InvalidUserID("it is too long or has control characters", field=field)
    return text


def normal_tenant_id(value: object, field: str = "tenant_id") -> str | None:
    """Return the one string form of a tenant id; ``None`` means no tenant.

    :raises InvalidUserID: as for a user id; the empty string and the nil UUID are
        refused, because a forgotten value must not widen who is reached.
    """
    return None if value is None else normal_user_id(value, field)
