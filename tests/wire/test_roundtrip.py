"""Any text through our encoder and back through decoders, most of which nobody here wrote."""

from __future__ import annotations

import re

import httpx
from httpx_sse import EventSource
from hypothesis import example, given
from hypothesis import strategies as st
from sseclient import SSEClient

from sse_broker import format_event
from sse_broker.wire.parse import Parser, parse

TRICKY = ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\0", " ", ":"]
TEXTS = st.lists(st.one_of(st.sampled_from([*TRICKY, "\ufeff", "data: x"]), st.text())).map("".join)
EVENTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
IDS = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)


def received(text: str) -> str:
    """What the standard says arrives: CR and CRLF are line ends, like LF."""
    return re.sub(r"\r\n|\r", "\n", text)


@given(TEXTS, EVENTS, IDS)
@example("", "message", "1")
@example("\ufeff", "e", "1")
@example("  leading", "e", "1")
def test_our_parser_reads_it_back_in_any_chunks(text: str, event: str, id: str) -> None:
    frame = format_event(event, text, id=id)

    whole = parse(frame * 2)
    parser = Parser()
    bytewise = [one for byte in frame * 2 for one in parser.feed(bytes([byte]))]

    assert whole == bytewise
    assert len(whole) == 2
    assert (whole[0].event, whole[0].data, whole[0].id) == (event, received(text), id)


@given(TEXTS, IDS)
def test_httpx_sse_reads_it_back(text: str, id: str) -> None:
    response = httpx.Response(
        200, headers={"content-type": "text/event-stream"}, content=format_event("e", text, id=id)
    )

    (event,) = EventSource(response).iter_sse()

    assert (event.event, event.data, event.id) == ("e", received(text), id)


# sseclient-py splits with str.splitlines(), at more than the standard's line ends, and
# leaves out events without data; those texts are left to the other decoders.
def is_plain(text: str) -> bool:
    return bool(text) and not re.search("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text)


PLAIN = TEXTS.filter(is_plain)


@given(PLAIN, IDS)
def test_sseclient_py_reads_it_back(text: str, id: str) -> None:
    (event,) = SSEClient([format_event("e", text, id=id)]).events()

    assert (event.event, event.data, event.id) == ("e", received(text), id)
