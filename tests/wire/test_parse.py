"""The parser's rules, each case whole, byte by byte, and with a tail."""

from __future__ import annotations

import pytest

from sse_broker import InvalidMessage
from sse_broker.wire.parse import Event, Parser, parse

CASES = {
    "a BOM is dropped once": (
        b"\xef\xbb\xbfdata: \xef\xbb\xbfx\n\n",
        [Event("message", "\ufeffx")],
    ),
    "line ends": (b"data: a\rdata: b\r\ndata: c\n\r\n", [Event("message", "a\nb\nc")]),
    "comments and unknown fields": (b": hi\nfoo: x\ndata\n\n", [Event("message", "")]),
    "no data, no event": (b"event: x\n\ndata: y\n\n", [Event("message", "y")]),
    "the id stays": (b"id: 1\ndata: a\n\ndata: b\n\n", [Event("message", d, "1") for d in "ab"]),
    "an id alone moves on": (b"id: 1\n\ndata: a\n\n", [Event("message", "a", "1")]),
    "an id with NUL is none": (b"id: 1\0\ndata: a\n\n", [Event("message", "a")]),
    "one space only": (b"data:  a\ndata:b\n\n", [Event("message", " a\nb")]),
    "retry is digits": (b"retry: 5x\nretry: 12\ndata\n\n", [Event("message", "", "", 12)]),
    "not every line end of Unicode": (
        "data: a\u2028b\x85\n\n".encode(),
        [Event("message", "a\u2028b\x85")],
    ),
    "bad UTF-8": (b"data: \xff\n\n", [Event("message", "\ufffd")]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_standards_rules(name: str) -> None:
    stream, events = CASES[name]
    assert parse(stream) == events
    assert parse(stream + b"data: unfinished\n") == events
    parser = Parser()
    assert [one for byte in stream for one in parser.feed(bytes([byte]))] == events


def test_comments_are_told() -> None:
    told: list[str] = []

    Parser(comment=told.append).feed(b": a\n:b\n")

    assert told == ["a", "b"]


def test_an_endless_event_is_refused() -> None:
    parser = Parser(max_event_bytes=100)

    with pytest.raises(InvalidMessage, match="more than 100"):
        for _ in range(200):
            parser.feed(b"x")
