"""The load client counts each delivery, and the cases run for real."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.build import c_programs
from benchmarks.load import Load, get, post
from benchmarks.report import trouble
from benchmarks.session import MISSED, Session
from benchmarks.subjects import SUBJECTS
from tests.live.conftest import need

pytestmark = pytest.mark.live

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def programs() -> None:
    need("cc", "gcc")
    c_programs()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def frame(number: int) -> bytes:
    text = b"id: a-%d\nevent: message\ndata: t=%014.6f n=%010d x\n\n"
    return text % (number, time.monotonic(), number)


@contextlib.contextmanager
def scripted(*answers: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Answer one connection after the other with such pieces (b"": close); show the requests."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve() -> None:
            for pieces in answers:
                connection = stack.enter_context(listener.accept()[0])
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asked.append(connection.recv(4096))
                for piece in pieces:
                    if piece:
                        connection.sendall(piece)
                    else:
                        connection.close()

        listener.settimeout(10)  # an end for a test that fails
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join(10)


def opened(port: int, streams: int, each: int, stall: float = 10) -> tuple[Load, dict]:
    load = Load(port, pinned=False, stall=stall)
    load.say("stream", get("/stream", "@RESUME@"))
    return load, load.do("open", streams, 10, 1, each)


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    "make",  # when the test runs, so that the stamps are of now and not of the collection
    [
        lambda: [HEAD + chunk(frame(1)) + chunk(frame(2))],
        lambda: single_bytes(HEAD + chunk(frame(1)) + chunk(frame(2))),
        lambda: [HEAD, *map(chunk, single_bytes(frame(1) + frame(2)))],
        lambda: [HEAD + chunk(frame(1) + frame(2) + b"data: no stamp\n\n: t=0 comment\n\n")],
        lambda: [b"HTTP/1.0 200 OK\r\n\r\n", frame(1)[:30], frame(1)[30:] + frame(2)],
    ],
    ids=["chunks", "byte by byte", "a chunk per byte", "one chunk", "no chunks"],
)
def test_each_delivery_is_counted_once(make: Callable[[], list[bytes]]) -> None:
    pieces = make()
    with scripted(pieces) as (port, _):
        load, got = opened(port, 1, 2)
        more = load.do("watch", 0.1)
        load.end()

    assert (got["deliveries"], got["least"], got["most"], got["failed"]) == (2, 2, 2, 0)
    assert more["deliveries"] == 0
    assert 0 < got["latency"]["p50_ms"] < 30_000


def test_a_missing_delivery_shows_at_its_stream() -> None:
    whole = HEAD + chunk(frame(1)) + chunk(frame(2))
    with scripted([whole], [HEAD + chunk(frame(1))]) as (port, _):
        load, got = opened(port, 2, 2, stall=0.3)
        load.end()

    assert (got["deliveries"], got["expected"], got["least"], got["most"]) == (3, 4, 1, 2)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ((1, 2, 3), {"odd": 0, "reordered": 0, "backwards": 0, "whole": 0}),
        ((1, 3, 3), {"odd": 1, "reordered": 1, "backwards": 1}),
        ((1, 3, 2), {"odd": 0, "reordered": 1, "backwards": 1}),
        ((1, 2, 4), {"odd": 2, "reordered": 1, "backwards": 0}),
    ],
    ids=["the same", "one twice", "another order", "another message"],
)
def test_messages_are_told_apart_by_their_numbers(second: tuple[int, ...], said: dict) -> None:
    first = HEAD + b"".join(chunk(frame(number)) for number in (1, 2, 3))
    other = HEAD + b"".join(chunk(frame(number)) for number in second)
    with scripted([first], [other]) as (port, _):
        load = Load(port, pinned=False)
        load.say("stream", get("/stream"))
        got = load.do("open", 2, 1, 1, 3)  # one after the other, so that the first is the first
        load.end()

    assert {name: got[name] for name in said} == said


def test_streams_that_share_the_messages_have_them_once_all_together() -> None:
    with scripted([HEAD + chunk(frame(5))], [HEAD + chunk(frame(6))]) as (port, _):
        load, got = opened(port, 2, 1)
        load.end()

    assert (got["whole"], got["odd"]) == (1, 2)


def test_a_stream_comes_back_with_its_last_id() -> None:
    with scripted([HEAD + chunk(frame(7))], [HEAD + chunk(frame(8))]) as (port, asked):
        load, _ = opened(port, 1, 1)
        load.do("close")
        load.do("open", 1, 1, 1, 1)
        load.end()

    assert b"Last-Event-ID" not in asked[0]
    assert b"\r\nLast-Event-ID: a-7\r\n" in asked[1]


def test_a_refused_stream_is_a_failure() -> None:
    with scripted([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]) as (port, _):
        load, got = opened(port, 1, 0)
        load.end()

    assert (got["streams"], got["failed"]) == (0, 1)


def test_a_publishers_content_length_is_right_when_stamps_are_filled_in() -> None:
    request = post("/pub?id=@CLIENT@", "t=@STAMP@ n=@NUMBER@ x")
    with scripted([b"HTTP/1.1 204 No Content\r\n\r\n"]) as (port, asked):
        load = Load(port, pinned=False)
        load.say("request", request)
        got = load.do("burst", 1, 0, 1)
        load.end()

    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /pub?id=000000000000 ")
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert got["request"]["count"] == 1


def test_a_publisher_comes_back_when_its_connection_was_closed_meanwhile() -> None:
    done = b"HTTP/1.1 204 No Content\r\n\r\n"
    with scripted([done, b""], [done]) as (port, asked):
        load = Load(port, pinned=False)
        load.say("request", post("/pub"))
        load.do("burst", 1, 0, 1)
        time.sleep(0.2)  # the load client reads nothing between commands
        got = load.do("burst", 1, 0, 1)
        load.end()

    assert len(asked) == 2
    assert got["request"]["count"] == 1


@pytest.mark.parametrize(
    "host", ["limit", "handoff", "handoff-sqlite", "gthread", "gevent", "naive-gthread"]
)
def test_the_cases_of_a_host_deliver_all(host: str) -> None:
    subject = SUBJECTS[host]

    found = Session(subject, 20, subject.cases).run()

    assert set(found) == subject.cases
    for case, figures in found.items():
        assert not trouble(case, figures), case
        assert figures["cpu"] > 0, case
    assert found["one"]["least"] == found["one"]["most"] == found["one"]["messages"]
    if "storm" in found:
        assert found["storm"]["least"] == found["storm"]["most"] == MISSED
