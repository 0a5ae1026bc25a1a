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


@pytest.mark.parametrize(
    "good", ["sensor 7", "caf\u00e9:\u6771\u4eac", "a@example.com/b?c=1#d", "\U0001f680", "x" * 512]
)
def test_any_printable_text_is_a_topic(good: str) -> None:
    assert check_name(good) == good


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "empty"),
        ("a::b", "empty segment"),
        (":a", "empty segment"),
        ("a\tb", r"U\+0009"),
        ("a\x9fb", r"U\+009F"),
        ("a\u2029b", r"U\+2029"),
        ("\u00e9" * 257, "514 bytes"),
        ("a\ud800", "surrogate"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_a_segment_may_be(bad: str, why: str) -> None:
    with pytest.raises(InvalidTopic, match=f"{why}.*; a topic is segments parted by ':'") as caught:
        check_name(bad)

    assert caught.value.field == "topic"
