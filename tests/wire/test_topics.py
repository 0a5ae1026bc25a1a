"""Names, patterns, and what a pattern covers."""

from __future__ import annotations

import itertools

import pytest

from sse_broker import InvalidTopic
from sse_broker.wire.topics import check_name, check_pattern, covers, matches

NAMES = [":".join(p) for n in (1, 2, 3, 4) for p in itertools.product("ab", repeat=n)]
PATTERNS = [
    ":".join(p)
    for n in (1, 2, 3)
    for p in itertools.product(["a", "b", "*", "**"], repeat=n)
    if "**" not in p[:-1]
]


def slow_match(pattern: list[str], name: list[str]) -> bool:
    """The definition, word by word."""
    if not pattern or not name:
        return pattern == name
    if pattern[0] == "**":
        return True
    return pattern[0] in ("*", name[0]) and slow_match(pattern[1:], name[1:])


def test_matching_is_as_defined() -> None:
    for pattern, name in itertools.product(PATTERNS, NAMES):
        assert matches(pattern, name) == slow_match(pattern.split(":"), name.split(":"))


def test_a_grant_covers_only_what_it_matches_whole() -> None:
    for grant, wanted in itertools.product(PATTERNS, PATTERNS):
        takes = {name for name in NAMES if matches(wanted, name)}
        if covers(grant, wanted):
            assert takes <= {name for name in NAMES if matches(grant, name)}
        elif "b" not in grant + wanted:
            assert not takes <= {name for name in NAMES if matches(grant, name)}


@pytest.mark.parametrize("bad", ["**:a", "a:**:b", "", "a::b", "a\0b", "a\u2028b"])
def test_a_bad_pattern_is_refused(bad: str) -> None:
    with pytest.raises(InvalidTopic):
        check_pattern(bad)


def test_names_that_look_alike_are_two_topics() -> None:
    assert not matches("caf\u00e9", "cafe\u0301")


def test_only_strings_are_topics() -> None:
    for bad in (None, 1, ["a"]):
        with pytest.raises(InvalidTopic):
            check_name(bad)  # type: ignore[arg-type]
