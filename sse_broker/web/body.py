"""The JSON body of a request, read strictly (RFC 8259): what is ambiguous is refused.

Two readers of one document must not see two things: no name twice in an object,
no number that is none, no encoding but UTF-8, no nesting without end.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from flask import Request

from sse_broker.errors import InvalidMessage, MessageTooLarge

__all__ = ["MAX_DEPTH", "json_object"]

MAX_DEPTH = 256

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[{]|[\]}]")


def json_object(request: Request, most: int) -> dict[str, Any]:
    """Return the object that the body of *request* is, of at most *most* bytes.

    :raises InvalidMessage: it is none; ``.field`` names a field that is there twice.
    :raises MessageTooLarge: it is longer, or does not say how long it is.
    """
    if not request.is_json:
        # Also what keeps a foreign page's form from publishing (CSRF).
        raise InvalidMessage("the body must be JSON, with Content-Type: application/json")
    length = request.content_length
    if length is None and "Transfer-Encoding" not in request.headers:
        length = 0  # RFC 9112, section 6.3
    if length is None or length > most:
        raise MessageTooLarge(f"the body must have a length of at most {most} bytes")
    found = _parsed(request.get_data(cache=False))
    if not isinstance(found, dict):
        raise InvalidMessage("the body must be a JSON object")
    return found


def _parsed(raw: bytes) -> Any:
    _check_depth(raw)
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
        )
    except (ValueError, RecursionError):  # no JSON, no UTF-8, more digits than an int may have
        raise InvalidMessage("the body must be one JSON document in UTF-8") from None


def _check_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if found[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidMessage(f"the body is nested deeper than {MAX_DEPTH} levels", field="data")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InvalidMessage("the name is there twice", field=twice[:64])
    return found


def _constant(name: str) -> Any:
    raise InvalidMessage(f"{name} is not JSON", field="data")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidMessage("a number is too large", field="data")
    return value
