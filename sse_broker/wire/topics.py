"""Topic names and patterns.

A topic name is one or more segments parted by ``:``, as ``approval:process:7``.  A
segment is one or more characters of any script, spaces and emoji too, but no
control character and no line end; the whole has at most 512 bytes in UTF-8.
A pattern is a name in which a whole segment may be ``*`` (any one segment) or,
as the last segment only, ``**`` (the rest: one or more segments).  So
``approval:**`` takes ``approval:pending`` and ``approval:process:7``, but not
``approval``.

Names are compared code point by code point.  Nothing is folded or normalised:
two names that look alike are two topics, and a grant for one is none for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice

from sse_broker.errors import InvalidTopic

__all__ = [
    "MAX_TOPICS",
    "MAX_TOPIC_BYTES",
    "check_name",
    "check_names",
    "check_pattern",
    "covers",
    "is_pattern",
    "matches",
]

MAX_TOPIC_BYTES = 512
MAX_TOPICS = 64  # that one message may be sent to

# C0 and C1 controls, DEL, and the two Unicode line ends: none can be seen in a
# log line, and NUL has made keys collide elsewhere.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_pattern(topic: str) -> bool:
    """Whether *topic* has a ``*`` or ``**`` segment."""
    return "*" in topic and any(part in ("*", "**") for part in topic.split(":"))


def check_name(topic: str) -> str:
    """Return *topic* if a message can be sent to it.

    :raises InvalidTopic: it is empty, longer than 512 bytes in UTF-8, has a
        control character or an empty segment, or is a pattern.
    """
    _check_type(topic)
    if _is_name(topic):
        return topic
    raise InvalidTopic(f"{topic!r} is a pattern; send to a name", field="topic")


def check_names(topics: str | Iterable[str]) -> tuple[str, ...]:
    """Return the topics that one message is sent to, each once: one name, or several.

    :raises InvalidTopic: as :func:`check_name` for one of them, or there are none,
        or more than 64.
    """
    if isinstance(topics, str):
        return _alone(topics)
    if type(topics) is tuple and len(topics) == 1 and type(topics[0]) is str:
        return _alone(topics[0])  # what this returns, asked again: each message is checked twice
    if isinstance(topics, bytes | Mapping) or not isinstance(topics, Iterable):
        raise InvalidTopic(
            f"a topic is a string, or several in a list, not {type(topics).__name__}",
            field="topic",
        )
    found = tuple(dict.fromkeys(check_name(one) for one in islice(topics, MAX_TOPICS + 1)))
    if not found:
        raise InvalidTopic("the list is empty", field="topic")
    if len(found) > MAX_TOPICS:
        raise InvalidTopic(f"a message goes to at most {MAX_TOPICS} topics", field="topic")
    return found


@lru_cache(maxsize=4096)
def _alone(topic: str) -> tuple[str]:
    return (check_name(topic),)


def check_pattern(topic: str) -> str:
    """Return *topic* if a client can subscribe to it: a name or a pattern.

    :raises InvalidTopic: as :func:`check_name`, or ``**`` is not the last segment.
    """
    _check_type(topic)
    _check(topic)
    if "**" in topic.split(":")[:-1]:
        raise InvalidTopic(f"{topic!r}: '**' can only be the last segment", field="topics")
    return topic


@lru_cache(maxsize=4096)
def _is_name(topic: str) -> bool:
    _check(topic)
    return not is_pattern(topic)


def _check_type(topic: object) -> None:
    if not isinstance(topic, str):
        raise InvalidTopic(f"a topic is a string, not {type(topic).__name__}", field="topic")


@lru_cache(maxsize=4096)  # a sender uses few names, many times; a failure is not kept
def _check(topic: str) -> None:
    if not topic:
        raise _refusal("it is empty")
    found = _CONTROL.search(topic)
    if found:
        raise _refusal(f"{topic!r} has the control character U+{ord(found[0]):04X}")
    if "" in topic.split(":"):
        raise _refusal(f"{topic!r} has an empty segment")
    try:
        size = len(topic.encode())
    except UnicodeEncodeError as err:
        lone = ord(topic[err.start])
        raise _refusal(f"{topic!r} has no UTF-8 form (a lone surrogate, U+{lone:04X})") from None
    if size > MAX_TOPIC_BYTES:
        raise _refusal(f"it has {size} bytes")


def _refusal(what: str) -> InvalidTopic:
    return InvalidTopic(
        f"{what}; a topic is segments parted by ':', each of one or more characters without"
        f" control characters, {MAX_TOPIC_BYTES} bytes of UTF-8 in all",
        field="topic",
    )


def matches(pattern: str, name: str) -> bool:
    """Whether *pattern* (a pattern or a name) takes the topic *name*."""
    return covers(pattern, name)


def covers(grant: str, wanted: str) -> bool:
    """Whether every topic that *wanted* takes is taken by *grant* too.

    Both may be names or patterns, so this also answers whether a granted
    pattern allows a subscription to a narrower pattern.
    """
    if grant == wanted:
        return True
    have, want = grant.split(":"), wanted.split(":")
    for index, part in enumerate(have):
        if part == "**" and index == len(have) - 1:
            return len(want) > index
        if index >= len(want) or want[index] == "**":
            return False
        if part != "*" and part != want[index]:
            return False
    return len(have) == len(want)
